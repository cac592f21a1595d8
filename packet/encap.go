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
// ECT(0), RFC 6040 section 4.1) and DF. Its flow label is zero.
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
	if e.Family == IPv4 {
		p.putOuter4(b, inner, proto)
	} else {
		p.putOuter6(b, inner, proto)
	}
	t := b[outer:]
	p.family, p.proto, p.l4 = e.Family, proto, outer
	p.frag, p.isErr, p.routed = Fragment{}, false, false
	switch e.Kind {
	case GUE:
		p.putGUE(t, innerProto)
	case GRE:
		putGRE(t, ether, e.Checksum)
	}
	e.Kind = NoEncap
	return OK
}

func (p *Packet) putOuter4(b, inner []byte, proto uint8) {
	tos, ttl := class(inner)
	b[0], b[1] = 0x45, outerClass(tos)
	binary.BigEndian.PutUint16(b[2:4], uint16(len(b)))
	copy(b[12:16], p.Encap.Src[:4])
	copy(b[16:20], p.Encap.Dst[:4])
	if p.family == IPv4 && inner[6]&0x40 != 0 {
		binary.BigEndian.PutUint32(b[4:8], 0x4000) // no id, DF
	} else {
		binary.BigEndian.PutUint16(b[4:6], ident(b[12:16], b[16:20]))
		b[6], b[7] = 0, 0
	}
	b[8], b[9] = ttl, proto
	sumHeader4(b[:20])
}

func (p *Packet) putOuter6(b, inner []byte, proto uint8) {
	tos, ttl := class(inner)
	binary.BigEndian.PutUint32(b[0:4], 6<<28|uint32(outerClass(tos))<<20)
	binary.BigEndian.PutUint16(b[4:6], uint16(len(b)-40))
	b[6], b[7] = proto, ttl
	copy(b[8:24], p.Encap.Src[:])
	copy(b[24:40], p.Encap.Dst[:])
}

// putGUE writes the UDP and GUE headers to the start of t, whose rest is the
// inner packet.
func (p *Packet) putGUE(t []byte, innerProto uint8) {
	port := guePortFirst + p.Tuple.Hash(flowKey)>>32*guePortCount>>32
	binary.BigEndian.PutUint16(t[0:2], uint16(port))
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

// class gives the TOS or traffic class and the TTL or hop limit of a packet.
func class(b []byte) (tos, ttl uint8) {
	if b[0]>>4 == 4 {
		return b[1], b[8]
	}
	return b[0]<<4 | b[1]>>4, b[7]
}

func outerClass(tos uint8) uint8 {
	if tos&3 == 3 {
		return tos &^ 1
	}
	return tos
}
