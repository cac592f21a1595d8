package packet

import "encoding/binary"

const (
	protoIPIP = 4
	protoIPv6 = 41
	protoGRE  = 47

	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd

	// The source port of GUE tells flows apart on the way. It is drawn from
	// the kernel's ephemeral range.
	guePortFirst = 32768
	guePortCount = 60999 - guePortFirst + 1
)

// Prepend encapsulates p by its pending Encap, as the kernel's IPVS does; p
// must not be a super-packet. A checksum left to the hardware is completed
// first. TooBig says that no IP packet is as long as the result.
//
// The outer header copies from the inner one TTL and class (but CE becomes
// ECT(0), RFC 6040 section 4.1) and, unless Encap.Fragment is set, DF. Its flow
// label is zero.
func (p *Packet) Prepend() Reason {
	e := &p.Encap
	n := e.Overhead()
	total := p.Len() + n
	if total > 65535+40 || total > 65535 && e.Family == IPv4 {
		return TooBig
	}
	p.CompleteChecksum()
	inner := p.buf[p.start:p.end]
	p.start -= n
	b := p.buf[p.start:p.end]

	proto := uint8(protoIPIP)
	ether := uint16(etherIPv4)
	if p.family == IPv6 {
		proto, ether = protoIPv6, etherIPv6
	}
	outer := 20
	if e.Family == IPv6 {
		outer = 40
	}
	innerProto := proto
	switch e.Kind {
	case GUE:
		proto = UDP
	case GRE:
		proto = protoGRE
	}
	tos, ttl := class(inner)
	if tos&3 == ce {
		tos = tos&^3 | ect0
	}
	switch {
	case e.Family == IPv6:
		putHeader6(b, total-40, tos, ttl, proto, &e.Src, &e.Dst)
	case p.family == IPv4 && inner[6]&0x40 != 0 && !e.Fragment:
		putHeader4(b, total, tos, ttl, proto, 0, dontFragment, &e.Src, &e.Dst)
	default:
		putHeader4(b, total, tos, ttl, proto, ident(&e.Src, &e.Dst), 0, &e.Src, &e.Dst)
	}
	t := b[outer:]
	p.family, p.proto, p.l4 = e.Family, proto, outer
	p.frag, p.isErr, p.only6 = Fragment{}, false, false
	switch e.Kind {
	case GUE:
		p.putGUE(t, innerProto)
	case GRE:
		putGRE(t, ether, e.Checksum)
	}
	e.Kind = NoEncap
	return OK
}

// GUESourcePort is the UDP source port of the packets of t in a GUE tunnel.
func GUESourcePort(t *Tuple) uint16 {
	return uint16(guePortFirst + t.Hash(flowKey)>>32*guePortCount>>32)
}

// putGUE writes the UDP and GUE headers to the start of t, whose rest is the
// inner packet.
func (p *Packet) putGUE(t []byte, innerProto uint8) {
	binary.BigEndian.PutUint16(t[0:2], GUESourcePort(&p.Tuple))
	binary.BigEndian.PutUint16(t[2:4], p.Encap.Port)
	binary.BigEndian.PutUint16(t[4:6], uint16(len(t)))
	binary.BigEndian.PutUint16(t[6:8], 0)
	t[8], t[9], t[10], t[11] = 0, innerProto, 0, 0
	if p.Encap.Checksum {
		p.fillUDP()
	}
}

func putGRE(t []byte, ether uint16, withSum bool) {
	binary.BigEndian.PutUint16(t[0:2], 0)
	binary.BigEndian.PutUint16(t[2:4], ether)
	if withSum {
		t[0] = 0x80
		binary.BigEndian.PutUint32(t[4:8], 0)
		binary.BigEndian.PutUint16(t[4:6], ^sum(t, 0))
	}
}
