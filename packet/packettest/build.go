// Package packettest builds whole valid packets for tests, verifies every
// checksum in one, and prints one so that a difference can be read.
//
// A row of a table reads as a sentence:
//
//	packettest.TCP("192.0.2.1:1234", "203.0.113.10:80", packettest.SYN, packettest.TTL(3))
//
// The family is that of the addresses. Nothing here uses the code of package
// packet that it is meant to test: lengths and checksums are computed anew, in
// the simplest way.
package packettest

import (
	"encoding/binary"
	"net/netip"

	"github.com/uvs-project/uvs/packet"
)

// An Option changes what a builder builds. The zero set of them is a packet
// with TTL 64, no IP options, and an empty payload.
type Option func(*spec)

type spec struct {
	ip         ipSpec
	flags      uint8
	seq, ack   uint32
	window     uint16
	tcpOptions []byte
	payload    []byte
	noSum      bool
	wrongSum   bool
}

// Options for the TCP flags; Flags sets any others.
var (
	SYN    = Flags(packet.SYN)
	SYNACK = Flags(packet.SYN | packet.ACK)
	FIN    = Flags(packet.FIN | packet.ACK)
	RST    = Flags(packet.RST)
)

// Flags sets the TCP flags, ACK by default.
func Flags(f uint8) Option { return func(s *spec) { s.flags = f } }

// Seq sets the sequence number of a TCP segment.
func Seq(n uint32) Option { return func(s *spec) { s.seq = n } }

// Ack sets the acknowledgement number of a TCP segment.
func Ack(n uint32) Option { return func(s *spec) { s.ack = n } }

// Window sets the window of a TCP segment.
func Window(n uint16) Option { return func(s *spec) { s.window = n } }

// TCPOptions sets the options of a TCP segment, a multiple of 4 bytes.
func TCPOptions(b []byte) Option { return func(s *spec) { s.tcpOptions = b } }

// Pad makes the payload n bytes of a pattern.
func Pad(n int) Option {
	return func(s *spec) {
		s.payload = make([]byte, n)
		for i := range s.payload {
			s.payload[i] = byte(i*7 + i>>8)
		}
	}
}

// PadPart makes the payload what Pad would have from byte off on, size bytes.
func PadPart(off, size int) Option {
	return func(s *spec) {
		Pad(off + size)(s)
		s.payload = s.payload[off:]
	}
}

// Data sets the payload.
func Data(b string) Option { return func(s *spec) { s.payload = []byte(b) } }

// NoSum leaves the checksum of a UDP datagram zero.
func NoSum(s *spec) { s.noSum = true }

// WrongSum makes the transport checksum wrong.
func WrongSum(s *spec) { s.wrongSum = true }

func newSpec(opts []Option) *spec {
	s := &spec{ip: ipSpec{ttl: 64}, flags: packet.ACK, window: 0xfaf0}
	for _, o := range opts {
		o(s)
	}
	return s
}

// TCP builds a segment, an ACK unless the options say otherwise. src and dst
// are addresses with a port.
func TCP(src, dst string, opts ...Option) []byte {
	s := newSpec(opts)
	from, to := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	t := make([]byte, 20, 20+len(s.tcpOptions)+len(s.payload))
	putPorts(t, from, to)
	binary.BigEndian.PutUint32(t[4:], s.seq)
	binary.BigEndian.PutUint32(t[8:], s.ack)
	t[12], t[13] = byte(5+len(s.tcpOptions)/4)<<4, s.flags
	binary.BigEndian.PutUint16(t[14:], s.window)
	t = append(append(t, s.tcpOptions...), s.payload...)
	return s.finish(from.Addr(), to.Addr(), packet.TCP, t, 16)
}

// UDP builds a datagram.
func UDP(src, dst string, opts ...Option) []byte {
	s := newSpec(opts)
	from, to := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	t := make([]byte, 8, 8+len(s.payload))
	putPorts(t, from, to)
	binary.BigEndian.PutUint16(t[4:], uint16(8+len(s.payload)))
	return s.finish(from.Addr(), to.Addr(), packet.UDP, append(t, s.payload...), 6)
}

// SCTP builds a packet with one chunk of the type, whose value is the payload.
func SCTP(src, dst string, chunk uint8, opts ...Option) []byte {
	s := newSpec(opts)
	from, to := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	t := make([]byte, 16, 16+len(s.payload)+3)
	putPorts(t, from, to)
	binary.BigEndian.PutUint32(t[4:], 0x11223344) // verification tag
	t[12] = chunk
	binary.BigEndian.PutUint16(t[14:], uint16(4+len(s.payload)))
	t = append(t, s.payload...)
	t = append(t, make([]byte, -len(t)&3)...)
	binary.LittleEndian.PutUint32(t[8:], crc32c(t))
	if s.wrongSum {
		t[8] ^= 0xff
	}
	return s.ip.wrap(from.Addr(), to.Addr(), packet.SCTP, t)
}

// Echo builds an ICMP echo request; src and dst are addresses without a port.
func Echo(src, dst string, opts ...Option) []byte {
	s := newSpec(opts)
	from, to := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	t := append([]byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}, s.payload...)
	proto := uint8(packet.ICMPv4)
	if from.Is6() {
		t[0], proto = 128, packet.ICMPv6
	}
	return s.finish(from, to, proto, t, 2)
}

// Error builds an ICMP error of the type and code with the second word of its
// header, about the packet embedded. src and dst are addresses without a port.
func Error(src, dst string, typ, code uint8, word uint32, embedded []byte, opts ...Option) []byte {
	s := newSpec(opts)
	from, to := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	t := append([]byte{typ, code, 0, 0, 0, 0, 0, 0}, embedded...)
	binary.BigEndian.PutUint32(t[4:], word)
	proto := uint8(packet.ICMPv4)
	if from.Is6() {
		proto = packet.ICMPv6
	}
	return s.finish(from, to, proto, t, 2)
}

// IP builds a packet of any protocol around the payload.
func IP(src, dst string, proto uint8, payload []byte, opts ...Option) []byte {
	return newSpec(opts).ip.wrap(netip.MustParseAddr(src), netip.MustParseAddr(dst), proto, payload)
}

// finish fills in the checksum at the offset field of the transport t and puts
// the IP header in front.
func (s *spec) finish(from, to netip.Addr, proto uint8, t []byte, field int) []byte {
	if !s.noSum {
		c := ^add(t, pseudo(from.AsSlice(), to.AsSlice(), proto, len(t)))
		if proto == packet.UDP && c == 0 {
			c = 0xffff
		}
		if s.wrongSum {
			c ^= 0x5555
		}
		binary.BigEndian.PutUint16(t[field:], c)
	}
	return s.ip.wrap(from, to, proto, t)
}

func putPorts(t []byte, from, to netip.AddrPort) {
	binary.BigEndian.PutUint16(t[0:], from.Port())
	binary.BigEndian.PutUint16(t[2:], to.Port())
}
