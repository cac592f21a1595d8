package packet

import (
	"bytes"
	"encoding/binary"
)

// A Coalescer merges the consecutive segments of one TCP connection into a
// super-packet, the reverse of a Splitter, so that the kernel takes many
// packets by one write to a TUN device. The zero value is ready.
//
//	if !c.Add(p) {
//		write(c.Finish()) // nil at first
//		c.Start(p)        // p's buffer now belongs to c until the next Finish
//	}
//
// The kernel, cutting the super-packet up again, would make the same segments,
// except that the acknowledged ones come as one.
type Coalescer struct {
	p    *Packet
	head int    // length of all headers
	size int    // payload of each segment but the last, bytes
	n    int    // segments
	next uint32 // the sequence number that follows
	open bool   // more may be added
}

// Start begins anew with p, which must have been parsed and have complete
// checksums. Segments are added in its buffer, behind its end. Finish gives it
// back, whether or not anything could be added.
func (c *Coalescer) Start(p *Packet) {
	*c = Coalescer{p: p, n: 1}
	const never = SYN | RST | URG | CWR
	if p.proto != TCP || p.frag.Is || p.isErr || p.VNet.Flags&VNetNeedsCsum != 0 || p.family == IPv4 && p.l4 != 20 {
		return
	}
	t := p.buf[p.start+p.l4 : p.end]
	n := tcpDataOffset(t)
	if n == 0 || n == len(t) || t[13]&never != 0 || t[13]&ACK == 0 {
		return
	}
	c.head, c.size = p.l4+n, len(t)-n
	c.next = binary.BigEndian.Uint32(t[4:8]) + uint32(c.size)
	c.open = true
}

// Add appends q, which must have been parsed, to what Start began, and says
// whether it did; then q is used up. It is not appended if anything but length,
// sequence number, identification, checksums, FIN and PSH differs, if it does
// not follow at once, or if a checksum is wrong. After a shorter segment, FIN
// or PSH nothing more is added.
func (c *Coalescer) Add(q *Packet) bool {
	if !c.open || q.proto != TCP || q.isErr || q.l4 != c.p.l4 || q.VNet.Flags&VNetNeedsCsum != 0 || q.Tuple != c.p.Tuple {
		return false
	}
	a, b := c.p.buf[c.p.start:c.p.end], q.buf[q.start:q.end]
	size := len(b) - c.head
	if size <= 0 || size > c.size || len(a)+size > 65535 || c.p.end+size > len(c.p.buf) {
		return false
	}
	if !c.sameIP(a, b) || !c.sameTCP(a[c.p.l4:c.head], b[c.p.l4:c.head]) {
		return false
	}
	if c.n == 1 && !c.p.TransportChecksumOK() {
		c.open = false
		return false
	}
	if !q.TransportChecksumOK() {
		return false
	}
	a[c.p.l4+13] |= b[c.p.l4+13]
	copy(c.p.buf[c.p.end:], b[c.head:])
	c.p.end += size
	c.next += uint32(size)
	c.n++
	c.open = size == c.size
	return true
}

// sameIP compares the IP headers a and b; the addresses have been compared.
func (c *Coalescer) sameIP(a, b []byte) bool {
	if c.p.family == IPv6 {
		return bytes.Equal(a[0:4], b[0:4]) && bytes.Equal(a[6:8], b[6:8]) && bytes.Equal(a[40:c.p.l4], b[40:c.p.l4])
	}
	// Where DF is set the identification means nothing (RFC 6864).
	id := binary.BigEndian.Uint16(a[4:6]) + uint16(c.n)
	return a[1] == b[1] && bytes.Equal(a[6:10], b[6:10]) && (a[6]&0x40 != 0 || binary.BigEndian.Uint16(b[4:6]) == id)
}

// sameTCP compares the TCP headers a and b; the ports have been compared. An a
// that has FIN or PSH, its own or an added one, is never the same.
func (c *Coalescer) sameTCP(a, b []byte) bool {
	return binary.BigEndian.Uint32(b[4:8]) == c.next &&
		bytes.Equal(a[8:13], b[8:13]) && // acknowledgement, data offset
		a[13] == b[13]&^(FIN|PSH) &&
		bytes.Equal(a[14:16], b[14:16]) && // window
		bytes.Equal(a[18:], b[18:]) // options
}

// Finish gives the packet that Start began, a super-packet with its VNet if
// anything was added, or nil if nothing was begun. It leaves c empty.
func (c *Coalescer) Finish() *Packet {
	p := c.p
	if p == nil || c.n == 1 {
		*c = Coalescer{}
		return p
	}
	b := p.buf[p.start:p.end]
	gso := uint8(GSOTCPv6)
	if p.family == IPv4 {
		gso = GSOTCPv4
		binary.BigEndian.PutUint16(b[2:4], uint16(len(b)))
		sumHeader4(b[:20])
	} else {
		binary.BigEndian.PutUint16(b[4:6], uint16(len(b)-40))
	}
	p.VNet = VNet{
		Flags: VNetNeedsCsum, GSOType: gso, HdrLen: uint16(c.head), GSOSize: uint16(c.size),
		CsumStart: uint16(p.l4), CsumOffset: tcpChecksum,
	}
	binary.BigEndian.PutUint16(b[p.l4+tcpChecksum:], p.pseudo(len(b)-p.l4))
	*c = Coalescer{}
	return p
}
