package packet

import (
	"encoding/binary"
	"math/rand/v2"
)

// minMTU6 is what every IPv6 link carries, in bytes (RFC 8200 section 5).
const minMTU6 = 1280

// CutLen is the most bytes of a packet that a Cutter makes.
const CutLen = minMTU6

// cutData is how much of a datagram one of its fragments then has: whole units
// of eight bytes behind the IPv6 and the fragment header.
const cutData = (minMTU6 - 48) &^ 7

// MustCut says that p was an IPv4 packet which routers may fragment and is an
// IPv6 packet now which they may not and which is longer than all of them
// carry: a Cutter cuts it before it leaves (RFC 7915 section 4).
func (p *Packet) MustCut() bool { return p.mayCut && p.Len() > minMTU6 }

// A Cutter cuts an IPv6 packet, for which MustCut is true, into fragments that
// every link carries. The zero value is ready.
type Cutter struct {
	p   *Packet
	off int    // of the next fragment, in bytes of p's payload
	id  uint32 // identification of all fragments
}

// Start begins with p, whose checksum is completed and which then stays
// untouched until the last Next.
func (c *Cutter) Start(p *Packet) {
	p.CompleteChecksum()
	c.p, c.off, c.id = p, 0, p.frag.ID
	if !p.frag.Is {
		c.id = rand.Uint32()
	}
}

// Next builds the next fragment in dst's buffer (start Headroom), which must
// have room for CutLen bytes behind the headroom, and says whether there was
// one. dst's earlier content is lost.
func (c *Cutter) Next(dst *Packet) bool {
	p := c.p
	data := p.buf[p.start+p.l4 : p.end]
	if c.off >= len(data) {
		return false
	}
	n := min(len(data)-c.off, cutData)
	dst.Reset(dst.buf, Headroom, Headroom+48+n)
	dst.Tuple, dst.family, dst.proto, dst.l4 = p.Tuple, IPv6, p.proto, 48
	dst.frag = Fragment{
		ID: c.id, Offset: p.frag.Offset + uint16(c.off), Is: true,
		More: p.frag.More || c.off+n < len(data),
	}
	b := dst.buf[dst.start:dst.end]
	copy(b, p.buf[p.start:p.start+40])
	binary.BigEndian.PutUint16(b[4:6], uint16(8+n))
	b[6] = extFragment
	putFragment6(b[40:], dst.frag, p.proto)
	copy(b[48:], data[c.off:])
	c.off += n
	return true
}
