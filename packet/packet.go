// Package packet is the currency of uvs: one IP packet as a view over bytes,
// and the only code that reads or changes a header field.
//
// A [Packet] is parsed once ([Packet.Parse]), which fills its [Tuple]; the
// balancer finds the flow of the tuple and applies the flow's [Rewrite]; what
// became of the packet is a [Verdict] with a [Reason]. Checksums are true
// after every change, whether they are complete or, in a super-packet that
// came with a virtio-net header ([VNet]), still to be completed by the
// hardware.
//
// IPv4 and IPv6 differ in this package only. It is a leaf: it knows no
// service, no device and no clock.
package packet

// Headroom is the room, in bytes, that must stay free in front of a packet
// read from outside: an outer IPv6 header (40) with UDP and GUE (12), the
// growth of an IPv4 header that becomes IPv6 with a fragment header (28), an
// Ethernet header with a VLAN tag (18) and a virtio-net header (12), rounded
// up to whole cache lines.
const Headroom = 128

// MaxSize is the largest packet, in bytes, that is read from outside: the
// IPv4 total length and the IPv6 payload length plus header end here.
const MaxSize = 65535 + 40

// A Packet is one IP packet in a buffer that its reader owns.
//
// The bytes are valid until Handle returns; whoever keeps them clones them.
// A Packet is reused for the next packet by Reset, so it holds no state that
// outlives one.
type Packet struct {
	buf        []byte // the whole buffer; the packet is buf[start:end]
	start, end int

	// VNet is what the virtio-net header said about segmentation and
	// checksums; its zero value is a plain packet with complete checksums.
	VNet VNet

	// Tuple is filled by Parse and says what the packet was when it came;
	// Apply does not change it. For an ICMP error it is the tuple of a packet
	// that travels the same way as the error does, that is the embedded
	// packet's tuple reversed, so errors find their flow as any packet does.
	// The ports of a later fragment are zero until the fragment table of
	// package stack sets them from the first one.
	Tuple Tuple

	// Hash is Tuple.Hash as the handler has computed it ahead, 0 where it has
	// not. What changes Tuple afterwards sets it to 0.
	Hash uint64

	// NextHop, set by Rewrite.Apply, is the neighbour that gets the packet
	// whatever its destination says (direct routing). Family 0: the packet is
	// routed by its destination.
	NextHop Endpoint

	// Encap, set by Rewrite.Apply, is an encapsulation still to be done: a
	// super-packet is split first, one outer packet per segment. Kind NoEncap:
	// nothing is pending.
	Encap Encap

	// What Parse found. Everything but frag means nothing before it.
	l4     int      // offset from start of what follows the IP headers
	inner  embedded // where the embedded packet lies, if isErr
	frag   Fragment // zero unless the packet is a fragment
	part   int      // of a fragment: offset of what it carries of its datagram
	family uint8    // of the IP header
	proto  uint8    // of what follows the IP headers; Tuple.Proto may be an embedded packet's
	isErr  bool     // an ICMP error with a usable embedded packet
	only6  bool     // extension headers say what IPv4 has no words for

	cut int // see CutLen
}

// Reset makes p the packet buf[start:end], not yet parsed.
func (p *Packet) Reset(buf []byte, start, end int) {
	p.buf, p.start, p.end = buf, start, end
	p.VNet = VNet{}
	p.Hash = 0
	p.NextHop.Family = 0
	p.Encap.Kind = NoEncap
	p.frag = Fragment{}
	p.isErr = false
	p.cut = 0
}

// Bytes is the packet, from its IP header on.
func (p *Packet) Bytes() []byte { return p.buf[p.start:p.end] }

// Buffer gives the backing array and where the packet lies in it, so that the
// egress can put link headers into the headroom in place.
func (p *Packet) Buffer() (buf []byte, start, end int) { return p.buf, p.start, p.end }

// Len is the length in bytes of the IP packet.
func (p *Packet) Len() int { return p.end - p.start }

// Destination is the address that decides where the packet goes now: the next
// hop, the far end of a pending encapsulation, or the destination in the IP
// header.
func (p *Packet) Destination() (Addr, uint8) {
	if p.NextHop.Family != 0 {
		return p.NextHop.Addr, p.NextHop.Family
	}
	if p.Encap.Kind != NoEncap {
		return p.Encap.Dst, p.Encap.Family
	}
	b := p.buf[p.start:p.end]
	if p.family == IPv4 {
		var a Addr
		a.set4(b[16:20])
		return a, IPv4
	}
	return Addr(b[24:40]), IPv6
}

// DontFragment says whether a router may not fragment p (always for IPv6).
func (p *Packet) DontFragment() bool {
	return p.family == IPv6 || p.buf[p.start+6]&0x40 != 0
}
