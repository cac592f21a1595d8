package lb_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// ICMP types and codes of the rows.
const (
	unreachable4, port4, tooBig4 = 3, 3, 4
	unreachable6, port6, tooBig6 = 1, 4, 2
)

var (
	natDirector     = director{mode: "nat", realServers: []string{mapped4, mapped6}}
	drDirector      = director{mode: "dr", realServers: []string{rs4, rs6}}
	fullnatDirector = director{mode: "fullnat", realServers: []string{mapped4}}
)

// TestVerdicts sends packets one after the other and says what becomes of the
// last.
func TestVerdicts(t *testing.T) {
	syn := func(src, dst string) []byte { return packettest.TCP(src, dst, packettest.SYN) }
	tests := []struct {
		name    string
		d       director
		in      [][]byte
		verdict packet.Verdict
		why     packet.Reason
		same    bool   // the last packet comes out as it went in
		want    []byte // nil: not compared
	}{
		{name: "a packet to somebody else goes back to the kernel", d: natDirector,
			in: [][]byte{syn(client4, "192.0.2.1:80")}, verdict: packet.Return, same: true},
		{name: "ping to a VIP goes up", d: natDirector,
			in: [][]byte{packettest.Echo(cip4, vip4)}, verdict: packet.Pass, same: true},
		{name: "ping to an IPv6 VIP goes up", d: natDirector,
			in: [][]byte{packettest.Echo(cip6, vip6)}, verdict: packet.Pass, same: true},
		{name: "a VIP's port without a service goes up", d: natDirector,
			in: [][]byte{syn(client4, vip4+":81")}, verdict: packet.Pass, why: packet.NoService, same: true},
		{name: "an ACK that no flow has goes up", d: natDirector,
			in: [][]byte{packettest.TCP(client4, web4)}, verdict: packet.Pass, why: packet.NotSYN, same: true},
		{name: "a RST that no flow has goes up", d: natDirector,
			in: [][]byte{packettest.TCP(client4, web4, packettest.RST)}, verdict: packet.Pass, why: packet.NotSYN, same: true},
		{name: "SYN with RST opens nothing", d: natDirector,
			in:      [][]byte{packettest.TCP(client4, web4, packettest.Flags(packet.SYN|packet.RST))},
			verdict: packet.Pass, why: packet.NotSYN, same: true},
		{name: "SYN with ACK opens a flow, as in IPVS", d: drDirector,
			in: [][]byte{packettest.TCP(client4, web4, packettest.SYNACK)}, verdict: packet.Send, same: true},
		{name: "SYN with FIN opens a flow, as in IPVS", d: drDirector,
			in:      [][]byte{packettest.TCP(client4, web4, packettest.Flags(packet.SYN|packet.FIN))},
			verdict: packet.Send, same: true},
		{name: "SCTP data that no flow has goes up", d: natDirector,
			in: [][]byte{packettest.SCTP(client4, web4, 0)}, verdict: packet.Pass, why: packet.NotSYN, same: true},
		{name: "a reply that no flow has goes back to the kernel", d: natDirector,
			in: [][]byte{packettest.TCP(mapped4, client4)}, verdict: packet.Return, same: true},
		{name: "a dr reply through the director goes back to the kernel", d: drDirector,
			in: [][]byte{syn(client4, web4), packettest.TCP(web4, client4)}, verdict: packet.Return, same: true},

		{name: "fullnat: a reply that no flow has is reset", d: fullnatDirector,
			in:      [][]byte{packettest.TCP(mapped4, lip4+":5000", packettest.Ack(77))},
			verdict: packet.Send, why: packet.NotSYN,
			want: packettest.TCP(lip4+":5000", mapped4, packettest.Flags(packet.RST), packettest.Seq(77), packettest.Window(0))},
		{name: "fullnat: a UDP reply that no flow has is dropped", d: fullnatDirector,
			in: [][]byte{packettest.UDP(mapped4, lip4+":5000")}, verdict: packet.Drop, why: packet.NoService},
		{name: "fullnat: ping to a LIP is dropped", d: fullnatDirector,
			in: [][]byte{packettest.Echo(rip4, lip4)}, verdict: packet.Drop, why: packet.NoService},

		{name: "no real server: drop", d: director{onNoServer: lb.AnswerDrop},
			in: [][]byte{syn(client4, web4)}, verdict: packet.Drop, why: packet.NoRealServer},
		{name: "no real server: reset", d: director{onNoServer: lb.AnswerReset},
			in:      [][]byte{packettest.TCP(client4, web4, packettest.SYN, packettest.Seq(9))},
			verdict: packet.Send, why: packet.NoRealServer,
			want: packettest.TCP(web4, client4, packettest.Flags(packet.RST|packet.ACK), packettest.Ack(10), packettest.Window(0))},
		{name: "no real server: port unreachable, as IPVS answers", d: director{},
			in: [][]byte{syn(client4, web4)}, verdict: packet.Send, why: packet.NoRealServer,
			want: packettest.Error(vip4, cip4, unreachable4, port4, 0, syn(client4, web4), packettest.TOS(0xc0))},
		{name: "no real server: the same over IPv6", d: director{},
			in: [][]byte{syn(client6, web6)}, verdict: packet.Send, why: packet.NoRealServer,
			want: packettest.Error(vip6, cip6, unreachable6, port6, 0, syn(client6, web6))},
		{name: "no real server: UDP cannot be reset and is answered", d: director{onNoServer: lb.AnswerReset},
			in: [][]byte{packettest.UDP(client4, web4)}, verdict: packet.Send, why: packet.NoRealServer,
			want: packettest.Error(vip4, cip4, unreachable4, port4, 0, packettest.UDP(client4, web4), packettest.TOS(0xc0))},

		{name: "nat: an error about a request is told to the client as if from the VIP", d: natDirector,
			in: [][]byte{
				packettest.UDP(client4, web4),
				packettest.Error("10.0.0.1", cip4, unreachable4, port4, 0, packettest.UDP(client4, mapped4, packettest.NoSum)),
			},
			verdict: packet.Send,
			want:    packettest.Error(vip4, cip4, unreachable4, port4, 0, packettest.UDP(client4, web4, packettest.NoSum))},
		{name: "nat: an error about a reply reaches the real server", d: natDirector,
			in: [][]byte{
				packettest.UDP(client4, web4),
				packettest.Error("198.51.100.1", vip4, unreachable4, port4, 0, packettest.UDP(web4, client4, packettest.NoSum)),
			},
			verdict: packet.Send,
			want:    packettest.Error("198.51.100.1", rip4, unreachable4, port4, 0, packettest.UDP(mapped4, client4, packettest.NoSum))},
		{name: "dr: an error about a reply reaches the real server unchanged", d: drDirector,
			in: [][]byte{
				packettest.UDP(client6, web6),
				packettest.Error("2001:db8:c::1", vip6, tooBig6, 0, 1400, packettest.UDP(web6, client6)),
			},
			verdict: packet.Send, same: true},
		{name: "an error about a flow that is not known goes up", d: natDirector,
			in:      [][]byte{packettest.Error("198.51.100.1", vip4, unreachable4, tooBig4, 1400, packettest.TCP(web4, client4))},
			verdict: packet.Pass, same: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.d.start(t)
			var got result
			for _, in := range tt.in {
				got = handle(t, b, in, 0)
			}
			if got.verdict != tt.verdict || got.reason != tt.why {
				t.Errorf("%v, %v; want %v, %v", got.verdict, got.reason, tt.verdict, tt.why)
			}
			if tt.same {
				diff(t, "packet", tt.in[len(tt.in)-1], got.bytes)
			}
			if tt.want != nil {
				diff(t, "packet", sameIdent(tt.want, got.bytes), got.bytes)
			}
			if n := b.Stats().Reasons[tt.why]; tt.why != packet.OK && n != 1 {
				t.Errorf("%d packets counted as %v, want 1", n, tt.why)
			}
		})
	}
}

func TestErrorDoesNotProlongAFlow(t *testing.T) {
	b := natDirector.start(t)
	handle(t, b, packettest.UDP(client4, web4), 0)
	about := packettest.Error("10.0.0.1", cip4, unreachable4, port4, 0, packettest.UDP(client4, mapped4))
	if got := handle(t, b, about, 299*time.Second); got.verdict != packet.Send {
		t.Fatalf("error about a flow: %v, %v", got.verdict, got.reason)
	}
	if got := handle(t, b, packettest.UDP(mapped4, client4), 301*time.Second); got.verdict != packet.Return {
		t.Errorf("reply after the flow's end: %v", got.verdict)
	}
}

func TestLaterFragments(t *testing.T) {
	// As package stack does it: a later fragment gets the ports of its first.
	send := func(b *lb.Balancer, in []byte, now time.Duration) result {
		p := packettest.Parsed(t, in)
		if p.Fragment().Offset > 0 {
			p.SetPorts(40000, 80)
		}
		return handlePacket(t, b, p, now)
	}
	for _, tt := range []struct {
		whole   []byte
		without packet.Verdict // what becomes of a later one whose first opened no flow
	}{
		{packettest.UDP(client4, web4, packettest.Pad(100)), packet.Drop},
		{packettest.UDP(client6, web6, packettest.Pad(100)), packet.Drop},
		{packettest.TCP(client4, web4, packettest.SYN, packettest.Pad(100)), packet.Pass}, // the netstack answers the whole
	} {
		parts := packettest.Fragments(tt.whole, 48)
		b := drDirector.start(t)
		if got := send(b, parts[1], 0); got.verdict != tt.without || got.reason != packet.NotSYN {
			t.Errorf("without the first: %v, %v", got.verdict, got.reason)
		}
		for i, part := range parts {
			if got := send(b, part, 50*time.Second); got.verdict != packet.Send || got.p.NextHop.Family == 0 {
				t.Errorf("part %d: %v, %v, next hop %v", i, got.verdict, got.reason, got.p.NextHop)
			}
		}
		// It changed no state, but the flow is known to live: a SYN is kept for
		// a minute from the last part on.
		for _, now := range []time.Duration{100 * time.Second, 150 * time.Second} {
			if got := send(b, parts[1], now); got.verdict != packet.Send {
				t.Errorf("at %v: %v, %v", now, got.verdict, got.reason)
			}
		}
	}
}

func TestAnswersAreLimited(t *testing.T) {
	b := director{}.start(t)
	sent := 0
	for i := range 1000 {
		if got := handle(t, b, packettest.UDP(client4, web4), time.Second+time.Duration(i)*time.Microsecond); got.verdict == packet.Send {
			sent++
		} else if got.reason != packet.RateLimited {
			t.Fatalf("%v, %v", got.verdict, got.reason)
		}
	}
	if sent != 50 {
		t.Errorf("%d answers in a millisecond, want the burst of 50", sent)
	}
	if got := handle(t, b, packettest.UDP(client4, web4), 2*time.Second); got.verdict != packet.Send {
		t.Errorf("a second later: %v, %v", got.verdict, got.reason)
	}
}

func TestPathMTU(t *testing.T) {
	tests := []struct {
		name  string
		d     director
		rip   string
		mtu   int
		in    func(n int) []byte // a packet of n bytes
		fits  int                // the largest that goes through
		tells int                // the MTU that the sender of a larger one is told; 0: it goes through too
	}{
		{name: "nat: a packet with DF", d: natDirector, rip: rip4, mtu: 1400, fits: 1400, tells: 1400,
			in: func(n int) []byte { return packettest.UDP(client4, web4, packettest.DF, packettest.Pad(n-28)) }},
		{name: "nat: a packet without DF is left to the kernel to fragment", d: natDirector, rip: rip4, mtu: 1400, fits: 1400,
			in: func(n int) []byte { return packettest.UDP(client4, web4, packettest.Pad(n-28)) }},
		{name: "dr: IPv6", d: drDirector, rip: rip6, mtu: 1400, fits: 1400, tells: 1400,
			in: func(n int) []byte { return packettest.UDP(client6, web6, packettest.Pad(n-48)) }},
		{name: "tun: the outer header counts", d: director{mode: "tun", realServers: []string{rs4}}, rip: rip4, mtu: 1500, fits: 1480, tells: 1480,
			in: func(n int) []byte { return packettest.UDP(client4, web4, packettest.DF, packettest.Pad(n-28)) }},
		{name: "tun: the outer header counts over IPv6", d: director{mode: "tun", realServers: []string{rs6}}, rip: rip6, mtu: 1500, fits: 1460, tells: 1460,
			in: func(n int) []byte { return packettest.UDP(client6, web6, packettest.Pad(n-48)) }},
		{name: "fullnat: IPv4 becomes longer as IPv6", d: director{mode: "fullnat", realServers: []string{mapped6}}, rip: rip6, mtu: 1500, fits: 1480, tells: 1480,
			in: func(n int) []byte { return packettest.UDP(client4, web4, packettest.DF, packettest.Pad(n-28)) }},
		{name: "fullnat: IPv6 becomes shorter as IPv4", d: director{mode: "fullnat", realServers: []string{mapped4}}, rip: rip4, mtu: 1500, fits: 1520, tells: 1520,
			in: func(n int) []byte { return packettest.UDP(client6, web6, packettest.Pad(n-48)) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.d.start(t)
			b.SetPathMTU(netip.MustParseAddr(tt.rip), tt.mtu)
			if got := handle(t, b, tt.in(tt.fits), 0); got.verdict != packet.Send || got.reason != packet.OK {
				t.Fatalf("a packet that fits: %v, %v", got.verdict, got.reason)
			}
			big := tt.in(tt.fits + 1)
			got := handle(t, b, big, time.Second)
			if tt.tells == 0 {
				if got.verdict != packet.Send || got.reason != packet.OK {
					t.Errorf("a larger packet: %v, %v", got.verdict, got.reason)
				}
				return
			}
			if got.verdict != packet.Send || got.reason != packet.TooBig {
				t.Fatalf("a packet that does not fit: %v, %v", got.verdict, got.reason)
			}
			want := packettest.Error(vip4, cip4, unreachable4, tooBig4, uint32(tt.tells), big[:548], packettest.TOS(0xc0))
			if big[0]>>4 == 6 {
				want = packettest.Error(vip6, cip6, tooBig6, 0, uint32(tt.tells), big[:1232])
			}
			diff(t, "answer", sameIdent(want, got.bytes), got.bytes)
		})
	}

	t.Run("a super-packet is judged by its segments", func(t *testing.T) {
		b := natDirector.start(t)
		b.SetPathMTU(netip.MustParseAddr(rip4), 1400)
		handle(t, b, packettest.TCP(client4, web4, packettest.SYN), 0)
		for size, why := range map[int]packet.Reason{1360: packet.OK, 1361: packet.TooBig} {
			p := packettest.ParsedVNet(t, packettest.Super(packettest.TCP(client4, web4, packettest.DF, packettest.Pad(20_000)), size))
			if got := handlePacket(t, b, p, time.Second); got.verdict != packet.Send || got.reason != why {
				t.Errorf("segments of %d bytes: %v, %v; want %v", size, got.verdict, got.reason, why)
			}
		}
	})
}

func TestPathMTUIsOfRequests(t *testing.T) {
	b := natDirector.start(t)
	b.SetPathMTU(netip.MustParseAddr(rip4), 1400)
	handle(t, b, packettest.UDP(client4, web4), 0)
	reply := packettest.UDP(mapped4, client4, packettest.DF, packettest.Pad(1472))
	if got := handle(t, b, reply, 0); got.verdict != packet.Send || got.reason != packet.OK {
		t.Errorf("a reply that is larger than the path to the real server: %v, %v", got.verdict, got.reason)
	}
}

func TestTraffic(t *testing.T) {
	b := natDirector.start(t)
	handle(t, b, packettest.TCP(client4, web4, packettest.SYN), 0)                       // 40 bytes
	handle(t, b, packettest.TCP(mapped4, client4, packettest.SYNACK), 0)                 // 40
	super := packettest.Super(packettest.TCP(client4, web4, packettest.Pad(2500)), 1000) // 1040, 1040, 540
	handlePacket(t, b, packettest.ParsedVNet(t, super), 0)
	handle(t, b, packettest.TCP(client6, web6, packettest.SYN), 0) // 60

	s := b.Stats()
	if want := (lb.Lookups{Hit: 2, MissSYN: 2}); s.Lookups != want {
		t.Errorf("lookups %+v, want %+v", s.Lookups, want)
	}
	if s.Flows.Now != 2 || s.Flows.Created != 2 || s.Flows.Limit != 10_000 {
		t.Errorf("flows %+v", s.Flows)
	}
	want := lb.Traffic{Flows: 2, RequestPackets: 5, RequestBytes: 2720, ReplyPackets: 1, ReplyBytes: 40}
	if got := s.Services[0].Traffic; got != want {
		t.Errorf("service: %+v, want %+v", got, want)
	}
	want = lb.Traffic{Flows: 1, RequestPackets: 1, RequestBytes: 60}
	if rs := s.Services[0].RealServers[0]; rs.Traffic != want || rs.Mode != "nat" || rs.Endpoint.AddrPort().String() != mapped6 {
		t.Errorf("the newest real server: %+v, want %+v", rs, want)
	}
}

func TestServiceLookup(t *testing.T) {
	rr, err := sched.New("rr", sched.Options{})
	if err != nil {
		t.Fatal(err)
	}
	vip := netip.MustParseAddr(vip4)
	service := func(name string, rip string, l lb.Listen) lb.ServiceConfig {
		l.VIP = vip
		return lb.ServiceConfig{Name: name, Listens: []lb.Listen{l}, Scheduler: rr, RealServers: []lb.RealServerConfig{
			{Address: netip.MustParseAddrPort(rip + ":0"), Weight: 1, Mode: mustMode(t, "nat", rip)},
		}}
	}
	b := startWith(t, lb.Config{Services: []lb.ServiceConfig{
		service("every port", "10.0.0.1", lb.Listen{Proto: packet.TCP}),
		service("web", "10.0.0.2", lb.Listen{FirstPort: 80, Proto: packet.TCP}),
		service("range", "10.0.0.3", lb.Listen{FirstPort: 8000, LastPort: 8010, Proto: packet.TCP}),
		service("dns", "10.0.0.4", lb.Listen{FirstPort: 53, Proto: packet.UDP}),
	}}, lb.Options{Flows: 1000})
	tests := []struct {
		name string
		in   []byte
		want string // the real server; "": goes up
	}{
		{"a port with a service of its own", packettest.TCP(client4, vip4+":80", packettest.SYN), "10.0.0.2:80"},
		{"the first port of a range", packettest.TCP(client4, vip4+":8000", packettest.SYN), "10.0.0.3:8000"},
		{"the last port of a range", packettest.TCP(client4, vip4+":8010", packettest.SYN), "10.0.0.3:8010"},
		{"a port after the range belongs to every port", packettest.TCP(client4, vip4+":8011", packettest.SYN), "10.0.0.1:8011"},
		{"every port is of TCP only", packettest.UDP(client4, vip4+":80"), ""},
		{"UDP has its own", packettest.UDP(client4, vip4+":53"), "10.0.0.4:53"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := handle(t, b, tt.in, 0)
			if tt.want == "" {
				if got.verdict != packet.Pass {
					t.Errorf("%v, want it to go up", got.verdict)
				}
				return
			}
			tuple := packettest.Parsed(t, got.bytes).Tuple
			if dst := netip.AddrPortFrom(tuple.Dst.Netip(4), tuple.DstPort); dst.String() != tt.want {
				t.Errorf("went to %v, want %v", dst, tt.want)
			}
		})
	}
}

// TestTrafficOfWhatIsNotForwarded follows IPVS: packets that do not fit count
// as they come, and the director's answer counts only where no reply of a real
// server does.
func TestTrafficOfWhatIsNotForwarded(t *testing.T) {
	tests := []struct {
		name string
		d    director
		want lb.Traffic
	}{
		{"dr: the answer counts as a reply", drDirector,
			lb.Traffic{Flows: 1, RequestPackets: 3, RequestBytes: 28 + 1428 + 84, ReplyPackets: 1, ReplyBytes: 576}},
		{"nat: it does not", natDirector,
			lb.Traffic{Flows: 1, RequestPackets: 3, RequestBytes: 28 + 1428 + 84}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.d.start(t)
			b.SetPathMTU(netip.MustParseAddr(rip4), 1400)
			handle(t, b, packettest.UDP(client4, web4), 0)
			handle(t, b, packettest.UDP(client4, web4, packettest.DF, packettest.Pad(1400)), 0)
			about := packettest.UDP(web4, client4, packettest.NoSum, packettest.Pad(28))
			handle(t, b, packettest.Error("198.51.100.1", vip4, unreachable4, port4, 0, about), 0)
			if got := b.Stats().Services[0].Traffic; got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}
