package replay

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// A Difference is one thing that a Director did and a vector did not say, or the
// other way round.
type Difference struct {
	Step int    // of the vector; -1: its rules
	What string // frames, picks, status, text, connections, or the name of a listing
	Want string // as people read it
	Got  string

	want, got           []datagram // of frames
	wantConns, gotConns []Conn     // of connections
}

func (d Difference) String() string {
	where := fmt.Sprintf("step %d", d.Step)
	if d.Step < 0 {
		where = "rules"
	}
	return fmt.Sprintf("%s: %s\n%s", where, d.What, sideBySide(d.Want, d.Got))
}

// Check compares what was played with the vector it was played from, step by
// step. Bytes that the vector calls volatile are not looked at, the seconds that
// a connection has left may differ by three, and fragments are compared as the
// datagrams that they make up.
func Check(v, played *Vector) (all []Difference) {
	if v.RulesError != played.RulesError {
		all = append(all, Difference{Step: -1, What: "text", Want: v.RulesError, Got: played.RulesError})
	}
	want, got := newWire(), newWire()
	unordered := slices.ContainsFunc(v.UnstableWhy, func(w string) bool { return strings.HasPrefix(w, "order of lines") })
	for i := range v.Steps {
		w, g := &v.Steps[i], &played.Steps[i]
		differ := func(what, want, got string) {
			all = append(all, Difference{Step: i, What: what, Want: want, Got: got})
		}
		if a, b := fmt.Sprint(w.Picks), fmt.Sprint(g.Picks); a != b {
			differ("picks", a, b)
		}
		if wf, gf := want.datagrams(w.Out), got.datagrams(g.Out); !sameDatagrams(wf, gf) {
			all = append(all, Difference{
				Step: i, What: "frames", Want: describeAll(wf), Got: describeAll(gf), want: wf, got: gf,
			})
		}
		if w.RC != g.RC {
			differ("status", fmt.Sprint(w.RC), fmt.Sprint(g.RC))
		}
		if w.Text != g.Text {
			differ("text", w.Text, g.Text)
		}
		for _, what := range w.What {
			if what == "conn" {
				if a, b, same := sameConns(w.Conns, g.Conns); !same {
					all = append(all, Difference{
						Step: i, What: "connections", Want: a, Got: b, wantConns: w.Conns, gotConns: g.Conns,
					})
				}
				continue
			}
			a, b := w.Shows[what], g.Shows[what]
			if a != b && !(unordered && sortedLines(a) == sortedLines(b)) {
				differ(what, a, b)
			}
		}
	}
	return all
}

func sortedLines(s string) string {
	lines := strings.Split(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// tolerance is by how many seconds the time left of a connection may differ.
const tolerance = 3

func sameConns(want, got []Conn) (w, g string, same bool) {
	want, got = slices.Clone(want), slices.Clone(got)
	slices.SortFunc(want, compareConns)
	slices.SortFunc(got, compareConns)
	return describeConns(want), describeConns(got), slices.EqualFunc(want, got, sameConn)
}

func sameConn(a, b Conn) bool {
	near := max(a.Expires-b.Expires, b.Expires-a.Expires) <= tolerance
	a.Expires, b.Expires = 0, 0
	return near && a == b
}

func describeConns(all []Conn) string {
	var b strings.Builder
	for _, c := range all {
		fmt.Fprintf(&b, "%s %ds %s %s %s %s %s\n", c.Proto, c.Expires, c.State, c.Client, c.Virtual, c.Dest, c.PE)
	}
	return b.String()
}

// A datagram is what one or several frames carry.
type datagram struct {
	leg, to, eth string
	b            []byte
	mask         []bool // volatile bytes
	pieces       bool   // it came in fragments
}

// A wire puts the frames of one side together.
type wire struct{ parts map[string]*assembler }

func newWire() *wire { return &wire{parts: map[string]*assembler{}} }

// datagrams are those that are whole with the last of the frames.
func (w *wire) datagrams(frames []Frame) (all []datagram) {
	for _, f := range frames {
		d := datagram{leg: f.Leg, to: f.To, eth: f.Eth, b: f.Pkt, mask: make([]bool, len(f.Pkt))}
		for _, r := range f.Volatile {
			for i := r.Off; i < min(r.Off+r.Len, len(d.mask)); i++ {
				d.mask[i] = true
			}
		}
		if w.whole(&d) {
			all = append(all, d)
		}
	}
	return all
}

// whole puts d together with the earlier fragments of its datagram, and of the
// datagram in its tunnel, and says whether it is complete.
func (w *wire) whole(d *datagram) bool {
	if len(d.b) < 20 {
		return true
	}
	place := d.leg + " " + d.to
	p := readHeader(d.b)
	if p.frag || p.fragAt != 0 {
		full := w.take(place, d.b, d.mask)
		if full == nil {
			return false
		}
		d.b, d.mask, d.pieces = full.b, full.mask, true
		p = readHeader(d.b)
	}
	at := tunnelled(d.b, &p)
	if at == 0 {
		return true
	}
	in := readHeader(d.b[at:])
	if in.frag || in.fragAt != 0 {
		full := w.take(place+" "+p.src.String()+" "+p.dst.String(), d.b[at:], d.mask[at:])
		if full == nil {
			return false
		}
		d.b = append(slices.Clone(d.b[:at]), full.b...)
		d.mask = append(slices.Clone(d.mask[:at]), full.mask...)
		d.pieces = true
	}
	return true
}

func (w *wire) take(place string, b []byte, mask []bool) *whole {
	a := w.parts[place]
	if a == nil {
		a = newAssembler()
		w.parts[place] = a
	}
	return a.take(b, mask, 0)
}

// tunnelled is where the packet in a tunnel packet begins, 0: it is none.
func tunnelled(b []byte, p *header) int {
	at := 0
	switch t := b[p.l4:]; {
	case p.frag && p.fragOff != 0:
	case p.proto == protoIPIP || p.proto == protoIPv6:
		at = p.l4
	case p.proto == protoGRE && len(t) > 8 && t[0]&0x80 != 0:
		at = p.l4 + 8
	case p.proto == protoGRE && len(t) > 4:
		at = p.l4 + 4
	case p.proto == protoUDP && len(t) > 12 && t[8] == 0 && (t[9] == protoIPIP || t[9] == protoIPv6) && t[10] == 0 && t[11] == 0 &&
		(t[12]>>4 == 4) == (t[9] == protoIPIP):
		at = p.l4 + 12
	}
	if at == 0 || len(b) < at+20 || b[at]>>4 == 6 && len(b) < at+40 || b[at]>>4 == 4 && int(b[at]&15) < 5 {
		return 0
	}
	return at
}

func sameDatagrams(want, got []datagram) bool {
	return slices.EqualFunc(want, got, func(w, g datagram) bool {
		if w.leg != g.leg || w.to != g.to || w.eth != g.eth {
			return false
		}
		if w.pieces || g.pieces {
			w, g = w.plain(), g.plain()
		}
		if len(w.b) != len(g.b) {
			return false
		}
		for i := range w.b {
			if w.b[i] != g.b[i] && !w.mask[i] {
				return false
			}
		}
		return true
	})
}

// plain is d without what depends on how it was cut: of a tunnel packet the
// lengths, the identification, DF and the checksums of the outer headers.
func (d datagram) plain() datagram {
	p := readHeader(d.b)
	at := tunnelled(d.b, &p)
	if at == 0 {
		return d
	}
	b := bytes.Clone(d.b)
	if p.six {
		clear(b[4:6])
	} else {
		clear(b[2:8])
		clear(b[10:12])
	}
	switch p.proto {
	case protoUDP:
		clear(b[p.l4+4 : p.l4+8])
	case protoGRE:
		clear(b[p.l4+4 : at])
	}
	d.b = b
	return d
}
