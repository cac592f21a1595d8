package replay

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
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
				return v.sendsFragments() && fragmentsGone(d)
			case "stats":
				return v.sendsFragments() && onlyColumns(d, map[int]bool{
					statConns: true, statInPackets: true, statInBytes: true, statOutPackets: false, statOutBytes: false,
				})
			case "connections":
				return v.sendsFragments() && onlyMore(d, func(Conn) bool { return true })
			}
			return false
		},
	},
	{
		Name:   "unseen replies",
		IPVS:   "counts a reply of a dr or tun real server which is routed through the director, and its own ICMP errors to the client, as outgoing packets. From such a reply on it follows the connection by both directions (IP_VS_CONN_F_NOOUTPUT).",
		Here:   "counts as replies what it carried to a client for a real server, and errors about the path. It follows a connection of dr or tun by the client's packets alone.",
		Reason: "Such a reply is the host's to forward; it is never given to uvs, which could do nothing to it.",
		explains: func(v *Vector, d *Difference) bool {
			return d.What == "stats" && onlyColumns(d, map[int]bool{statOutPackets: false, statOutBytes: false}) && !v.differsAt(d, v.natted())
		},
	},
	{
		Name:   "errors about tunnels",
		IPVS:   "tells the client of an ICMP error about a tunnel packet only where the packet inside and the one around it are both IPv4, and of a path MTU with the value that it had until then.",
		Here:   "does so for both families in both families' tunnels, and with the value that it has just learnt.",
		Reason: "Otherwise a client in another family than the tunnel waits in vain, and one too big packet more is lost.",
		explains: func(v *Vector, d *Difference) bool {
			return d.What == "frames" && v.uses("-i") && v.Steps[d.Step].isErrorTo(isDirector) && moreIsTold(d)
		},
	},
	{
		Name:   "least IPv6 MTU",
		IPVS:   "reports by packet too big what the path leaves for the packet inside a tunnel, also less than 1280 bytes.",
		Here:   "reports 1280 bytes at least, and cuts the packet around it where the path carries less.",
		Reason: "A sender need not go below 1280 bytes (RFC 8200 section 5), so a smaller value ends the connection.",
		explains: func(_ *Vector, d *Difference) bool {
			return d.What == "frames" && leastMTU(d.want, d.got)
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
			foreign := v.foreignServices()
			switch d.What {
			case "frames":
				b := v.Steps[d.Step].Pkt
				return len(b) >= 20 && slices.Contains(foreign, readHeader(b).dst)
			case "connections":
				return onlyMore(d, func(c Conn) bool {
					a, err := netip.ParseAddrPort(c.Virtual)
					return err == nil && slices.Contains(foreign, a.Addr())
				})
			}
			return false
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
  instead, which share one scheduler and one persistence; so are marks played.
- The synchronisation daemon is not there. With the schedulers mh or maglev and
  the policy sloppy, any director takes over a flow in mid-stream.
- A real server on the director itself takes the mode fullnat. IPVS hands its
  packets to the host in every mode.
`
