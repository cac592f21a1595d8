package packet

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
