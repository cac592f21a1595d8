package lb_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// A step of a flow's life: perhaps another configuration, then a packet, and
// what becomes of it.
type step struct {
	note  string
	at    time.Duration
	edit  func(*lb.Config) // of the configuration in force
	in    []byte           // nil: no packet
	want  []byte           // of a packet that is sent; nil: it is not
	via   string           // the next hop, in dr
	what  packet.Verdict   // of one that is not
	why   packet.Reason
	flows string // afterwards, as listed by flowsOf; "": not looked at
}

func play(t *testing.T, d director, steps []step) {
	t.Helper()
	c := d.config(t)
	b := startWith(t, c, lb.Options{Flows: 1000})
	for i, s := range steps {
		if s.edit != nil {
			c.Services = slices.Clone(c.Services)
			for j := range c.Services {
				c.Services[j].RealServers = slices.Clone(c.Services[j].RealServers)
			}
			s.edit(&c)
			if err := b.Apply(c); err != nil {
				t.Fatal(err)
			}
			b.Tick(s.at)
		}
		if s.in != nil {
			got := handle(t, b, s.in, s.at)
			what := s.what
			if s.want != nil {
				what = packet.Send
			}
			if got.verdict != what || got.reason != s.why {
				t.Errorf("step %d, %s: %v, %v; want %v, %v", i, s.note, got.verdict, got.reason, what, s.why)
				continue
			}
			if s.want != nil {
				diff(t, fmt.Sprintf("step %d, %s", i, s.note), sameIdent(s.want, got.bytes), got.bytes)
			}
			if hop := got.p.NextHop; s.via != "" && hop.Addr.Netip(hop.Family).String() != s.via {
				t.Errorf("step %d, %s: next hop %v, want %v", i, s.note, hop.Addr.Netip(hop.Family), s.via)
			}
		}
		if s.flows != "" {
			if got := flowsOf(b, s.at); got != s.flows {
				t.Errorf("step %d, %s: flows %s, want %s", i, s.note, got, s.flows)
			}
		}
	}
}

// flowsOf lists flows as "port>server state seconds", sorted; "none" without.
func flowsOf(b *lb.Balancer, now time.Duration) string {
	var all []string
	for f := range b.Flows(now) {
		all = append(all, fmt.Sprintf("%d>%v %v %.0f", f.Tuple.SrcPort, f.Server.Endpoint.Addr.Netip(f.Server.Endpoint.Family), f.State, f.Left.Seconds()))
	}
	slices.Sort(all)
	if all == nil {
		return "none"
	}
	return strings.Join(all, ", ")
}

// Edits of the only service.
func remove(rip string) func(*lb.Config) {
	return func(c *lb.Config) {
		s := &c.Services[0]
		s.RealServers = slices.DeleteFunc(s.RealServers, func(rs lb.RealServerConfig) bool {
			return rs.Address.Addr().String() == rip
		})
	}
}

// The real servers of these tests; the last one gets the first flow.
const rs1, rs2 = "10.0.0.1", "10.0.0.2"

func lifeDirector(mode string, p lb.Policy) director {
	port := ":80"
	if mode == "nat" {
		port = ":8080"
	}
	return director{mode: mode, realServers: []string{rs1 + port, rs2 + port}, policy: &p}
}

// fromClient is a packet of the client's port i.
func fromClient(i int, o ...packettest.Option) []byte {
	return packettest.TCP(fmt.Sprint(cip4, ":", i), web4, o...)
}

// toServer is that packet as nat sends it.
func toServer(rip string, i int, o ...packettest.Option) []byte {
	return packettest.TCP(fmt.Sprint(cip4, ":", i), rip+":8080", o...)
}

func fromServer(rip string, i int, o ...packettest.Option) []byte {
	return packettest.TCP(rip+":8080", fmt.Sprint(cip4, ":", i), o...)
}

func toClient(i int, o ...packettest.Option) []byte {
	return packettest.TCP(web4, fmt.Sprint(cip4, ":", i), o...)
}

var syn1, ack1, psh1 = packettest.SYN, packettest.Ack(7), packettest.Pad(10)

// rstOf is the reset of a closed port that answers Ack(7).
func rstOf(b func(int, ...packettest.Option) []byte, i int) []byte {
	return b(i, packettest.Flags(packet.RST), packettest.Seq(7), packettest.Window(0))
}

// established are the steps that every row below begins with.
func established(d director) []step {
	if d.mode == "nat" {
		return []step{
			{note: "SYN", in: fromClient(1, syn1), want: toServer(rs2, 1, syn1)},
			{note: "ACK", in: fromClient(1, ack1), want: toServer(rs2, 1, ack1), flows: "1>10.0.0.2 established 900"},
		}
	}
	return []step{
		{note: "SYN", in: fromClient(1, syn1), want: fromClient(1, syn1), via: rs2},
		{note: "ACK", in: fromClient(1, ack1), want: fromClient(1, ack1), via: rs2, flows: "1>10.0.0.2 established 900"},
	}
}

func weight(rip string, n int) func(*lb.Config) {
	return func(c *lb.Config) {
		for i := range c.Services[0].RealServers {
			if rs := &c.Services[0].RealServers[i]; rs.Address.Addr().String() == rip {
				rs.Weight = n
			}
		}
	}
}

// TestTimeoutsAreEdited: as ipvsadm --set, for each flow from its next packet on.
func TestTimeoutsAreEdited(t *testing.T) {
	const s = time.Second
	play(t, lifeDirector("dr", lb.DefaultPolicy()), []step{
		{note: "SYN", in: fromClient(1, syn1), want: fromClient(1, syn1)},
		{note: "ACK", in: fromClient(1, ack1), want: fromClient(1, ack1), flows: "1>10.0.0.2 established 900"},
		{note: "edit", at: 10 * s, edit: func(c *lb.Config) {
			c.Services[0].Timeouts[lb.TCPEstablished], c.Services[0].Timeouts[lb.TCPSynRecv] = 100*s, 5*s
		}, flows: "1>10.0.0.2 established 890"},
		{note: "ACK", at: 10 * s, in: fromClient(1, ack1), want: fromClient(1, ack1), flows: "1>10.0.0.2 established 100"},
		{note: "another", at: 10 * s, in: fromClient(2, syn1), want: fromClient(2, syn1), flows: "1>10.0.0.2 established 100, 2>10.0.0.1 syn_recv 5"},
		{note: "FIN", at: 10 * s, in: fromClient(1, packettest.FIN), want: fromClient(1, packettest.FIN), flows: "1>10.0.0.2 fin_wait 120, 2>10.0.0.1 syn_recv 5"},
	})
}

// TestEditedModeIsForNewFlows follows IPVS (vector edit_fwd_method), whatever
// becomes of flows of removed real servers.
func TestEditedModeIsForNewFlows(t *testing.T) {
	for removed := lb.RemovedServe; removed <= lb.RemovedReset; removed++ {
		d := lifeDirector("dr", lb.Policy{Removed: removed, Drain: time.Second})
		other := lifeDirector("tun", *d.policy)
		play(t, d, append(established(d),
			step{note: "edit", edit: func(c *lb.Config) { *c = other.config(t) }},
			step{note: "data", at: 10 * time.Second, edit: func(*lb.Config) {}, in: fromClient(1, ack1), want: fromClient(1, ack1), via: rs2},
			step{note: "SYN", at: 10 * time.Second, in: fromClient(1, syn1), want: fromClient(1, syn1), via: rs2},
			step{note: "a new one", at: 10 * time.Second, in: fromClient(2, syn1), want: packettest.IP(dip4, rs1, 4, fromClient(2, syn1))},
		))
	}
}

// TestCookieWithAbortIsAnAbort: IPVS looks at the chunk behind a COOKIE ECHO, or
// a COOKIE ACK.
func TestCookieWithAbortIsAnAbort(t *testing.T) {
	chunks := func(first uint8, behind ...byte) []byte {
		b := packettest.SCTP(client4, web4, first, packettest.Data(string(append([]byte{1, 2, 3, 4}, behind...))))
		b[20+12+3] = 8 // the first one's length
		return b
	}
	for _, tt := range []struct {
		second []byte
		want   string
	}{
		{nil, "established"},
		{[]byte{0, 0, 0, 4}, "established"},
		{[]byte{6, 0, 0, 4}, "closed"},
	} {
		b := drDirector.start(t)
		handle(t, b, packettest.SCTP(client4, web4, 1), 0)
		b.Queue(0).Handle(packettest.Parsed(t, chunks(10, tt.second...)), 0) // its CRC is wrong, which nobody looks at
		if got := flowsOf(b, 0); !strings.Contains(got, " "+tt.want+" ") {
			t.Errorf("COOKIE ECHO with %v: %s, want %s", tt.second, got, tt.want)
		}
	}
}
