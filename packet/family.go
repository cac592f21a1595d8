package packet

import "encoding/binary"

// translateFamily gives p a source and a destination of the other family: the
// IP header is replaced (RFC 7915, stateful, so the addresses are given), the
// transport header stays where it is and its checksum is amended for the
// pseudo-header. IPv4 options and IPv6 extension headers are left out; what
// would lose its meaning without them cannot be translated.
func (p *Packet) translateFamily(src, dst *Endpoint) Reason {
	if p.isErr {
		return p.translateError(src, dst)
	}
	if p.only6 || p.family == IPv4 && sourceRouted(p.buf[p.start+20:p.start+p.l4]) {
		return CannotTranslate
	}
	if p.family == IPv6 && p.Len()-p.l4+20 > 65535 {
		return TooBig
	}
	t := p.buf[p.start+p.l4 : p.end]
	// The transport is made right for the new pseudo-header first, the old
	// header goes last.
	if p.frag.Offset != 0 {
		if p.proto != TCP && p.proto != UDP && p.proto != SCTP {
			return CannotTranslate
		}
		p.replaceHeader(&src.Addr, &dst.Addr)
		return OK
	}
	delta := p.deltaFamily(src, dst)
	switch p.proto {
	case TCP:
		if len(t) < tcpHeaderLen {
			return Truncated
		}
		if p.VNet.Flags&VNetNeedsCsum != 0 {
			amendPartial(t[tcpChecksum:], delta)
		} else {
			amend(t[tcpChecksum:], delta+deltaPorts(t, src, dst))
		}
		setPorts(t, src, dst)
		p.replaceHeader(&src.Addr, &dst.Addr)
	case UDP:
		if len(t) < udpHeaderLen {
			return Truncated
		}
		if p.frag.Is && binary.BigEndian.Uint16(t[udpChecksum:]) == 0 {
			return CannotTranslate // RFC 7915 section 4.5
		}
		p.replaceHeader(&src.Addr, &dst.Addr) // setUDP may need the new pseudo-header
		p.setUDP(t, delta, src, dst)
	case SCTP:
		if why := setPortsSCTP(t, src, dst, p.frag.Is); why != OK {
			return why
		}
		p.replaceHeader(&src.Addr, &dst.Addr)
	default:
		return CannotTranslate
	}
	return OK
}

// deltaFamily is the change of the pseudo-header's sum; protocol and length
// count the same in both families.
func (p *Packet) deltaFamily(src, dst *Endpoint) uint64 {
	b := p.buf[p.start:p.end]
	var old uint64
	if p.family == IPv4 {
		old = words(b[12:20])
	} else {
		old = words(b[8:16]) + words(b[16:24]) + words(b[24:32]) + words(b[32:40])
	}
	// The unused bytes of an IPv4 address are zero and do not count.
	return uint64(^fold(old)) + src.Addr.sum() + dst.Addr.sum()
}

func (a *Addr) sum() uint64 { return words(a[0:8]) + words(a[8:16]) }

// replaceHeader puts an IP header of the other family in front of p's
// transport.
func (p *Packet) replaceHeader(src, dst *Addr) {
	b := p.buf[p.start:p.end]
	tos, ttl := class(b)
	payload, segment, was := len(b)-p.l4, p.SegmentLen(), p.l4
	if p.family == IPv6 {
		p.family = IPv4
		p.l4, p.start = 20, p.start+p.l4-20
		id, frag := outerFragment4(p.frag, segment-was+20, src, dst)
		if p.cut != 0 && !p.frag.Is {
			id, frag = ident(src, dst), 0 // it came in fragments and may leave so
		}
		putHeader4(p.buf[p.start:p.end], 20+payload, tos, ttl, p.proto, id, frag, src, dst)
	} else {
		size := 40
		if p.frag.Is {
			size = 48
		}
		p.cut = 0
		if !p.DontFragment() && p.VNet.GSOType == GSONone {
			p.cut = minMTU6
		}
		p.family = IPv6
		p.l4, p.start = size, p.start+p.l4-size
		b = p.buf[p.start:p.end]
		proto := p.proto
		if p.frag.Is {
			putFragment6(b[40:], p.frag, proto)
			proto = extFragment
		}
		putHeader6(b, size-40+payload, tos, ttl, proto, src, dst)
	}
	p.moveVNet(p.l4 - was)
}

// outerFragment4 chooses identification and flags of an IPv4 header for what
// was an IPv6 packet and is n bytes long now (RFC 7915 section 5.1): up to 1260
// bytes a router may fragment it, as no smaller MTU can be told to its sender.
func outerFragment4(f Fragment, n int, src, dst *Addr) (id, frag uint16) {
	switch {
	case f.Is:
		return uint16(f.ID), f.word4()
	case n > 1260:
		return 0, dontFragment
	}
	return ident(src, dst), 0
}

// moveVNet adapts the virtio-net header to headers that have grown by so many
// bytes and belong to the family that p now has.
func (p *Packet) moveVNet(by int) {
	v := &p.VNet
	if v.Flags&VNetNeedsCsum == 0 {
		return
	}
	v.CsumStart = uint16(int(v.CsumStart) + by)
	if v.GSOType == GSONone {
		return
	}
	v.HdrLen = uint16(int(v.HdrLen) + by)
	switch v.GSOType &^ GSOECN {
	case GSOTCPv4, GSOTCPv6:
		v.GSOType &= GSOECN
		if p.family == IPv4 {
			v.GSOType |= GSOTCPv4
		} else {
			v.GSOType |= GSOTCPv6
		}
	}
}

// sourceRouted says whether IPv4 options hold a source route that has not come
// to its end.
func sourceRouted(options []byte) bool {
	const end, nop, loose, strict = 0, 1, 131, 137
	for len(options) > 0 && options[0] != end {
		if options[0] == nop {
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return false
		}
		if (options[0] == loose || options[0] == strict) && options[1] > 2 && options[2] <= options[1] {
			return true
		}
		options = options[options[1]:]
	}
	return false
}
