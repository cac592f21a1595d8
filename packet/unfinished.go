package packet

import "encoding/binary"

// AdoptUnfinished looks for what the kernel leaves unfinished where it gives
// a packet without its virtio-net header, as a raw socket does: a packet that
// it merged on receipt (GRO), or that never crossed a wire, has only the
// pseudo-header's sum in its TCP or UDP checksum. Such a p gets the VNet that
// says so, and AdoptUnfinished is true. p must have been parsed.
//
// How long the segments of a merged packet were is lost. One longer than mtu,
// in bytes, is taken to stand for segments of that length.
func (p *Packet) AdoptUnfinished(mtu int) bool {
	if p.frag.Is || p.isErr || p.VNet != (VNet{}) || !p.WholeTransport() {
		return false
	}
	field := 0
	switch p.proto {
	case TCP:
		field = tcpChecksum
	case UDP:
		field = udpChecksum
	default:
		return false
	}
	t := p.buf[p.start+p.l4 : p.end]
	// One complete checksum in 65536 is the pseudo-header's sum by chance.
	if binary.BigEndian.Uint16(t[field:]) != p.pseudo(len(t)) || p.TransportChecksumOK() {
		return false
	}
	p.VNet = VNet{Flags: VNetNeedsCsum, CsumStart: uint16(p.l4), CsumOffset: uint16(field)}
	head := p.l4 + tcpDataOffset(t)
	if p.proto != TCP || p.Len() <= mtu || head == p.l4 || head >= mtu {
		return true
	}
	p.VNet.GSOType, p.VNet.HdrLen, p.VNet.GSOSize = GSOTCPv6, uint16(head), uint16(mtu-head)
	if p.family == IPv4 {
		p.VNet.GSOType = GSOTCPv4
	}
	return true
}
