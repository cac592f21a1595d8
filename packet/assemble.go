package packet

import "encoding/binary"

// Assemble puts a datagram together from its fragments: whole packets, parsed
// before, in the order of their offsets and without a gap; of what two of them
// hold, the later counts. The result is a
// parsed packet in memory of its own, with the headers of the first fragment.
// TooBig says that no IP packet is as long.
//
// An IPv4 datagram may not be fragmented again if its largest fragment said so,
// as in the kernel; an IPv6 one leaves in fragments no longer than those that
// came (CutLen), or at most in ones that every link carries. It has the
// congestion mark if one of them had it (RFC 3168 section 5.3).
func Assemble(fragments []*Packet) (*Packet, Reason) {
	first := fragments[0]
	head := first.part
	if first.family == IPv6 {
		head -= 8
	}
	size, largest, congested := head, first, false
	for _, f := range fragments {
		tos, _ := class(f.buf[f.start:f.end])
		congested = congested || tos&3 == ce
		size = head + int(f.frag.Offset) + f.FragmentLen()
		if f.Len() > largest.Len() {
			largest = f
		}
	}
	if size > 65535 && (first.family == IPv4 || size > 65535+40) {
		return nil, TooBig
	}
	p := new(Packet)
	p.Reset(make([]byte, Headroom+size), Headroom, Headroom+size)
	b := p.buf[p.start:p.end]
	copy(b, first.buf[first.start:first.start+head])
	for _, f := range fragments {
		copy(b[head+int(f.frag.Offset):], f.buf[f.start+f.part:f.end])
	}
	cut := 0
	if first.family == IPv4 {
		binary.BigEndian.PutUint16(b[2:4], uint16(size))
		binary.BigEndian.PutUint16(b[6:8], binary.BigEndian.Uint16(largest.buf[largest.start+6:])&dontFragment)
		sumHeader4(b[:head])
	} else {
		binary.BigEndian.PutUint16(b[4:6], uint16(size-40))
		b[nextHeader(b, head)] = first.buf[first.start+head]
		cut = max(largest.Len(), minMTU6)
	}
	if congested {
		markInner(b, ce)
	}
	why := p.Parse()
	p.cut = cut
	return p, why
}

// nextHeader is where the headers of an IPv6 packet that end at end name what
// follows them.
func nextHeader(b []byte, end int) int {
	name, at := 6, 40
	for at < end {
		size := 8 + 8*int(b[at+1])
		if b[name] == extAuth {
			size = 8 + 4*int(b[at+1])
		}
		name, at = at, at+size
	}
	return name
}
