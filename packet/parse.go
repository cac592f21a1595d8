package packet

import "encoding/binary"

// Parse reads the headers once and fills Tuple. It allocates nothing.
//
//  1. the IP header and its extensions, up to the transport header
//  2. addresses that no packet may come from
//  3. the ports, or the packet that an ICMP error is about
//  4. the virtio-net header, against what the headers say
//
// Bytes beyond the length in the IP header are cut off. A transport header
// that is cut short after the ports is accepted here, see WholeTransport.
// After any other answer than OK only Bytes may be used.
func (p *Packet) Parse() Reason {
	b := p.buf[p.start:p.end]
	if len(b) < 20 {
		return Truncated
	}
	var why Reason
	switch b[0] >> 4 {
	case 4:
		why = p.parse4(b)
	case 6:
		why = p.parse6(b)
	default:
		why = BadVersion
	}
	if why != OK {
		return why
	}
	if why := p.parseTransport(p.buf[p.start:p.end]); why != OK {
		return why
	}
	if p.VNet.Flags&VNetNeedsCsum != 0 || p.VNet.GSOType != GSONone {
		return p.parseVNet()
	}
	return OK
}

func (p *Packet) parse4(b []byte) Reason {
	hlen := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:4]))
	if hlen < 20 || total < hlen {
		return BadHeader
	}
	if total > len(b) {
		return Truncated
	}
	if hlen == 20 {
		if !goodHeader20(b) {
			return BadIPChecksum
		}
	} else if sum(b[:hlen], 0) != 0xffff {
		return BadIPChecksum
	}
	p.end = p.start + total
	p.family, p.proto = IPv4, b[9]
	p.l4, p.part, p.only6 = hlen, hlen, false
	if ff := binary.BigEndian.Uint16(b[6:8]); ff&0x3fff != 0 {
		p.frag = Fragment{
			ID:     uint32(binary.BigEndian.Uint16(b[4:6])),
			Offset: ff << 3,
			More:   ff&0x2000 != 0,
			Is:     true,
		}
		if int(p.frag.Offset)+total-hlen > 65535 {
			return FragmentOverlap
		}
	}
	p.Tuple.Src.set4(b[12:16])
	p.Tuple.Dst.set4(b[16:20])
	p.Tuple.Family = IPv4
	if badSource4(b[12:16]) {
		return BadSource
	}
	return OK
}

func (p *Packet) parse6(b []byte) Reason {
	if len(b) < 40 {
		return Truncated
	}
	total := 40 + int(binary.BigEndian.Uint16(b[4:6]))
	if total > len(b) {
		return Truncated
	}
	h, why := walk6(b[:total])
	if why != OK {
		return why
	}
	p.end = p.start + total
	p.family, p.proto = IPv6, h.proto
	p.l4, p.only6, p.frag, p.part = h.l4, h.only6, h.frag, h.part
	if p.frag.Is && int(p.frag.Offset)+total-h.part > 65535 {
		return FragmentOverlap
	}
	p.Tuple.Src, p.Tuple.Dst = Addr(b[8:24]), Addr(b[24:40])
	p.Tuple.Family = IPv6
	if badSource6(&p.Tuple.Src) {
		return BadSource
	}
	return OK
}

// parseTransport reads what tells flows apart. b is the packet.
func (p *Packet) parseTransport(b []byte) Reason {
	p.Tuple.Proto = p.proto
	p.Tuple.SrcPort, p.Tuple.DstPort = 0, 0
	if p.frag.Offset != 0 {
		return OK
	}
	t := b[p.l4:]
	switch p.proto {
	case TCP, UDP, SCTP:
		if len(t) < 4 {
			return Truncated
		}
		p.Tuple.SrcPort = binary.BigEndian.Uint16(t[0:2])
		p.Tuple.DstPort = binary.BigEndian.Uint16(t[2:4])
		if p.frag.Is && p.family == IPv6 && p.proto != SCTP && !p.WholeTransport() {
			return Truncated // RFC 8200 section 4.5: all headers are in the first fragment
		}
	case ICMPv4, ICMPv6:
		if (p.proto == ICMPv4) != (p.family == IPv4) {
			return OK // no such thing; an unknown protocol to us
		}
		if len(t) < icmpHeaderLen {
			return Truncated
		}
		p.parseEmbedded(b)
	}
	return OK
}

// set4 makes a the IPv4 address at the start of b, by whole words.
func (a *Addr) set4(b []byte) {
	binary.LittleEndian.PutUint64(a[0:8], uint64(binary.LittleEndian.Uint32(b)))
	binary.LittleEndian.PutUint64(a[8:16], 0)
}

// badSource4 says whether no host may send from the address b: the sources
// that the kernel drops before IPVS sees them. 240/4 and link-local addresses
// pass, as they do there.
func badSource4(b []byte) bool {
	a := binary.BigEndian.Uint32(b)
	return a == 0 || a == 0xffffffff || a>>24 == 127 || a>>28 == 14
}

// badSource6 is badSource4 for IPv6. The unspecified address passes, as in
// the kernel.
func badSource6(a *Addr) bool {
	return a[0] == 0xff || *a == Addr{15: 1}
}
