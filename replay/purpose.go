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

// A Purpose is one thing that uvs does otherwise than IPVS on purpose, with the
// rule by which a difference is known to come of it.
type Purpose struct {
	Name   string // for the report and the documentation
	IPVS   string // what IPVS does
	Here   string // what uvs does
	Reason string

	// explains says whether the difference d of the vector v is of this kind.
	explains func(v *Vector, d *Difference) bool
}

// Purposes are all of them. The page docs/ipvs-differences.md is made of it.
var Purposes = []Purpose{
	{
		Name:   "fragments",
		IPVS:   "puts every datagram together, balances it, and cuts it again.",
		Here:   "forwards fragments as they come: the first opens the flow, the others follow it.",
		Reason: "Nothing waits for a datagram to be whole, and no memory is spent on it. It shows where a fragment is lost (the others have gone already, a flow exists, and the real server says that it waited in vain), where a datagram is larger than the path although each fragment fits, and in packet counters, which count fragments.",
		explains: func(v *Vector, d *Difference) bool {
			switch d.What {
			case "frames":
				return v.sendsFragments() && onlyDatagrams(d, isFragmentation)
			case "stats":
				return v.sendsFragments() && onlyColumns(d, statConns, statInPackets, statOutPackets, statInBytes, statOutBytes)
			case "connections":
				return v.sendsFragments() && onlyMore(d)
			}
			return false
		},
	},
	{
		Name:   "unseen replies",
		IPVS:   "counts a reply of a dr or tun real server which is routed through the director, and its own ICMP errors to the client, as outgoing packets.",
		Here:   "counts as replies what it carried to a client for a real server, and errors about the path.",
		Reason: "Such a reply is the host's to forward; it is never given to uvs, which could do nothing to it.",
		explains: func(v *Vector, d *Difference) bool {
			return d.What == "stats" && onlyColumns(d, statOutPackets, statOutBytes) && !v.differsAt(d, v.natted())
		},
	},
	{
		Name:   "errors about tunnels",
		IPVS:   "tells the client of an ICMP error about a tunnel packet only where the packet inside and the one around it are both IPv4, and of a path MTU with the value that it had until then.",
		Here:   "does so for both families in both families' tunnels, and with the value that it has just learnt.",
		Reason: "Otherwise a client in another family than the tunnel waits in vain, and one too big packet more is lost.",
		explains: func(v *Vector, d *Difference) bool {
			return d.What == "frames" && v.uses("-i") && v.Steps[d.Step].isErrorTo(isDirector) && onlyDatagrams(d, isError)
		},
	},
	{
		Name:   "least IPv6 MTU",
		IPVS:   "reports by packet too big what the path leaves for the packet inside a tunnel, also less than 1280 bytes.",
		Here:   "reports 1280 bytes at least, and cuts the packet around it where the path carries less.",
		Reason: "A sender need not go below 1280 bytes (RFC 8200 section 5), so a smaller value ends the connection.",
		explains: func(_ *Vector, d *Difference) bool {
			return d.What == "frames" && len(d.want) == len(d.got) && onlyDatagrams(d, isPacketTooBig) && leastMTU(d.want, d.got)
		},
	},
	{
		Name:   "late timers",
		IPVS:   "ends a connection up to 16 s after its time (300 s and 900 s), as the kernel's timer wheel is coarse; until then it is listed with 00:00.",
		Here:   "ends a flow at its deadline.",
		Reason: "A deadline is what was configured.",
		explains: func(_ *Vector, d *Difference) bool {
			return d.What == "connections" && onlyEnded(d)
		},
	},
	{
		Name:   "addresses of services",
		IPVS:   "balances only what the host takes for its own: the address of a service must be local.",
		Here:   "brings the packets of its services to itself; no address needs to be configured on the host.",
		Reason: "One thing less to configure, and to forget.",
		explains: func(v *Vector, d *Difference) bool {
			return (d.What == "frames" || d.What == "connections" || d.What == "stats" || d.What == "list") && v.foreignService()
		},
	},
}

// Explain gives the purpose of each difference, nil where there is none.
func Explain(v *Vector, d *Difference) *Purpose {
	for i := range Purposes {
		if Purposes[i].explains(v, d) {
			return &Purposes[i]
		}
	}
	return nil
}

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

// foreignService says whether a service of v is at an address that is not the
// director's.
func (v *Vector) foreignService() bool {
	return slices.ContainsFunc(v.commands(), func(c *command) bool {
		return c.Service != nil && c.Service.Mark == 0 && !isDirector(c.Service.Addr.Addr())
	})
}

// onlyDatagrams says whether all datagrams that one side has and the other has
// not are of a kind.
func onlyDatagrams(d *Difference, kind func(datagram) bool) bool {
	want, got := slices.Clone(d.want), slices.Clone(d.got)
	for i := 0; i < len(want); {
		at := slices.IndexFunc(got, func(g datagram) bool { return sameDatagrams(want[i:i+1], []datagram{g}) })
		if at < 0 {
			i++
			continue
		}
		want, got = slices.Delete(want, i, i+1), slices.Delete(got, at, at+1)
	}
	return !slices.ContainsFunc(append(want, got...), func(d datagram) bool { return !kind(d) })
}

// isFragmentation says whether d is about how a datagram was cut: put together
// from fragments, or an ICMP error that says that it is too big or was not
// whole in time.
func isFragmentation(d datagram) bool {
	if d.pieces {
		return true
	}
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
	if len(s.Pkt) < 40 {
		return false
	}
	return isError(datagram{b: s.Pkt}) && kind(readHeader(s.Pkt).dst)
}

// isError says whether d is an ICMP error.
func isError(d datagram) bool {
	p := readHeader(d.b)
	return (p.proto == protoICMP || p.proto == protoICMPv6) && p.l4 < len(d.b) && embeds(p.six, d.b[p.l4])
}

func isPacketTooBig(d datagram) bool {
	p := readHeader(d.b)
	return p.proto == protoICMPv6 && p.l4+8 <= len(d.b) && d.b[p.l4] == tooBig.six[0]
}

// leastMTU says whether the packets too big of got report 1280 where those of
// want report less, and are else the same.
func leastMTU(want, got []datagram) bool {
	return slices.EqualFunc(want, got, func(w, g datagram) bool {
		if !isPacketTooBig(w) || !isPacketTooBig(g) {
			return sameDatagrams([]datagram{w}, []datagram{g})
		}
		at := readHeader(w.b).l4
		if binary.BigEndian.Uint32(w.b[at+4:]) >= 1280 || binary.BigEndian.Uint32(g.b[at+4:]) != 1280 {
			return false
		}
		w.b, g.b = bytes.Clone(w.b), bytes.Clone(g.b)
		clear(w.b[at+2 : at+8])
		clear(g.b[at+2 : at+8])
		return sameDatagrams([]datagram{w}, []datagram{g})
	})
}

// The columns of --stats behind the name.
const (
	statConns = iota
	statInPackets
	statOutPackets
	statInBytes
	statOutBytes
)

// onlyColumns says whether two listings of --stats differ in these columns
// only.
func onlyColumns(d *Difference, columns ...int) bool {
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
			if _, err := strconv.Atoi(x); err != nil || x != y && !slices.Contains(columns, i) {
				return false
			}
		}
		return true
	})
}

// onlyMore says whether all connections wanted are there, and others too.
func onlyMore(d *Difference) bool {
	got := slices.Clone(d.gotConns)
	for _, w := range d.wantConns {
		at := slices.IndexFunc(got, func(g Conn) bool { return sameConn(w, g) })
		if at < 0 {
			return false
		}
		got = slices.Delete(got, at, at+1)
	}
	return true
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

// Page is the documentation of the Purposes, in Markdown.
func Page() []byte {
	var b bytes.Buffer
	b.WriteString(pageHead)
	for _, p := range Purposes {
		b.WriteString("\n## " + strings.ToUpper(p.Name[:1]) + p.Name[1:] + "\n\n")
		b.WriteString("- **IPVS** " + p.IPVS + "\n")
		b.WriteString("- **uvs** " + p.Here + "\n\n")
		b.WriteString(p.Reason + "\n")
	}
	b.WriteString(pageTail)
	return b.Bytes()
}

const pageHead = `<!-- Made from replay/purpose.go by: go test ./replay -run TestPage -update -->
# Where uvs differs from IPVS

What the kernel's IPVS does with given packets was recorded: which real server it
picks, every byte that leaves and by which interface, states, timers and counters.
` + "`go test ./integration/conformance`" + ` plays the recordings to uvs, by the code
that carries packets live, and compares. Each difference that remains is one of
these; any other fails the test, as does one of these that no recording shows.

The recordings were made with IPVS's defaults. Where uvs has another default, the
settings of ` + "`policy`" + ` that are exactly IPVS's are used (see
[configuration](configuration.md)).
`

const pageTail = `
## What the recordings cannot show

- A live uvs gets its packets from the host's routing, which decrements the TTL
  before uvs sees the packet. A packet that comes with TTL 1 is answered by the
  host and opens no flow; IPVS schedules and counts it first.
- Firewall marks are not there. A service has as many listens as it needs
  instead, which share one scheduler and one persistence.
- The synchronisation daemon is not there. With the schedulers mh or maglev and
  the policy sloppy, any director takes over a flow in mid-stream.
- A real server is never the director itself.
`
