package packet

import "encoding/binary"

const icmpHeaderLen = 8

// embedded is where the packet inside an ICMP error lies, as offsets from the
// start of the error.
type embedded struct {
	off   int   // its IP header
	l4    int   // its transport header
	proto uint8 // its protocol
}

// hasPorts is false for ESP and AH.
func (e *embedded) hasPorts() bool { return e.proto != ESP && e.proto != AH }

// IsICMPError says whether p is an ICMP error whose Tuple comes from the
// embedded packet. Errors about other protocols than TCP, UDP, SCTP, ESP and AH,
// about a later fragment, or with too little of the embedded packet are none:
// their Tuple is their own, with protocol ICMP and no ports. So are the types that IPVS does
// not handle: IPv4 redirect (5) and parameter problem (12).
func (p *Packet) IsICMPError() bool { return p.isErr }

// carriesPacket says whether the ICMP type of the family is an error that is
// translated for the flow of its embedded packet.
func carriesPacket(family, typ uint8) bool {
	if family == IPv4 {
		return typ == 3 || typ == 4 || typ == 11
	}
	return typ < 128 // unknown errors too are for the upper layer (RFC 4443 section 2.4)
}

// parseEmbedded fills inner and Tuple from the packet inside the ICMP error b.
// It leaves both alone where that packet is of no use: the ports, 4 bytes of
// transport header, suffice; lengths and checksums of what is embedded are not
// looked at, because it is cut short as often as not.
func (p *Packet) parseEmbedded(b []byte) {
	if p.frag.Is || !carriesPacket(p.family, b[p.l4]) {
		return
	}
	off := p.l4 + icmpHeaderLen
	e := b[off:]
	h, ok := readHeader(e)
	if !ok || h.family != p.family {
		return
	}
	tuple := Tuple{Src: h.dst, Dst: h.src, Proto: h.proto, Family: p.family}
	switch h.proto {
	case TCP, UDP, SCTP:
		if len(e) < h.l4+4 {
			return
		}
		tuple.SrcPort, tuple.DstPort = binary.BigEndian.Uint16(e[h.l4+2:]), binary.BigEndian.Uint16(e[h.l4:])
	case ESP, AH:
	default:
		return
	}
	p.isErr = true
	p.inner = embedded{off: off, l4: off + h.l4, proto: h.proto}
	p.Tuple = tuple
}

// ipHeader is what tells apart the packets that an ICMP error may be about.
type ipHeader struct {
	src, dst Addr
	l4       int // offset of the transport header
	family   uint8
	proto    uint8
}

// readHeader reads the IP header of a packet that is cut short as often as not.
// It says false for a later fragment too, whose payload is no header, and where the
// header itself is not whole.
func readHeader(e []byte) (h ipHeader, ok bool) {
	switch {
	case len(e) >= 20 && e[0]>>4 == IPv4:
		h = ipHeader{family: IPv4, l4: int(e[0]&0x0f) * 4, proto: e[9]}
		h.src.set4(e[12:16])
		h.dst.set4(e[16:20])
		return h, h.l4 >= 20 && h.l4 <= len(e) && binary.BigEndian.Uint16(e[6:8])&0x1fff == 0
	case len(e) >= 40 && e[0]>>4 == IPv6:
		x, why := walk6(e)
		return ipHeader{Addr(e[8:24]), Addr(e[24:40]), x.l4, IPv6, x.proto}, why == OK && x.frag.Offset == 0
	}
	return h, false
}
