package replay

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers that the host knows.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoIGMP     = 2
	protoIPIP     = 4
	protoTCP      = 6
	protoUDP      = 17
	protoIPv6     = 41
	protoRouting  = 43
	protoFragment = 44
	protoGRE      = 47
	protoAuth     = 51
	protoICMPv6   = 58
	protoNone     = 59
	protoOptions  = 60
	protoPIM      = 103
	protoSCTP     = 132
	protoUDPLite  = 136
)

// A header is what the host reads of an IP packet whose header is sound.
type header struct {
	six      bool
	src, dst netip.Addr
	ttl      uint8
	class    uint8
	proto    uint8 // of what follows the IP headers
	protoAt  int   // offset of the field that names it
	l4       int   // offset of what follows the IP headers
	frag     bool
	fragOff  int
	fragMore bool
	fragID   uint32
	fragAt   int // offset of the IPv6 fragment header
	df       bool
}

// readHeader reads the headers of a packet whose lengths and checksum have been
// looked at, or do not matter. IPv6 extension headers are walked as far as they
// can be. What is no IP packet gives a header with nothing behind it.
func readHeader(b []byte) (h header) {
	if len(b) < 20 || b[0]>>4 == 6 && len(b) < 40 || b[0]>>4 != 6 && int(b[0]&15)*4 > len(b) {
		return header{l4: len(b), proto: protoNone}
	}
	if b[0]>>4 != 6 {
		ff := binary.BigEndian.Uint16(b[6:])
		return header{
			src: netip.AddrFrom4([4]byte(b[12:16])), dst: netip.AddrFrom4([4]byte(b[16:20])),
			ttl: b[8], class: b[1], proto: b[9], protoAt: 9, l4: int(b[0]&15) * 4,
			frag: ff&0x3fff != 0, fragOff: int(ff&0x1fff) * 8, fragMore: ff&0x2000 != 0, df: ff&0x4000 != 0,
			fragID: uint32(binary.BigEndian.Uint16(b[4:])),
		}
	}
	h = header{
		six: true, src: netip.AddrFrom16([16]byte(b[8:24])), dst: netip.AddrFrom16([16]byte(b[24:40])),
		ttl: b[7], class: b[0]<<4 | b[1]>>4, proto: b[6], protoAt: 6, l4: 40, df: true,
	}
	for h.l4+8 <= len(b) {
		size := 8 + 8*int(b[h.l4+1])
		switch h.proto {
		case protoHopByHop, protoRouting, protoOptions:
		case protoAuth:
			size = 8 + 4*int(b[h.l4+1])
		case protoFragment:
			size = 8
			ff := binary.BigEndian.Uint16(b[h.l4+2:])
			h.frag = ff&^6 != 0
			h.fragOff, h.fragMore, h.fragAt = int(ff&^7), ff&1 != 0, h.l4
			h.fragID = binary.BigEndian.Uint32(b[h.l4+4:])
		default:
			return h
		}
		if h.l4+size > len(b) {
			return h
		}
		h.protoAt = h.l4
		h.proto, h.l4 = b[h.l4], h.l4+size
		if h.fragOff != 0 {
			return h
		}
	}
	return h
}

// add is the sum of RFC 1071 over b, going on from sum.
func add(b []byte, sum uint32) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return sum
}

// pseudo is the sum of the pseudo-header.
func pseudo(src, dst netip.Addr, proto uint8, n int) uint32 {
	return add([]byte{0, proto, byte(n >> 8), byte(n)}, add(dst.AsSlice(), add(src.AsSlice(), 0)))
}

// goodSum says whether the checksum of a transport with a pseudo-header is
// right.
func (h *header) goodSum(t []byte) bool {
	return add(t, pseudo(h.src, h.dst, h.proto, len(t))) == 0xffff
}

// setTTL sets the TTL or hop limit and mends the header's checksum.
func setTTL(b []byte, ttl uint8) {
	if b[0]>>4 == 6 {
		b[7] = ttl
		return
	}
	sum := uint32(^binary.BigEndian.Uint16(b[10:])) + uint32(^(uint16(b[8]) << 8)) + uint32(ttl)<<8
	b[8] = ttl
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
}

// sumHeader4 computes the header checksum.
func sumHeader4(b []byte) {
	h := b[:int(b[0]&15)*4]
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^uint16(add(h, 0)))
}

// newPacket is a packet of the host's own around the transport t.
func newPacket(src, dst netip.Addr, proto, class uint8, df bool, options, t []byte) []byte {
	if src.Is6() {
		b := make([]byte, 40, 40+len(t))
		b[0], b[1] = 0x60|class>>4, class<<4
		binary.BigEndian.PutUint16(b[4:], uint16(len(t)))
		b[6], b[7] = proto, 64
		copy(b[8:], src.AsSlice())
		copy(b[24:], dst.AsSlice())
		return append(b, t...)
	}
	b := make([]byte, 20, 20+len(options)+len(t))
	b = append(b, options...)
	b[0], b[1] = 0x40|byte(len(b)/4), class
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(t)))
	if df {
		b[6] = 0x40
	}
	b[8], b[9] = 64, proto
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	sumHeader4(b)
	return append(b, t...)
}
