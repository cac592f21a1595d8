package packet

import "encoding/binary"

// Decapsulate strips the outer headers of a tunnel packet (what Prepend
// pushes) and leaves p to be the inner packet, which is not yet parsed. p must
// have been parsed. guePort is the UDP port on which GUE is taken, in version 0
// without optional fields and in version 1, the bare IP packet; 0 takes none.
//
// NoEncap with OK says that p is no tunnel packet, and it is left alone. With
// BadTunnel, Truncated or, for what must be reassembled or split first,
// CannotTranslate, p must be dropped. Checksums of GUE and GRE are verified if
// they are there.
//
// A congestion mark on the outer header goes into the inner one (RFC 6040
// section 4.2); where the inner packet's ends do not know such marks, the
// packet counts as lost.
func (p *Packet) Decapsulate(guePort uint16) (EncapKind, Reason) {
	var kind EncapKind
	t := p.buf[p.start+p.l4 : p.end]
	switch p.proto {
	case protoIPIP, protoIPv6:
		kind = IPIP
	case protoGRE:
		kind = GRE
	case UDP:
		if p.frag.Offset != 0 || len(t) < udpHeaderLen || guePort == 0 || binary.BigEndian.Uint16(t[2:4]) != guePort {
			return NoEncap, OK
		}
		kind = GUE
	default:
		return NoEncap, OK
	}
	if p.frag.Is || p.VNet.GSOType != GSONone {
		return kind, CannotTranslate
	}
	n, version, why := p.tunnelHeader(kind, t)
	if why != OK {
		return kind, why
	}
	inner := t[n:]
	if len(inner) < 20 || version == 6 && len(inner) < 40 {
		return kind, Truncated
	}
	if inner[0]>>4 != version {
		return kind, BadTunnel
	}
	outer, _ := class(p.buf[p.start:p.end])
	if !markInner(inner, outer) {
		return kind, BadTunnel
	}
	p.Reset(p.buf, p.start+p.l4+n, p.end)
	return kind, OK
}

// tunnelHeader verifies the header at the start of the outer payload t and
// gives its length and the IP version that must follow.
func (p *Packet) tunnelHeader(kind EncapKind, t []byte) (n int, version uint8, why Reason) {
	switch kind {
	case IPIP:
		return 0, versionOf(p.proto), OK
	case GUE:
		return p.gueHeader(t)
	}
	if len(t) < 4 {
		return 0, 0, Truncated
	}
	n = 4
	switch binary.BigEndian.Uint16(t[0:2]) {
	case 0:
	case 0x8000:
		n = 8
		if len(t) < n {
			return 0, 0, Truncated
		}
		if sum(t, 0) != 0xffff {
			return 0, 0, BadTunnel
		}
	default: // key, sequence number, routing, another version
		return 0, 0, BadTunnel
	}
	switch binary.BigEndian.Uint16(t[2:4]) {
	case etherIPv4:
		return n, 4, OK
	case etherIPv6:
		return n, 6, OK
	}
	return 0, 0, BadTunnel
}

func (p *Packet) gueHeader(t []byte) (n int, version uint8, why Reason) {
	if len(t) < udpHeaderLen+4 {
		return 0, 0, Truncated
	}
	// A checksum of zero is none, over IPv6 too (RFC 6935).
	if binary.BigEndian.Uint16(t[udpChecksum:]) != 0 && !p.TransportChecksumOK() {
		return 0, 0, BadTunnel
	}
	g := t[udpHeaderLen:]
	if g[0]>>6 == 1 {
		return udpHeaderLen, g[0] >> 4, OK
	}
	if g[0] != 0 || g[2]|g[3] != 0 || g[1] != protoIPIP && g[1] != protoIPv6 {
		return 0, 0, BadTunnel
	}
	return udpHeaderLen + 4, versionOf(g[1]), OK
}

func versionOf(proto uint8) uint8 {
	if proto == protoIPv6 {
		return 6
	}
	return 4
}

// markInner brings the congestion mark of the outer class into the inner
// packet. It is false where the packet must be dropped instead.
func markInner(b []byte, outer uint8) bool {
	class, _ := class(b)
	mark := class & 3
	switch outer & 3 {
	case ce:
		if mark == notECT {
			return false
		}
		mark = ce
	case ect1:
		if mark == ect0 {
			mark = ect1
		}
	}
	if mark == class&3 {
		return true
	}
	class = class&^3 | mark
	if b[0]>>4 == 4 {
		old := binary.BigEndian.Uint16(b[0:2])
		b[1] = class
		amend(b[10:12], delta2(old, binary.BigEndian.Uint16(b[0:2])))
		return true
	}
	b[1] = b[1]&0x0f | class<<4
	return true
}
