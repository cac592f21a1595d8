package packettest

import (
	"encoding/binary"
	"hash/crc32"
)

// add is the one's complement sum of b in 16-bit words, folded at each step.
func add(b []byte, initial uint16) uint16 {
	s := uint32(initial)
	for i := 0; i < len(b); i++ {
		if i%2 == 0 {
			s += uint32(b[i]) << 8
		} else {
			s += uint32(b[i])
		}
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// pseudo is the sum of the pseudo-header. ICMP over IPv4 has none.
func pseudo(src, dst []byte, proto uint8, n int) uint16 {
	if len(src) == 4 && proto == 1 {
		return 0
	}
	var tail [8]byte
	binary.BigEndian.PutUint32(tail[0:], uint32(n))
	tail[7] = proto
	return add(tail[:], add(dst, add(src, 0)))
}

// crc32c is the checksum of the SCTP packet t, taken with a zero field.
func crc32c(t []byte) uint32 {
	z := append([]byte(nil), t...)
	copy(z[8:12], make([]byte, 4))
	return crc32.Checksum(z, crc32.MakeTable(crc32.Castagnoli))
}
