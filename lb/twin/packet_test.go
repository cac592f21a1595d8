package twin

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"

	"github.com/uvs-project/uvs/packet"
)

// A pkt is a packet in words. Its bytes are written anew, with checksums taken
// over everything, whenever a word has changed.
type pkt struct {
	src, dst netip.AddrPort // of ICMP without ports
	proto    uint8
	tos, ttl uint8
	id       uint16 // IPv4, and of IPv6 fragments
	df       bool   // IPv4

	size       int   // payload bytes behind the transport header
	flags      uint8 // TCP
	seq        uint32
	ack        uint32
	win        uint16
	mss        uint16 // TCP: the option, or 0
	chunk      uint8  // SCTP
	chunkFlags uint8
	noSum      bool // UDP over IPv4 without a checksum

	// Of a fragment: the part that this packet has of the datagram, which is
	// cut after every cut bytes behind the IP header.
	cut, part int

	typ, code uint8  // ICMP
	word      uint32 // the second word of its header
	body      []byte // the rest of it
	badSum    bool   // ICMP
}

// A key is what flows are told apart by.
type key struct {
	src, dst netip.AddrPort
	proto    uint8
}

func (k key) reverse() key { return key{k.dst, k.src, k.proto} }

func (p *pkt) v6() bool          { return p.src.Addr().Is6() }
func (p *pkt) later() bool       { return p.cut > 0 && p.part > 0 }
func (p *pkt) key() key          { return key{p.src, p.dst, p.proto} }
func (p *pkt) isICMP() bool      { return p.proto == packet.ICMPv4 || p.proto == packet.ICMPv6 }
func isV6(a netip.AddrPort) bool { return a.Addr().Is6() }

// parts is how many fragments the datagram has; 0: it is whole.
func (p *pkt) parts() int {
	if p.cut == 0 {
		return 0
	}
	return (len(p.transport()) + p.cut - 1) / p.cut
}

// bytes writes p.
func (p *pkt) bytes() []byte {
	t := p.transport()
	h := head{src: p.src.Addr(), dst: p.dst.Addr(), proto: p.proto, tos: p.tos, ttl: p.ttl, id: p.id, df: p.df}
	if p.cut > 0 {
		from := p.part * p.cut
		to := min(from+p.cut, len(t))
		h.fragment, h.offset, h.more = true, from, to < len(t)
		t = t[from:to]
	}
	return h.put(t)
}

// A head is an IP header.
type head struct {
	src, dst netip.Addr
	proto    uint8
	tos, ttl uint8
	id       uint16
	df       bool
	fragment bool
	offset   int // bytes
	more     bool
}

// put gives the packet that h begins and that carries t.
func (h head) put(t []byte) []byte {
	if h.src.Is4() {
		b := make([]byte, 20, 20+len(t))
		b[0], b[1] = 0x45, h.tos
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(t)))
		binary.BigEndian.PutUint16(b[4:], h.id)
		field := uint16(h.offset / 8)
		if h.df {
			field |= 0x4000
		}
		if h.more {
			field |= 0x2000
		}
		binary.BigEndian.PutUint16(b[6:], field)
		b[8], b[9] = h.ttl, h.proto
		copy(b[12:], h.src.AsSlice())
		copy(b[16:], h.dst.AsSlice())
		binary.BigEndian.PutUint16(b[10:], ^sum(b, 0))
		return append(b, t...)
	}
	b := make([]byte, 40, 48+len(t))
	binary.BigEndian.PutUint32(b, 6<<28|uint32(h.tos)<<20)
	b[6], b[7] = h.proto, h.ttl
	copy(b[8:], h.src.AsSlice())
	copy(b[24:], h.dst.AsSlice())
	if h.fragment {
		b = append(b, h.proto, 0, 0, 0, 0, 0, 0, 0)
		b[6] = 44
		field := uint16(h.offset)
		if h.more {
			field |= 1
		}
		binary.BigEndian.PutUint16(b[42:], field)
		binary.BigEndian.PutUint32(b[44:], uint32(h.id))
	}
	b = append(b, t...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	return b
}

// payload is what all packets carry.
var payload = func() (b [4096]byte) {
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}()

// transport writes what follows the IP header of the whole datagram.
func (p *pkt) transport() []byte {
	data := payload[:p.size]
	switch p.proto {
	case packet.TCP:
		t := make([]byte, 20, 24+len(data))
		t[12], t[13] = 5<<4, p.flags
		if p.mss > 0 {
			t = append(t, 2, 4, byte(p.mss>>8), byte(p.mss))
			t[12] = 6 << 4
		}
		t = append(t, data...)
		p.putPorts(t)
		binary.BigEndian.PutUint32(t[4:], p.seq)
		binary.BigEndian.PutUint32(t[8:], p.ack)
		binary.BigEndian.PutUint16(t[14:], p.win)
		binary.BigEndian.PutUint16(t[16:], ^p.sum(t))
		return t
	case packet.UDP:
		t := append(make([]byte, 8, 8+len(data)), data...)
		p.putPorts(t)
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
		if !p.noSum {
			binary.BigEndian.PutUint16(t[6:], orOnes(^p.sum(t)))
		}
		return t
	case packet.SCTP:
		t := append(make([]byte, 16, 16+len(data)), data...)
		p.putPorts(t)
		binary.BigEndian.PutUint32(t[4:], p.seq) // the verification tag
		t[12], t[13] = p.chunk, p.chunkFlags
		binary.BigEndian.PutUint16(t[14:], uint16(4+len(data)))
		binary.LittleEndian.PutUint32(t[8:], crc32.Checksum(t, castagnoli))
		return t
	}
	t := append(make([]byte, 8, 8+len(p.body)), p.body...)
	t[0], t[1] = p.typ, p.code
	binary.BigEndian.PutUint32(t[4:], p.word)
	c := ^p.sum(t)
	if p.badSum {
		c ^= 0x0101
	}
	binary.BigEndian.PutUint16(t[2:], c)
	return t
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (p *pkt) putPorts(t []byte) {
	binary.BigEndian.PutUint16(t[0:], p.src.Port())
	binary.BigEndian.PutUint16(t[2:], p.dst.Port())
}

// sum is the sum of t and of its pseudo-header.
func (p *pkt) sum(t []byte) uint16 {
	if p.proto == packet.ICMPv4 {
		return sum(t, 0)
	}
	s := sum(p.dst.Addr().AsSlice(), sum(p.src.Addr().AsSlice(), 0))
	return sum(t, sum([]byte{0, p.proto, byte(len(t) >> 8), byte(len(t))}, s))
}

// sum adds the 16-bit words of b in one's complement.
func sum(b []byte, to uint16) uint16 {
	s := uint32(to)
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// orOnes is how a UDP checksum of zero is written.
func orOnes(c uint16) uint16 {
	if c == 0 {
		return 0xffff
	}
	return c
}
