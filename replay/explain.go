package replay

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/uvs-project/uvs/config/compat"
)

// sendsFragments says whether a packet of v is a fragment.
func (v *Vector) sendsFragments() bool {
	return slices.ContainsFunc(v.Steps, func(s Step) bool {
		if len(s.Pkt) < 40 {
			return false
		}
		return readHeader(s.Pkt).frag
	})
}

// uses says whether a rule or command of v has the word.
func (v *Vector) uses(word string) bool {
	return slices.ContainsFunc(v.lines(), func(l string) bool { return slices.Contains(strings.Fields(l), word) })
}

// foreignServices are the addresses of v's services that are not the director's.
func (v *Vector) foreignServices() (all []netip.Addr) {
	for _, c := range v.commands() {
		if c.Service != nil && c.Service.Mark == 0 && !isDirector(c.Service.Addr.Addr()) {
			all = append(all, c.Service.Addr.Addr())
		}
	}
	return all
}

// apart are the datagrams that one side has and the other has not.
func (d *Difference) apart() (want, got []datagram) {
	want, got = slices.Clone(d.want), slices.Clone(d.got)
	for i := 0; i < len(want); {
		at := slices.IndexFunc(got, func(g datagram) bool { return sameDatagrams(want[i:i+1], []datagram{g}) })
		if at < 0 {
			i++
			continue
		}
		want, got = slices.Delete(want, i, i+1), slices.Delete(got, at, at+1)
	}
	return want, got
}

// fragmentsGone says whether the sides differ only in what is told to the sender
// of fragments, and in datagrams that were forwarded instead of such an answer.
func fragmentsGone(d *Difference) bool {
	want, got := d.apart()
	for _, g := range got {
		if !isFragmentation(g) && !(g.pieces && len(want) > 0) {
			return false
		}
	}
	return !slices.ContainsFunc(want, func(w datagram) bool { return !isFragmentation(w) })
}

// isFragmentation says whether d is an ICMP error that says that a datagram is
// too big or was not whole in time.
func isFragmentation(d datagram) bool {
	p := readHeader(d.b)
	t := d.b[p.l4:]
	if len(t) < 8 {
		return false
	}
	kind := [2]uint8{t[0], t[1]}
	switch p.proto {
	case protoICMP:
		return kind == tooBig.four || kind == fragmentsLate.four
	case protoICMPv6:
		return kind == tooBig.six || kind == fragmentsLate.six
	}
	return false
}

// isErrorTo says whether the step sends an ICMP error to an address of a kind.
func (s *Step) isErrorTo(kind func(netip.Addr) bool) bool {
	return isError(datagram{b: s.Pkt}) && kind(readHeader(s.Pkt).dst)
}

// isError says whether d is an ICMP error.
func isError(d datagram) bool {
	p := readHeader(d.b)
	return (p.proto == protoICMP || p.proto == protoICMPv6) && p.l4+8 <= len(d.b) && embeds(p.six, d.b[p.l4])
}

// moreIsTold says whether the sides differ only in ICMP errors that are sent
// besides, or that report another MTU.
func moreIsTold(d *Difference) bool {
	want, got := d.apart()
	for _, g := range got {
		if !isError(g) {
			return false
		}
	}
	return len(want) <= len(got) && slices.EqualFunc(want, got[:len(want)], sameButMTU)
}

// leastMTU says whether the packets too big of got report 1280 where those of
// want report less, and are else the same.
func leastMTU(want, got []datagram) bool {
	mtu := func(d datagram) uint32 {
		p := readHeader(d.b)
		if p.proto != protoICMPv6 || !isError(d) || d.b[p.l4] != tooBig.six[0] {
			return 0
		}
		return binary.BigEndian.Uint32(d.b[p.l4+4:])
	}
	return slices.EqualFunc(want, got, func(w, g datagram) bool {
		return sameDatagrams([]datagram{w}, []datagram{g}) || mtu(w) > 0 && mtu(w) < 1280 && mtu(g) == 1280 && sameButMTU(w, g)
	})
}

// sameButMTU compares two ICMP errors but for what they report.
func sameButMTU(w, g datagram) bool {
	at := readHeader(w.b).l4
	if !isError(w) || !isError(g) || readHeader(g.b).l4 != at {
		return false
	}
	w.b, g.b = bytes.Clone(w.b), bytes.Clone(g.b)
	clear(w.b[at+2 : at+8])
	clear(g.b[at+2 : at+8])
	return sameDatagrams([]datagram{w}, []datagram{g})
}

// The columns of --stats behind the name.
const (
	statConns = iota
	statInPackets
	statOutPackets
	statInBytes
	statOutBytes
)

// onlyColumns says whether two listings of --stats differ in these columns only,
// and uvs counts more in those that are true.
func onlyColumns(d *Difference, columns map[int]bool) bool {
	want, got := strings.Split(d.Want, "\n"), strings.Split(d.Got, "\n")
	return slices.EqualFunc(want, got, func(a, b string) bool {
		if a == b {
			return true
		}
		wf, gf := strings.Fields(a), strings.Fields(b)
		if len(wf) != len(gf) || len(wf) < 7 || !slices.Equal(wf[:len(wf)-5], gf[:len(gf)-5]) {
			return false
		}
		for i := range 5 {
			x, y := wf[len(wf)-5+i], gf[len(gf)-5+i]
			w, err1 := strconv.Atoi(x)
			g, err2 := strconv.Atoi(y)
			more, may := columns[i]
			if err1 != nil || err2 != nil || w != g && (!may || more && g < w) {
				return false
			}
		}
		return true
	})
}

// onlyMore says whether all connections wanted are there, and others of a kind
// too.
func onlyMore(d *Difference, kind func(Conn) bool) bool {
	got := slices.Clone(d.gotConns)
	for _, w := range d.wantConns {
		at := slices.IndexFunc(got, func(g Conn) bool { return sameConn(w, g) })
		if at < 0 {
			return false
		}
		got = slices.Delete(got, at, at+1)
	}
	return !slices.ContainsFunc(got, func(c Conn) bool { return !kind(c) })
}

// onlyEnded says whether only connections are missing whose time was up.
func onlyEnded(d *Difference) bool {
	want := slices.DeleteFunc(slices.Clone(d.wantConns), func(c Conn) bool { return c.Expires == 0 })
	_, _, same := sameConns(want, d.gotConns)
	return same
}

// natted are the real servers that replies are translated of.
func (v *Vector) natted() (addrs []string) {
	for _, c := range v.commands() {
		if c.Server.Forward == compat.Masq {
			addrs = append(addrs, compat.AddrPort(c.Server.Addr))
		}
	}
	return addrs
}

// differsAt says whether two listings differ in the line of a real server.
func (v *Vector) differsAt(d *Difference, servers []string) bool {
	got := strings.Split(d.Got, "\n")
	for i, line := range strings.Split(d.Want, "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "->" && slices.Contains(servers, f[1]) && (i >= len(got) || got[i] != line) {
			return true
		}
	}
	return false
}
