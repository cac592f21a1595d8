package packettest

import (
	"encoding/binary"

	"github.com/uvs-project/uvs/packet"
)

// Partial gives a TCP or UDP packet the form in which the kernel leaves its
// checksum to the hardware: only the pseudo-header is summed, and a virtio-net
// header stands in front.
func Partial(pkt []byte) []byte {
	return withVNet(pkt, packet.GSONone, 0)
}

// Super makes a TCP or UDP packet a super-packet of segments with size bytes
// of payload, behind its virtio-net header.
func Super(pkt []byte, size int) []byte {
	l := locate(pkt)
	gso := uint8(packet.GSOUDP)
	if l.proto == packet.TCP {
		gso = packet.GSOTCPv4
		if pkt[0]>>4 == 6 {
			gso = packet.GSOTCPv6
		}
	}
	return withVNet(pkt, gso, size)
}

// Plain puts the virtio-net header of a packet with complete checksums in
// front of it.
func Plain(pkt []byte) []byte { return append(make([]byte, packet.VNetLen), pkt...) }

func withVNet(pkt []byte, gso uint8, size int) []byte {
	l := locate(pkt)
	field, hdr := 16, l.off
	if l.proto == packet.UDP {
		field, hdr = 6, hdr+8
	} else {
		hdr += int(pkt[l.off+12]>>4) * 4
	}
	h := make([]byte, packet.VNetLen)
	h[0], h[1] = packet.VNetNeedsCsum, gso
	if gso != packet.GSONone {
		binary.NativeEndian.PutUint16(h[2:], uint16(hdr))
		binary.NativeEndian.PutUint16(h[4:], uint16(size))
	}
	binary.NativeEndian.PutUint16(h[6:], uint16(l.off))
	binary.NativeEndian.PutUint16(h[8:], uint16(field))
	b := append(h, pkt...)
	binary.BigEndian.PutUint16(b[packet.VNetLen+l.off+field:], pseudo(l.src, l.dst, l.proto, len(pkt)-l.off))
	return b
}
