package packet

import "encoding/binary"

// Apply changes p as r says. p must have been parsed, and is changed by one
// Apply only; its Tuple goes on saying what it was before.
//
// Any other answer than OK means that p must be dropped: Truncated where ports
// change but the transport header is cut short, CannotTranslate, BadICMP, or
// TooBig where the result would be longer than an IP packet can be.
func (r *Rewrite) Apply(p *Packet) Reason {
	if r.NextHop.Family != 0 {
		p.NextHop = r.NextHop
	}
	if r.Src.Family|r.Dst.Family != 0 {
		if why := p.setEndpoints(&r.Src, &r.Dst); why != OK {
			return why
		}
	}
	if r.Encap.Kind != NoEncap {
		p.Encap = r.Encap
		if p.VNet.GSOType == GSONone {
			return p.Prepend()
		}
	}
	return OK
}

// setEndpoints gives p a new source, a new destination or both.
func (p *Packet) setEndpoints(src, dst *Endpoint) Reason {
	if other(src.Family, p.family) || other(dst.Family, p.family) {
		if src.Family != dst.Family {
			return CannotTranslate
		}
		return p.translateFamily(src, dst)
	}
	if p.isErr {
		return p.setErrorEndpoints(src, dst)
	}
	if p.frag.Offset != 0 {
		p.setAddrs(src, dst)
		return OK
	}
	t := p.buf[p.start+p.l4 : p.end]
	switch p.proto {
	case TCP:
		if len(t) < tcpHeaderLen {
			return Truncated
		}
		delta := p.setAddrs(src, dst)
		if p.VNet.Flags&VNetNeedsCsum != 0 {
			amendPartial(t[tcpChecksum:], delta)
			setPorts(t, src, dst)
			return OK
		}
		amend(t[tcpChecksum:], delta+deltaPorts(t, src, dst))
		setPorts(t, src, dst)
	case UDP:
		if len(t) < udpHeaderLen {
			return Truncated
		}
		p.setUDP(t, p.setAddrs(src, dst), src, dst)
	case SCTP:
		return p.setSCTP(t, src, dst)
	case ICMPv6:
		if p.family == IPv6 {
			amend(t[icmpChecksum:], p.setAddrs(src, dst))
			return OK
		}
		p.setAddrs(src, dst)
	default:
		p.setAddrs(src, dst)
	}
	return OK
}

func other(family, than uint8) bool { return family != 0 && family != than }

// setAddrs sets the addresses, and the IPv4 header checksum, and gives the
// delta of the addresses for checksums that cover a pseudo-header.
func (p *Packet) setAddrs(src, dst *Endpoint) (delta uint64) {
	b := p.buf[p.start:p.end]
	if p.family == IPv4 {
		return setAddrs4(b, src, dst)
	}
	return setAddrs6(b, src, dst)
}

func setAddrs4(b []byte, src, dst *Endpoint) (delta uint64) {
	_ = b[19]
	if src.Family != 0 {
		delta = delta4(b[12:16], src.Addr[:4])
		copy(b[12:16], src.Addr[:4])
	}
	if dst.Family != 0 {
		delta += delta4(b[16:20], dst.Addr[:4])
		copy(b[16:20], dst.Addr[:4])
	}
	amend(b[10:12], delta)
	return delta
}

func setAddrs6(b []byte, src, dst *Endpoint) (delta uint64) {
	_ = b[39]
	if src.Family != 0 {
		delta = delta6(b[8:24], src.Addr[:])
		copy(b[8:24], src.Addr[:])
	}
	if dst.Family != 0 {
		delta += delta6(b[24:40], dst.Addr[:])
		copy(b[24:40], dst.Addr[:])
	}
	return delta
}

// deltaPorts is the delta of the ports at the start of t for what setPorts
// will do.
func deltaPorts(t []byte, src, dst *Endpoint) (delta uint64) {
	if src.Family != 0 {
		delta = delta2(binary.BigEndian.Uint16(t[0:2]), src.Port)
	}
	if dst.Family != 0 {
		delta += delta2(binary.BigEndian.Uint16(t[2:4]), dst.Port)
	}
	return delta
}

// amendPartial is amend for a field that holds the sum of the pseudo-header
// for the hardware to go on with: not inverted, and without the ports.
func amendPartial(b []byte, delta uint64) {
	binary.BigEndian.PutUint16(b, fold(uint64(binary.BigEndian.Uint16(b))+delta))
}

// setUDP sets the ports of the UDP header t and makes its checksum true for
// them and the delta of the addresses. A datagram without a checksum gets one,
// as the kernel's IPVS does; the first part of a fragmented one cannot.
func (p *Packet) setUDP(t []byte, delta uint64, src, dst *Endpoint) {
	field := t[udpChecksum : udpChecksum+2]
	old := binary.BigEndian.Uint16(field)
	switch {
	case p.VNet.Flags&VNetNeedsCsum != 0:
		amendPartial(field, delta)
		setPorts(t, src, dst)
	case old == 0:
		setPorts(t, src, dst)
		if !p.frag.Is {
			p.fillUDP()
		}
	default:
		delta += deltaPorts(t, src, dst)
		setPorts(t, src, dst)
		binary.BigEndian.PutUint16(field, nonzero(^fold(uint64(^old)+delta)))
	}
}

// setSCTP sets addresses and ports of an SCTP packet, which has no
// pseudo-header.
func (p *Packet) setSCTP(t []byte, src, dst *Endpoint) Reason {
	if why := setPortsSCTP(t, src, dst, p.frag.Is); why != OK {
		return why
	}
	p.setAddrs(src, dst)
	return OK
}

// setPortsSCTP sets the ports of the SCTP packet t. Its CRC covers them and is
// no sum that could be amended, so it is computed again over the whole packet
// if one changes; that cannot be done for a fragment.
func setPortsSCTP(t []byte, src, dst *Endpoint, fragment bool) Reason {
	if len(t) < sctpHeaderLen && !fragment {
		return Truncated
	}
	sport, dport := binary.BigEndian.Uint16(t[0:2]), binary.BigEndian.Uint16(t[2:4])
	if (src.Family == 0 || src.Port == sport) && (dst.Family == 0 || dst.Port == dport) {
		return OK
	}
	if fragment {
		return CannotTranslate
	}
	setPorts(t, src, dst)
	fillSCTP(t)
	return OK
}
