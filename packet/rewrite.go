package packet

// A Rewrite is all that a forwarding mode wants done to the packets of one
// direction of a flow. It is a plain value: the packet loop applies it here,
// the fast lane writes it into a map of the kernel.
//
//	dr       {NextHop: RIP}
//	nat      request {Dst: RIP:rport}, reply {Src: VIP:vport}
//	tun      {Encap: {Kind, Src: DIP, Dst: RIP}}
//	fullnat  request {Src: LIP:lport, Dst: RIP:rport}, reply {Src: VIP:vport, Dst: CIP:cport}
//
// An ICMP error about the flow is translated by the same value: its outer
// addresses as any packet's of its direction, the embedded packet, which
// travelled the other way, by the mirror image (source from Dst, destination
// from Src).
type Rewrite struct {
	Src, Dst Endpoint // the new source and destination; Family 0 keeps the packet's. Of another family than the packet's: both are set and the IP header is translated (RFC 7915)
	NextHop  Endpoint // the neighbour to hand the packet to; Family 0 routes by destination
	Encap    Encap    // the outer headers to push; Kind NoEncap pushes none
	None     bool     // the flow has no packets of this direction that uvs could rewrite
}

// Goes is where packets of t go when r has rewritten them: the neighbour, the
// far end of the tunnel or the destination.
func (r *Rewrite) Goes(t *Tuple) Endpoint {
	switch {
	case r.NextHop.Family != 0:
		return r.NextHop
	case r.Encap.Kind != NoEncap:
		return Endpoint{Addr: r.Encap.Dst, Family: r.Encap.Family}
	case r.Dst.Family != 0:
		return r.Dst
	}
	return Endpoint{Addr: t.Dst, Family: t.Family}
}

// NoReply is the reply Rewrite of a mode whose real servers answer the client
// directly.
var NoReply = Rewrite{None: true}

// EncapKind is a tunnel type.
type EncapKind uint8

const (
	NoEncap EncapKind = iota
	IPIP              // RFC 2003, RFC 2473: protocol 4 or 41
	GUE               // draft-ietf-intarea-gue version 0 over UDP, as the kernel's IPVS sends it
	GRE               // RFC 2784 without key and sequence number
)

// An Encap is the outer header of a tunnel.
type Encap struct {
	Src, Dst Addr  // DIP and RIP
	Family   uint8 // of Src and Dst
	Kind     EncapKind
	Checksum bool   // GUE: UDP checksum; GRE: checksum field
	Port     uint16 // GUE: UDP destination port
	Fragment bool   // of IPv4: the outer packet may be fragmented though the inner one may not
}

// Overhead is how many bytes the outer headers add to a packet.
func (e *Encap) Overhead() int {
	if e.Kind == NoEncap {
		return 0
	}
	n := 20
	if e.Family == IPv6 {
		n = 40
	}
	switch e.Kind {
	case GUE:
		n += 8 + 4
	case GRE:
		n += 4
		if e.Checksum {
			n += 4
		}
	}
	return n
}
