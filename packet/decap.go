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
	off := p.l4
	if kind == GUE {
		// A checksum of zero is none, over IPv6 too (RFC 6935).
		if binary.BigEndian.Uint16(t[udpChecksum:]) != 0 && !p.TransportChecksumOK() {
			return kind, BadTunnel
		}
		off += udpHeaderLen
	}
	outer, _ := class(p.buf[p.start:p.end])
	return kind, p.strip(kind, p.proto, outer, off)
}

// DecapsulatePayload is Decapsulate for what a socket received: p is what stood
// behind the outer IP header, or behind the UDP header for GUE, not parsed.
// proto is the protocol in the outer IP header and class its traffic class.
// The UDP checksum is the kernel's business.
func (p *Packet) DecapsulatePayload(kind EncapKind, proto, class uint8) Reason {
	return p.strip(kind, proto, class, 0)
}

// strip verifies the tunnel header at off and makes p the packet behind it.
func (p *Packet) strip(kind EncapKind, proto, outer uint8, off int) Reason {
	t := p.buf[p.start+off : p.end]
	n, version, why := tunnelHeader(kind, proto, t)
	if why != OK {
		return why
	}
	inner := t[n:]
	if len(inner) < 20 || version == 6 && len(inner) < 40 {
		return Truncated
	}
	if inner[0]>>4 != version || !markInner(inner, outer) {
		return BadTunnel
	}
	p.Reset(p.buf, p.start+off+n, p.end)
	return OK
}

// tunnelHeader verifies the header at the start of t and gives its length and
// the IP version that must follow. proto is the outer IP header's.
func tunnelHeader(kind EncapKind, proto uint8, t []byte) (n int, version uint8, why Reason) {
	switch kind {
	case IPIP:
		return 0, versionOf(proto), OK
	case GUE:
		return gueHeader(t)
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

func gueHeader(t []byte) (n int, version uint8, why Reason) {
	switch {
	case len(t) < 4:
		return 0, 0, Truncated
	case t[0]>>6 == 1:
		return 0, t[0] >> 4, OK
	case t[0] != 0 || t[2]|t[3] != 0 || t[1] != protoIPIP && t[1] != protoIPv6:
		return 0, 0, BadTunnel
	}
	return 4, versionOf(t[1]), OK
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
