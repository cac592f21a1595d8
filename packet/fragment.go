package packet

import "encoding/binary"

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
func (p *Packet) FragmentLen() int { return p.end - p.start - p.part }

// Leads says whether the first fragment p of a datagram can be rewritten, and
// those behind it can follow, before the whole has come: whatever checksum
// covers what is rewritten stands in it and can be amended. It cannot where the
// transport header is cut in two, for a UDP datagram without a checksum that
// would get one, for SCTP, whose checksum is no sum, and for ICMP, where it
// covers a packet that may be rewritten too.
func (p *Packet) Leads() bool {
	switch p.proto {
	case TCP:
		return p.WholeTransport()
	case UDP:
		t := p.buf[p.start+p.l4 : p.end]
		return len(t) >= udpHeaderLen && binary.BigEndian.Uint16(t[udpChecksum:]) != 0
	case SCTP, ICMPv4, ICMPv6:
		return false
	}
	return true
}

// SetPorts gives a later fragment the ports of its first. The protocol of an
// IPv6 fragment may differ from the first one's, where extension headers stand
// behind the fragment header; then the caller sets Tuple.Proto too.
func (p *Packet) SetPorts(src, dst uint16) {
	p.Tuple.SrcPort, p.Tuple.DstPort = src, dst
	p.Hash = 0
}
