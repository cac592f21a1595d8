package packet

import "encoding/binary"

// VNetLen is the length of the virtio-net header that the kernel puts in front
// of each packet of a TUN device with IFF_VNET_HDR and of a packet socket with
// PACKET_VNET_HDR.
const VNetLen = 10

// A VNet is a decoded virtio-net header (Linux include/uapi/linux/virtio_net.h,
// struct virtio_net_hdr). Offsets count from the start of the IP header.
type VNet struct {
	Flags      uint8  // VNetNeedsCsum, VNetDataValid
	GSOType    uint8  // GSONone, GSOTCPv4, GSOTCPv6, GSOUDP, with GSOECN or-ed in
	HdrLen     uint16 // length of all headers of a super-packet
	GSOSize    uint16 // payload bytes per segment
	CsumStart  uint16
	CsumOffset uint16
}

const (
	VNetNeedsCsum = 1 // the transport checksum holds only the pseudo-header's sum
	VNetDataValid = 2 // the kernel has verified the transport checksum

	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
	GSOUDP   = 5 // UDP segmentation offload (USO), both families
	GSOECN   = 0x80
)

// ReadVNet decodes b, a virtio-net header in front of p, into p.VNet.
// It is called between Reset and Parse; Parse checks it against the headers.
func (p *Packet) ReadVNet(b []byte) {
	_ = b[VNetLen-1]
	p.VNet = VNet{
		Flags:      b[0],
		GSOType:    b[1],
		HdrLen:     binary.NativeEndian.Uint16(b[2:]),
		GSOSize:    binary.NativeEndian.Uint16(b[4:]),
		CsumStart:  binary.NativeEndian.Uint16(b[6:]),
		CsumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
}

// PutVNet writes the virtio-net header of p into dst; link is how many bytes of link header stand
// between it and the IP header (0 for TUN, 14 for a packet socket on Ethernet).
func (p *Packet) PutVNet(dst []byte, link int) {
	_ = dst[VNetLen-1]
	if p.VNet.Flags&VNetNeedsCsum == 0 {
		clear(dst[:VNetLen])
		return
	}
	v := &p.VNet
	hdrLen := uint16(0)
	if v.GSOType != GSONone {
		hdrLen = v.HdrLen + uint16(link)
	}
	dst[0], dst[1] = VNetNeedsCsum, v.GSOType
	binary.NativeEndian.PutUint16(dst[2:], hdrLen)
	binary.NativeEndian.PutUint16(dst[4:], v.GSOSize)
	binary.NativeEndian.PutUint16(dst[6:], v.CsumStart+uint16(link))
	binary.NativeEndian.PutUint16(dst[8:], v.CsumOffset)
}

// parseVNet holds the virtio-net header against the parsed headers. HdrLen is
// never believed but computed. A checksum left to the hardware that is not the
// transport's (the kernel leaves an inner one of a tunnel to it) is completed
// here, so that afterwards VNetNeedsCsum always means p's own transport.
func (p *Packet) parseVNet() Reason {
	v := &p.VNet
	if v.Flags&VNetNeedsCsum == 0 || p.frag.Is {
		return BadVNet // GSO goes with a partial checksum, neither with fragments
	}
	if int(v.CsumStart) < p.l4 || int(v.CsumStart)+int(v.CsumOffset)+2 > p.Len() {
		return BadVNet
	}
	t := p.buf[p.start+p.l4 : p.end]
	hdrLen, field := 0, 0
	switch p.proto {
	case TCP:
		hdrLen, field = tcpDataOffset(t), tcpChecksum
	case UDP:
		hdrLen, field = udpHeaderLen, udpChecksum
	}
	if p.proto == SCTP && v.GSOType == GSONone && int(v.CsumStart) == p.l4 && len(t) >= sctpHeaderLen {
		fillSCTP(t) // its checksum is no sum
		*v = VNet{}
		return OK
	}
	own := field != 0 && int(v.CsumStart) == p.l4 && int(v.CsumOffset) == field
	if v.GSOType == GSONone {
		v.HdrLen, v.GSOSize = 0, 0
		if !own {
			p.CompleteChecksum()
		}
		return OK
	}
	var want uint8
	switch {
	case p.proto == UDP:
		want = GSOUDP
	case p.family == IPv4:
		want = GSOTCPv4
	default:
		want = GSOTCPv6
	}
	ecn := v.GSOType&GSOECN != 0
	if !own || hdrLen == 0 || v.GSOType&^GSOECN != want || ecn && p.proto != TCP || v.GSOSize == 0 || len(t) <= hdrLen {
		return BadVNet
	}
	v.HdrLen = uint16(p.l4 + hdrLen)
	return OK
}

// Segments is how many packets on the wire p stands for, 1 for a plain one.
func (p *Packet) Segments() int {
	if p.VNet.GSOType == GSONone {
		return 1
	}
	size := int(p.VNet.GSOSize)
	return (p.Len() - int(p.VNet.HdrLen) + size - 1) / size
}

// SegmentLen is the length in bytes of the largest packet on the wire that p
// stands for: Len for a plain one, and for an IPv6 packet that leaves in
// fragments the length of those. A pending Encap is not counted.
func (p *Packet) SegmentLen() int {
	if p.VNet.GSOType == GSONone {
		if p.cut != 0 && p.family == IPv6 {
			return min(p.Len(), p.cut)
		}
		return p.Len()
	}
	return min(p.Len(), int(p.VNet.HdrLen)+int(p.VNet.GSOSize))
}
