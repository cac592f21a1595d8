package packet

import "encoding/binary"

// A TunnelError is an ICMP error about a tunnel packet that the director sent:
// somebody on the way to a real server could not forward what Prepend made.
type TunnelError struct {
	Encap Encap // what the outer headers of the tunnel packet say; Checksum for GRE only
	Tuple Tuple // of the packet in the tunnel, which is a client's
	MTU   int   // in bytes, that the way is told to carry; 0: another error than too big

	inner        int  // offset of the packet in the tunnel
	dontFragment bool // of that packet
}

// ReadTunnelError reads p, an ICMP error, as one about a tunnel packet. It is
// false where p is none, or cut short before the ports of the packet in the
// tunnel.
func (p *Packet) ReadTunnelError() (e TunnelError, ok bool) {
	b := p.buf[p.start:p.end]
	if p.frag.Is || p.proto != ICMPv4 && p.proto != ICMPv6 || (p.proto == ICMPv4) != (p.family == IPv4) || !carriesPacket(p.family, b[p.l4]) {
		return e, false
	}
	off := p.l4 + icmpHeaderLen
	outer, ok := readHeader(b[off:])
	if !ok || outer.family != p.family {
		return e, false
	}
	e.Encap.Src, e.Encap.Dst, e.Encap.Family = outer.src, outer.dst, outer.family
	n, ok := e.Encap.read(outer.proto, b[off+outer.l4:])
	if !ok {
		return e, false
	}
	e.inner = off + outer.l4 + n
	in := b[e.inner:]
	h, ok := readHeader(in)
	if !ok || h.proto != TCP && h.proto != UDP && h.proto != SCTP || len(in) < h.l4+4 {
		return e, false
	}
	t := in[h.l4:]
	e.Tuple = Tuple{
		Src: h.src, Dst: h.dst,
		SrcPort: binary.BigEndian.Uint16(t[0:2]), DstPort: binary.BigEndian.Uint16(t[2:4]),
		Proto: h.proto, Family: h.family,
	}
	e.dontFragment = h.family == IPv6 || in[6]&0x40 != 0
	word := binary.BigEndian.Uint32(b[p.l4+4:])
	switch {
	case p.family == IPv6 && b[p.l4] == 2:
		e.MTU = int(min(word, 65535))
	case p.family == IPv4 && b[p.l4] == 3 && b[p.l4+1] == 4:
		if e.MTU = int(word & 0xffff); e.MTU == 0 {
			e.MTU = plateau(int(binary.BigEndian.Uint16(b[off+2:])))
		}
	}
	return e, true
}

// read fills in Kind, Port and Checksum from the protocol in the outer IP header
// and t, what stands behind it, and gives the length of the tunnel's header.
func (e *Encap) read(proto uint8, t []byte) (n int, ok bool) {
	switch proto {
	case protoIPIP, protoIPv6:
		e.Kind = IPIP
		return 0, true
	case protoGRE:
		e.Kind = GRE
		if len(t) < 4 || t[0]&^0x80|t[1] != 0 {
			return 0, false
		}
		if n = 4; t[0] != 0 {
			n, e.Checksum = 8, true
		}
	case UDP:
		e.Kind = GUE
		if len(t) < udpHeaderLen+4 || t[udpHeaderLen] != 0 {
			return 0, false
		}
		n, e.Port = udpHeaderLen+4, binary.BigEndian.Uint16(t[2:4])
	}
	return n, n != 0 && n <= len(t)
}

// ReplyTunnelError turns p, of which ReadTunnelError made e, in place into the
// error that the client is to get: about its own packet, from that packet's
// destination. mtu counts where e.MTU does: what the tunnel has room for.
//
// Between IPv4 and IPv4 type and code stay, as in the kernel's IPVS. Otherwise
// an end of the tunnel that cannot be reached is a host that cannot be (RFC 2473
// section 8).
//
// It says false, and leaves p alone, where the ICMP checksum is wrong, the
// client did not ask to be told, or no answer may be sent. After it p is parsed
// anew.
func (p *Packet) ReplyTunnelError(e *TunnelError, mtu int) bool {
	if p.transportSum() != 0xffff || e.MTU != 0 && !e.dontFragment {
		return false
	}
	was := p.buf[p.start+p.l4 : p.end]
	head := [2]uint8{was[0], was[1]}
	kinds := &errorTypes[HostUnreachable]
	if e.MTU != 0 {
		kinds = &errorTypes[PacketTooBig]
	}
	proto, headers, limit := uint8(ICMPv4), 20+icmpHeaderLen, maxError4
	switch {
	case e.Tuple.Family == IPv6:
		head, proto, headers, limit = kinds.v6, ICMPv6, 40+icmpHeaderLen, maxError6
	case p.family == IPv6:
		head = kinds.v4
	}
	// Who asks is the client.
	in := Packet{buf: p.buf, start: p.start + e.inner, end: p.end, family: e.Tuple.Family, proto: e.Tuple.Proto}
	if !in.mayBeAnswered(PacketTooBig) {
		return false
	}
	start := in.start - headers
	p.Reset(p.buf, start, min(p.end, start+limit))
	p.family = e.Tuple.Family
	t := p.putOwnHeader(proto, &e.Tuple.Dst, &e.Tuple.Src)
	t[0], t[1] = head[0], head[1]
	binary.BigEndian.PutUint32(t[4:8], 0)
	if e.MTU != 0 {
		binary.BigEndian.PutUint32(t[4:8], uint32(mtu))
	}
	p.sumICMP()
	return p.Parse() == OK
}
