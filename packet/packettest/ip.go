package packettest

import (
	"encoding/binary"
	"net/netip"
)

// ipSpec is what the options say about the IP header.
type ipSpec struct {
	ttl, tos  uint8
	id        uint16
	flags     uint16 // IPv4 flags and fragment offset
	label     uint32
	options   []byte
	wrongSum  bool
	extension []extension
}

type extension struct {
	proto uint8
	body  []byte // whole header; its first byte is filled in
}

// TTL sets the TTL or hop limit.
func TTL(n uint8) Option { return func(s *spec) { s.ip.ttl = n } }

// TOS sets the TOS byte or traffic class.
func TOS(n uint8) Option { return func(s *spec) { s.ip.tos = n } }

// ID sets the identification of an IPv4 packet.
func ID(n uint16) Option { return func(s *spec) { s.ip.id = n } }

// FlowLabel sets the flow label of an IPv6 packet.
func FlowLabel(n uint32) Option { return func(s *spec) { s.ip.label = n } }

// DF sets the don't-fragment bit of an IPv4 packet.
func DF(s *spec) { s.ip.flags |= 0x4000 }

// WrongIPSum makes the IPv4 header checksum wrong.
func WrongIPSum(s *spec) { s.ip.wrongSum = true }

// IPOptions sets the options of an IPv4 packet, a multiple of 4 bytes.
func IPOptions(b ...byte) Option { return func(s *spec) { s.ip.options = b } }

// Extension puts an IPv6 extension header of the protocol in front of the
// transport header, behind those before it. The first byte of body, which is
// the whole header, is filled in.
func Extension(proto uint8, body ...byte) Option {
	return func(s *spec) { s.ip.extension = append(s.ip.extension, extension{proto, body}) }
}

// HopByHop adds a hop-by-hop header of 8 bytes.
func HopByHop(s *spec) { Extension(0, 0, 0, 1, 4, 0, 0, 0, 0)(s) }

// DestinationOptions adds a destination options header of 8 bytes.
func DestinationOptions(s *spec) { Extension(60, 0, 0, 1, 4, 0, 0, 0, 0)(s) }

// Routing adds a routing header of type 0 with one address, ::, and so many
// segments left.
func Routing(left uint8) Option {
	return Extension(43, append([]byte{0, 2, 0, left}, make([]byte, 20)...)...)
}

// Authentication adds an authentication header of 16 bytes.
func Authentication(s *spec) { Extension(51, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4)(s) }

// AtomicFragment adds a fragment header that says that the packet is whole.
func AtomicFragment(s *spec) { Extension(44, 0, 0, 0, 0, 0xab, 0xcd, 0xef, 0x01)(s) }

// wrap puts the IP header in front of the transport t.
func (s *ipSpec) wrap(from, to netip.Addr, proto uint8, t []byte) []byte {
	if from.Is4() {
		return s.wrap4(from, to, proto, t)
	}
	for i := len(s.extension) - 1; i >= 0; i-- {
		e := s.extension[i]
		h := append([]byte(nil), e.body...)
		h[0] = proto
		t, proto = append(h, t...), e.proto
	}
	b := make([]byte, 40, 40+len(t))
	binary.BigEndian.PutUint32(b, 6<<28|uint32(s.tos)<<20|s.label)
	binary.BigEndian.PutUint16(b[4:], uint16(len(t)))
	b[6], b[7] = proto, s.ttl
	copy(b[8:24], from.AsSlice())
	copy(b[24:40], to.AsSlice())
	return append(b, t...)
}

func (s *ipSpec) wrap4(from, to netip.Addr, proto uint8, t []byte) []byte {
	n := 20 + len(s.options)
	b := make([]byte, 20, n+len(t))
	b[0], b[1] = byte(4<<4|n/4), s.tos
	binary.BigEndian.PutUint16(b[2:], uint16(n+len(t)))
	binary.BigEndian.PutUint16(b[4:], s.id)
	binary.BigEndian.PutUint16(b[6:], s.flags)
	b[8], b[9] = s.ttl, proto
	copy(b[12:16], from.AsSlice())
	copy(b[16:20], to.AsSlice())
	b = append(b, s.options...)
	sumHeader4(b)
	if s.wrongSum {
		b[10] ^= 0x55
	}
	return append(b, t...)
}

func sumHeader4(h []byte) {
	binary.BigEndian.PutUint16(h[10:], 0)
	binary.BigEndian.PutUint16(h[10:], ^add(h, 0))
}

// Cut shortens the packet to n bytes, so that its IP header agrees; its
// transport checksum stays what it was.
func Cut(pkt []byte, n int) []byte {
	b := append([]byte(nil), pkt[:n]...)
	if b[0]>>4 == 6 {
		binary.BigEndian.PutUint16(b[4:], uint16(n-40))
		return b
	}
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	sumHeader4(b[:int(b[0]&15)*4])
	return b
}
