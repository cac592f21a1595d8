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

// IsICMPError says whether p is an ICMP error whose Tuple comes from the
// embedded packet. Errors about something that has no ports, about a later
// fragment, or with too little of the embedded packet are none: their Tuple is
// their own, with protocol ICMP and no ports. So are the types that IPVS does
// not handle: IPv4 redirect (5) and parameter problem (12).
func (p *Packet) IsICMPError() bool { return p.isErr }

// carriesPacket says whether the ICMP type of the family is an error that is
// translated for the flow of its embedded packet.
func carriesPacket(family, typ uint8) bool {
	if family == IPv4 {
		return typ == 3 || typ == 4 || typ == 11
	}
	return typ >= 1 && typ <= 4
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
	var (
		l4       int
		proto    uint8
		src, dst Addr
	)
	if p.family == IPv4 {
		if len(e) < 20 || e[0]>>4 != 4 || binary.BigEndian.Uint16(e[6:8])&0x1fff != 0 {
			return
		}
		l4, proto = int(e[0]&0x0f)*4, e[9]
		if l4 < 20 {
			return
		}
		src.set4(e[12:16])
		dst.set4(e[16:20])
	} else {
		if len(e) < 40 || e[0]>>4 != 6 {
			return
		}
		h, why := walk6(e)
		if why != OK || h.frag.Offset != 0 {
			return
		}
		l4, proto = h.l4, h.proto
		src, dst = Addr(e[8:24]), Addr(e[24:40])
	}
	if proto != TCP && proto != UDP && proto != SCTP || len(e) < l4+4 {
		return
	}
	t := e[l4:]
	p.isErr = true
	p.inner = embedded{off: off, l4: off + l4, proto: proto}
	p.Tuple = Tuple{
		Src: dst, Dst: src,
		SrcPort: binary.BigEndian.Uint16(t[2:4]), DstPort: binary.BigEndian.Uint16(t[0:2]),
		Proto: proto, Family: p.family,
	}
}
