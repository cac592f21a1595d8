package packet

// A Fragment says which part of a datagram a packet is. An atomic IPv6
// fragment is a whole datagram.
type Fragment struct {
	ID     uint32 // 16 bits in IPv4
	Offset uint16 // of this part in the datagram, in bytes
	More   bool   // parts follow
	Is     bool   // the packet is a fragment
}

// Fragment describes the fragment; Is is false for a whole datagram.
func (p *Packet) Fragment() Fragment { return p.frag }

// FragmentLen is how many bytes of its datagram a fragment carries.
func (p *Packet) FragmentLen() int { return p.end - p.start - p.l4 }

// SetPorts gives a later fragment the ports of its first. The protocol of an
// IPv6 fragment may differ from the first one's, where extension headers stand
// behind the fragment header; then the caller sets Tuple.Proto too.
func (p *Packet) SetPorts(src, dst uint16) {
	p.Tuple.SrcPort, p.Tuple.DstPort = src, dst
	p.Hash = 0
}
