package packet

import "net/netip"

// Protocol numbers of IANA's registry that the packet path knows by name.
const (
	ICMPv4 = 1
	TCP    = 6
	UDP    = 17
	ESP    = 50
	AH     = 51
	ICMPv6 = 58
	SCTP   = 132
)

// The two address families, named by the version field of the IP header.
const (
	IPv4 = 4
	IPv6 = 6
)

// Addr is an IP address without its family: an IPv4 address stands in the
// first four bytes and the rest is zero. Unlike netip.Addr it holds no
// pointer, so tables of addresses cost the garbage collector nothing.
type Addr [16]byte

// AddrFrom splits a into its bytes and its family. An IPv4-mapped IPv6
// address counts as IPv6, as it does on the wire.
func AddrFrom(a netip.Addr) (Addr, uint8) {
	if a.Is4() {
		var b Addr
		v4 := a.As4()
		copy(b[:], v4[:])
		return b, IPv4
	}
	return a.As16(), IPv6
}

// Netip is the inverse of AddrFrom.
func (a Addr) Netip(family uint8) netip.Addr {
	if family == IPv4 {
		return netip.AddrFrom4([4]byte(a[:4]))
	}
	return netip.AddrFrom16(a)
}

// A Tuple names one direction of a flow. It has no gaps and no pointers, so it
// can be compared and hashed as bytes. Ports are host order; a protocol
// without ports has zeros.
type Tuple struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            uint8
	Family           uint8 // IPv4 or IPv6
}

// Reverse is the tuple of the other direction.
func (t Tuple) Reverse() Tuple {
	t.Src, t.Dst = t.Dst, t.Src
	t.SrcPort, t.DstPort = t.DstPort, t.SrcPort
	return t
}

// An Endpoint is an address with its family and a port. Family 0 is no
// endpoint at all.
type Endpoint struct {
	Addr   Addr
	Port   uint16
	Family uint8
}

// EndpointFrom converts an address and port of the control plane.
func EndpointFrom(ap netip.AddrPort) Endpoint {
	a, f := AddrFrom(ap.Addr())
	return Endpoint{Addr: a, Port: ap.Port(), Family: f}
}

// AddrPort is the inverse of EndpointFrom.
func (e Endpoint) AddrPort() netip.AddrPort {
	return netip.AddrPortFrom(e.Addr.Netip(e.Family), e.Port)
}
