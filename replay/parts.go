package replay

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// An assembler puts datagrams together from their fragments.
type assembler struct {
	lifetime [2]time.Duration // of an IPv4 and an IPv6 datagram that is not whole; 0: for ever
	works    map[partKey]*work
	late     func(first []byte) // is shown the first fragment of what was given up; may be nil
}

// Linux gives up after that long (ipfrag_time, ip6frag_time).
const (
	fragmentTime4 = 30 * time.Second
	fragmentTime6 = 60 * time.Second
)

type partKey struct {
	src, dst netip.Addr
	id       uint32
	proto    uint8
}

type work struct {
	parts    []part
	total    int // bytes of the whole behind the headers; 0: not known
	deadline time.Duration
	spoiled  bool // parts overlap
}

type part struct {
	off  int
	data []byte
	mask []bool
	b    []byte // the whole fragment
	more bool
}

// A whole is a datagram with what of it is not to be looked at.
type whole struct {
	b    []byte
	mask []bool // true: that byte is volatile; nil: none
}

func newAssembler() *assembler { return &assembler{works: map[partKey]*work{}} }

// take adds the fragment b and gives the datagram that it completes, or nil.
// mask marks volatile bytes of b, or is nil.
func (a *assembler) take(b []byte, mask []bool, now time.Duration) *whole {
	p := readHeader(b)
	key := partKey{src: p.src, dst: p.dst, id: p.fragID}
	if !p.six {
		key.proto = p.proto
	}
	w := a.works[key]
	if w == nil {
		w = &work{}
		family := 0
		if p.six {
			family = 1
		}
		if a.lifetime[family] != 0 {
			w.deadline = now + a.lifetime[family]
		}
		a.works[key] = w
	}
	at := p.l4
	if p.six {
		at = p.fragAt + 8
	}
	n := part{off: p.fragOff, data: b[at:], b: b, more: p.fragMore}
	if mask != nil {
		n.mask = mask[at:]
	}
	for _, o := range w.parts {
		if n.off == o.off && len(n.data) == len(o.data) {
			return nil // again
		}
		if n.off < o.off+len(o.data) && o.off < n.off+len(n.data) {
			w.spoiled = true
		}
	}
	w.parts = append(w.parts, n)
	if !n.more {
		w.total = n.off + len(n.data)
	}
	if w.spoiled {
		w.parts = w.parts[:0]
		return nil
	}
	return a.finish(key, w, mask)
}

// finish puts w together if it is whole.
func (a *assembler) finish(key partKey, w *work, mask []bool) *whole {
	slices.SortFunc(w.parts, func(x, y part) int { return x.off - y.off })
	end := 0
	for _, p := range w.parts {
		if p.off != end {
			return nil
		}
		end += len(p.data)
	}
	if w.total == 0 || end != w.total {
		return nil
	}
	delete(a.works, key)
	first := w.parts[0].b
	p := readHeader(first)
	head := p.l4
	if p.six {
		head = p.fragAt
	}
	out := &whole{b: append([]byte(nil), first[:head]...)}
	if mask != nil {
		out.mask = make([]bool, head)
	}
	for _, x := range w.parts {
		out.b = append(out.b, x.data...)
		if mask == nil {
			continue
		}
		if x.mask == nil {
			x.mask = make([]bool, len(x.data))
		}
		out.mask = append(out.mask, x.mask...)
	}
	if p.six {
		out.b[namedAt(first, p.fragAt)] = first[p.fragAt]
		binary.BigEndian.PutUint16(out.b[4:], uint16(len(out.b)-40))
		return out
	}
	binary.BigEndian.PutUint16(out.b[2:], uint16(len(out.b)))
	binary.BigEndian.PutUint16(out.b[6:], binary.BigEndian.Uint16(out.b[6:])&0x4000)
	sumHeader4(out.b)
	return out
}

// namedAt is the offset of the byte that names the IPv6 extension header at an
// offset.
func namedAt(b []byte, header int) int {
	name, at := 6, 40
	for at < header {
		name, at = at, at+8+8*int(b[at+1])
	}
	return name
}

// expire gives up what is due.
func (a *assembler) expire(now time.Duration) {
	for key, w := range a.works {
		if w.deadline == 0 || w.deadline > now {
			continue
		}
		delete(a.works, key)
		for _, p := range w.parts {
			if p.off == 0 && !w.spoiled && a.late != nil {
				a.late(p.b)
			}
		}
	}
}

// fragments4 cuts b into packets of at most size bytes (ip_do_fragment).
func fragments4(b []byte, size int) (all [][]byte) {
	p := readHeader(b)
	room := (size - p.l4) &^ 7
	for off := p.l4; off < len(b); off += room {
		end := min(off+room, len(b))
		f := append(append([]byte(nil), b[:p.l4]...), b[off:end]...)
		word := uint16((p.fragOff + off - p.l4) / 8)
		if end < len(b) || p.fragMore {
			word |= 0x2000
		}
		if off > p.l4 {
			dropUncopied(f[20:p.l4])
		}
		binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
		binary.BigEndian.PutUint16(f[6:], word)
		sumHeader4(f)
		all = append(all, f)
	}
	return all
}

// dropUncopied makes no-operations of the options that stand in the first
// fragment only.
func dropUncopied(o []byte) {
	for len(o) > 0 && o[0] != optEnd {
		n := 1
		if o[0] != optNop {
			if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
				return
			}
			n = int(o[1])
			if o[0]&0x80 == 0 {
				for i := range n {
					o[i] = optNop
				}
			}
		}
		o = o[n:]
	}
}

// fragments6 cuts b into packets of at most size bytes, with fragment headers
// behind the IPv6 header.
func fragments6(b []byte, size int) (all [][]byte) {
	room := (size - 48) &^ 7
	for off := 40; off < len(b); off += room {
		end := min(off+room, len(b))
		f := append([]byte(nil), b[:40]...)
		word := uint16(off - 40)
		if end < len(b) {
			word |= 1
		}
		f = append(f, b[6], 0, byte(word>>8), byte(word), 0, 0, 0, 1)
		f[6] = protoFragment
		f = append(f, b[off:end]...)
		binary.BigEndian.PutUint16(f[4:], uint16(len(f)-40))
		all = append(all, f)
	}
	return all
}
