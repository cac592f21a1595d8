package packet

import "encoding/binary"

// dontFragment is DF in the word of the IPv4 header that holds the flags and
// the fragment offset; moreFragments is MF.
const (
	dontFragment  = 0x4000
	moreFragments = 0x2000
)

// The values of the ECN field (RFC 3168 section 5), the low two bits of the
// class.
const (
	notECT = 0
	ect1   = 1
	ect0   = 2
	ce     = 3
)

// class gives the TOS or traffic class and the TTL or hop limit of a packet.
func class(b []byte) (tos, ttl uint8) {
	if b[0]>>4 == 4 {
		return b[1], b[8]
	}
	return b[0]<<4 | b[1]>>4, b[7]
}

// putHeader4 writes an IPv4 header without options to the start of b. frag is
// the word of flags and fragment offset.
func putHeader4(b []byte, total int, tos, ttl, proto uint8, id, frag uint16, src, dst *Addr) {
	_ = b[19]
	b[0], b[1] = 0x45, tos
	binary.BigEndian.PutUint16(b[2:4], uint16(total))
	binary.BigEndian.PutUint16(b[4:6], id)
	binary.BigEndian.PutUint16(b[6:8], frag)
	b[8], b[9] = ttl, proto
	copy(b[12:16], src[:4])
	copy(b[16:20], dst[:4])
	sumHeader4(b[:20])
}

// putHeader6 writes an IPv6 header with flow label zero to the start of b.
func putHeader6(b []byte, payload int, tos, ttl, proto uint8, src, dst *Addr) {
	_ = b[39]
	binary.BigEndian.PutUint32(b[0:4], 6<<28|uint32(tos)<<20)
	binary.BigEndian.PutUint16(b[4:6], uint16(payload))
	b[6], b[7] = proto, ttl
	copy(b[8:24], src[:])
	copy(b[24:40], dst[:])
}

// putFragment6 writes an IPv6 fragment header to the start of b.
func putFragment6(b []byte, f Fragment, proto uint8) {
	off := f.Offset
	if f.More {
		off |= 1
	}
	b[0], b[1] = proto, 0
	binary.BigEndian.PutUint16(b[2:4], off)
	binary.BigEndian.PutUint32(b[4:8], f.ID)
}

// word4 is f as the IPv4 word of flags and fragment offset.
func (f Fragment) word4() uint16 {
	w := f.Offset >> 3
	if f.More {
		w |= moreFragments
	}
	return w
}
