package packettest

import "encoding/binary"

// Fragments cuts the payload of a packet without IPv6 extension headers into
// parts of size bytes, a multiple of 8, and gives a packet for each. The
// fragments of an IPv6 packet share the identification 0x5ca1ab1e.
func Fragments(pkt []byte, size int) [][]byte {
	head := 40
	if pkt[0]>>4 == 4 {
		head = int(pkt[0]&15) * 4
	}
	var parts [][]byte
	for off := head; off < len(pkt); off += size {
		end := min(off+size, len(pkt))
		b := append([]byte(nil), pkt[:head]...)
		field := uint16(off - head)
		if pkt[0]>>4 == 4 {
			field = field>>3 | binary.BigEndian.Uint16(pkt[6:])&0x4000
			if end < len(pkt) {
				field |= 0x2000
			}
			binary.BigEndian.PutUint16(b[6:], field)
			binary.BigEndian.PutUint16(b[2:], uint16(head+end-off))
			sumHeader4(b)
		} else {
			if end < len(pkt) {
				field |= 1
			}
			b = append(b, b[6], 0, 0, 0, 0x5c, 0xa1, 0xab, 0x1e)
			b[6] = 44
			binary.BigEndian.PutUint16(b[42:], field)
			binary.BigEndian.PutUint16(b[4:], uint16(8+end-off))
		}
		parts = append(parts, append(b, pkt[off:end]...))
	}
	return parts
}
