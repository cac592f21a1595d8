package packettest

import (
	"encoding/binary"

	"github.com/uvs-project/uvs/packet"
)

// Mend gives a copy of a packet, after a test has changed bytes of it, whose IP
// length and checksums are right again, as far as its headers are there. A UDP
// checksum of zero stays.
func Mend(b []byte) []byte {
	b = append([]byte(nil), b...)
	if len(b) < 20 || len(b) > 65535 {
		return b
	}
	switch b[0] >> 4 {
	case 4:
		h := int(b[0]&15) * 4
		if h < 20 || h > len(b) {
			return b
		}
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		sumHeader4(b[:h])
	case 6:
		if len(b) < 40 {
			return b
		}
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	default:
		return b
	}
	l := locate(b)
	if l.frag || l.off > len(b) {
		return b
	}
	t := b[l.off:]
	if l.proto == packet.SCTP && len(t) >= 12 {
		binary.LittleEndian.PutUint32(t[8:], crc32c(t))
		return b
	}
	field, ok := map[uint8]int{packet.TCP: 16, packet.UDP: 6, packet.ICMPv4: 2, packet.ICMPv6: 2}[l.proto]
	if !ok || len(t) < field+2 || l.proto == packet.UDP && t[6]|t[7] == 0 {
		return b
	}
	binary.BigEndian.PutUint16(t[field:], 0)
	c := ^add(t, pseudo(l.src, l.dst, l.proto, len(t)))
	if l.proto == packet.UDP && c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(t[field:], c)
	return b
}
