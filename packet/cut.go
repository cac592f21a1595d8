package packet

import (
	"encoding/binary"
	"math/rand/v2"
)

// minMTU6 is what every IPv6 link carries, in bytes (RFC 8200 section 5).
const minMTU6 = 1280

// FragmentTo says that p, or what Apply makes of it, is to leave in fragments
// of at most mtu bytes where it is longer. It changes nothing where a router
// may not fragment p (DontFragment).
func (p *Packet) FragmentTo(mtu int) {
	if !p.DontFragment() {
		p.cut = mtu
	}
}

// FragmentTunnelTo is FragmentTo for the tunnel packet that Apply makes of p by
// an Encap with Fragment: what p itself says does not count.
func (p *Packet) FragmentTunnelTo(mtu int) { p.cut = mtu }

// CutLen is the most bytes of the packets in which p, or each segment of a
// super-packet, is to leave; 0 says that it leaves as it is. It was set by
// FragmentTo, or p was put together from fragments of that length, or p was an
// IPv4 packet which routers may fragment and is an IPv6 packet now which they
// may not (RFC 7915 section 4).
func (p *Packet) CutLen() int {
	n := p.Len()
	if p.VNet.GSOType != GSONone {
		n = p.SegmentLen() + p.Encap.Overhead()
	}
	whole := p.family == IPv4 && p.DontFragment() && (p.Encap.Kind == NoEncap || !p.Encap.Fragment)
	if n <= p.cut || p.cut == 0 || whole {
		return 0
	}
	return p.cut
}

// A Cutter cuts a packet, for which CutLen is not 0, into fragments. The zero
// value is ready.
type Cutter struct {
	p     *Packet
	head  int   // bytes in front of each fragment's part, without a fragment header
	next  int   // of an IPv6 head: the offset of the byte that says what follows it
	proto uint8 // of IPv6: what follows it
	part  int   // bytes of the datagram in each fragment but the last
	off   int   // of the next fragment, in bytes behind head
	id    uint32
}

// Start begins with p, which must be no super-packet. Its checksum is
// completed, and then it stays untouched until the last Next. TooBig says that
// the headers which every fragment must have leave no room for a part.
func (c *Cutter) Start(p *Packet) Reason {
	p.CompleteChecksum()
	*c = Cutter{p: p, head: p.l4, id: p.frag.ID}
	room := p.cut - p.l4
	if p.family == IPv6 {
		c.head, c.next, c.proto = unfragmentable(p)
		room = p.cut - c.head - 8
		if !p.frag.Is {
			c.id = rand.Uint32()
		}
	}
	if c.part = room &^ 7; c.part <= 0 {
		c.p = nil
		return TooBig
	}
	return OK
}

// unfragmentable is the length of the headers of the IPv6 packet p that each
// of its fragments has (RFC 8200 section 4.5): hop-by-hop options, and routing
// with the destination options before it. next is where they name what follows
// them.
func unfragmentable(p *Packet) (head, next int, proto uint8) {
	b := p.buf[p.start:p.end]
	head, next = 40, 6
	if p.frag.Is { // behind the header that translateFamily has put
		return head, next, p.proto
	}
	at, name := 40, 6
	for at < p.l4 {
		switch kind := b[name]; kind {
		case extHopByHop, extRouting, extDestination:
			name, at = at, at+8+8*int(b[at+1])
			if kind != extDestination {
				head, next = at, name
			}
			continue
		}
		break
	}
	return head, next, b[next]
}

// Next builds the next fragment in dst's buffer (start Headroom), which must
// have room for CutLen bytes behind the headroom, and says whether there was
// one. dst's earlier content is lost.
func (c *Cutter) Next(dst *Packet) bool {
	p := c.p
	if p == nil {
		return false
	}
	behind := c.head
	if p.family == IPv6 && p.frag.Is {
		behind = p.l4
	}
	data := p.buf[p.start+behind : p.end]
	if c.off >= len(data) {
		c.p = nil
		return false
	}
	n := min(len(data)-c.off, c.part)
	f := Fragment{
		ID: c.id, Offset: p.frag.Offset + uint16(c.off), Is: true,
		More: p.frag.More || c.off+n < len(data),
	}
	head := c.head
	if p.family == IPv6 {
		head += 8
	}
	dst.Reset(dst.buf, Headroom, Headroom+head+n)
	dst.Tuple, dst.NextHop, dst.family, dst.proto, dst.l4, dst.frag = p.Tuple, p.NextHop, p.family, p.proto, head, f
	b := dst.buf[dst.start:dst.end]
	copy(b, p.buf[p.start:p.start+c.head])
	if p.family == IPv6 {
		binary.BigEndian.PutUint16(b[4:6], uint16(len(b)-40))
		b[c.next] = extFragment
		putFragment6(b[c.head:], f, c.proto)
	} else {
		binary.BigEndian.PutUint16(b[2:4], uint16(len(b)))
		binary.BigEndian.PutUint16(b[6:8], f.word4())
		if f.Offset != 0 {
			keepCopied(b[20:head])
		}
		sumHeader4(b[:head])
	}
	copy(b[head:], data[c.off:])
	c.off += n
	return true
}

// keepCopied makes no-operations of those IPv4 options that stand in the first
// fragment only (RFC 791 section 3.1).
func keepCopied(options []byte) {
	const end, nop, copied = 0, 1, 0x80
	for len(options) > 0 && options[0] != end {
		n := 1
		if options[0] != nop {
			if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
				return
			}
			if n = int(options[1]); options[0]&copied == 0 {
				for i := range n {
					options[i] = nop
				}
			}
		}
		options = options[n:]
	}
}
