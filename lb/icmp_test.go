package lb_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// TestErrors sends errors from both sides through every mode, each behind the
// packet that opens the flow.
func TestErrors(t *testing.T) {
	const router4, router6 = "198.51.100.1", "2001:db8:c::1"
	noSum := packettest.NoSum
	tests := []struct {
		name    string
		d       director
		open    []byte
		in      []byte
		want    []byte // nil: as it came
		outer   func([]byte) []byte
		nextHop bool
		why     packet.Reason // not OK: dropped
	}{
		{name: "nat: from the client's side, port mapped", d: natDirector, open: packettest.UDP(client4, web4),
			in:   packettest.Error(router4, vip4, 3, 4, 1300, packettest.UDP(web4, client4, noSum)),
			want: packettest.Error(router4, rip4, 3, 4, 1300, packettest.UDP(mapped4, client4, noSum))},
		{name: "nat: the same over IPv6", d: natDirector, open: packettest.UDP(client6, web6),
			in:   packettest.Error(router6, vip6, 3, 0, 0, packettest.UDP(web6, client6, noSum)),
			want: packettest.Error(router6, rip6, 3, 0, 0, packettest.UDP(mapped6, client6, noSum))},
		{name: "nat: from the real server's side, about 4 bytes of transport", d: natDirector, open: packettest.UDP(client4, web4),
			in:   packettest.Error("10.0.0.1", cip4, 11, 0, 0, packettest.UDP(client4, mapped4)[:24]),
			want: packettest.Error(vip4, cip4, 11, 0, 0, packettest.UDP(client4, web4)[:24])},
		{name: "nat: a wrong checksum is dropped", d: natDirector, open: packettest.UDP(client4, web4), why: packet.BadICMP,
			in: packettest.Error(router4, vip4, 3, 4, 1300, packettest.UDP(web4, client4), packettest.WrongSum)},
		{name: "dr: a wrong checksum passes", d: drDirector, open: packettest.UDP(client4, web4), nextHop: true,
			in: packettest.Error(router4, vip4, 3, 4, 1300, packettest.UDP(web4, client4), packettest.WrongSum)},
		{name: "dr: parameter problems of IPv6 pass", d: drDirector, open: packettest.UDP(client6, web6), nextHop: true,
			in: packettest.Error(router6, vip6, 4, 0, 0, packettest.UDP(web6, client6))},
		{name: "tun: in a tunnel", d: director{mode: "tun", realServers: []string{rs4}}, open: packettest.UDP(client4, web4),
			in:    packettest.Error(router4, vip4, 3, 4, 1300, packettest.UDP(web4, client4), packettest.DF),
			outer: func(b []byte) []byte { return packettest.IP(dip4, rip4, 4, b, packettest.DF) }},
		{name: "tun: IPv6 in an IPv4 tunnel", d: director{mode: "tun", realServers: []string{rs4}}, open: packettest.UDP(client6, web6),
			in:    packettest.Error(router6, vip6, 2, 0, 1300, packettest.UDP(web6, client6)),
			outer: func(b []byte) []byte { return packettest.IP(dip4, rip4, 41, b) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.d.start(t)
			handle(t, b, tt.open, 0)
			p := packettest.Parsed(t, tt.in)
			v, why := b.Queue(0).Handle(p, time.Second)
			if tt.why != packet.OK {
				if v != packet.Drop || why != tt.why {
					t.Errorf("%v, %v; want it dropped as %v", v, why, tt.why)
				}
				return
			}
			if v != packet.Send || why != packet.OK {
				t.Fatalf("%v, %v", v, why)
			}
			want := tt.want
			if want == nil {
				want = tt.in
			}
			if tt.outer != nil {
				want = sameIdent(tt.outer(want), p.Bytes())
			}
			diff(t, "error", want, p.Bytes())
			if (p.NextHop.Family != 0) != tt.nextHop {
				t.Errorf("next hop %v", p.NextHop)
			}
		})
	}
}

// TestFullNATErrors: LIP and port are whatever the mode chose.
func TestFullNATErrors(t *testing.T) {
	noSum := packettest.NoSum
	tests := []struct {
		name        string
		rs          string
		client, web string
		about, got  func(local string) []byte // a request, from the real server's side; a reply, by the real server
		told, reply []byte                    // the client about its request; from the client's side about a reply
		same        bool                      // family: every byte is known
	}{
		{name: "IPv4", rs: mapped4, client: client4, web: web4, same: true,
			about: func(l string) []byte {
				return packettest.Error("10.0.0.1", lip4, 3, 1, 0, packettest.UDP(l, mapped4, noSum))
			},
			told:  packettest.Error(vip4, cip4, 3, 1, 0, packettest.UDP(client4, web4, noSum)),
			reply: packettest.Error("198.51.100.1", vip4, 3, 3, 0, packettest.UDP(web4, client4, noSum)),
			got: func(l string) []byte {
				return packettest.Error(lip4, rip4, 3, 3, 0, packettest.UDP(mapped4, l, noSum))
			}},
		{name: "IPv6 clients of an IPv4 real server", rs: mapped4, client: client6, web: web6,
			about: func(l string) []byte {
				return packettest.Error("10.0.0.1", lip4, 3, 4, 1400, packettest.UDP(l, mapped4))
			},
			told:  packettest.Error(vip6, cip6, 2, 0, 1420, packettest.UDP(client6, web6)),
			reply: packettest.Error("2001:db8:c::1", vip6, 2, 0, 1300, packettest.UDP(web6, client6)),
			got: func(l string) []byte {
				return packettest.Error(lip4, rip4, 3, 4, 1280, packettest.UDP(mapped4, l))
			}},
		{name: "IPv4 clients of an IPv6 real server", rs: mapped6, client: client4, web: web4,
			about: func(l string) []byte {
				return packettest.Error("2001:db8:b::1", lip6, 2, 0, 1400, packettest.UDP(l, mapped6))
			},
			told:  packettest.Error(vip4, cip4, 3, 4, 1380, packettest.UDP(client4, web4)),
			reply: packettest.Error("198.51.100.1", vip4, 11, 0, 0, packettest.UDP(web4, client4)),
			got: func(l string) []byte {
				return packettest.Error(lip6, rip6, 3, 0, 0, packettest.UDP(mapped6, l))
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := director{mode: "fullnat", realServers: []string{tt.rs}}.start(t)
			local := localOf(t, handle(t, b, packettest.UDP(tt.client, tt.web), 0).bytes)
			for what, step := range map[string]struct{ in, want []byte }{
				"about a request": {tt.about(local), tt.told},
				"about a reply":   {tt.reply, tt.got(local)},
			} {
				got := handle(t, b, step.in, time.Second)
				if got.verdict != packet.Send || got.reason != packet.OK {
					t.Fatalf("%s: %v, %v", what, got.verdict, got.reason)
				}
				if tt.same {
					diff(t, what, step.want, got.bytes)
					continue
				}
				// RFC 7915 leaves the rest to the tests of package packet.
				want := packettest.Parsed(t, step.want)
				if reads := packettest.Parsed(t, got.bytes); reads.Tuple != want.Tuple {
					t.Errorf("%s: is about %+v, want %+v", what, reads.Tuple, want.Tuple)
				}
				at := 20 // of the ICMP header
				if step.want[0]>>4 == 6 {
					at = 40
				}
				if g, w := got.bytes[at:at+2], step.want[at:at+2]; string(g) != string(w) {
					t.Errorf("%s: type and code %v, want %v", what, g, w)
				}
				if g, w := got.bytes[at+4:at+8], step.want[at+4:at+8]; string(g) != string(w) {
					t.Errorf("%s: MTU %v, want %v", what, g, w)
				}
			}
		})
	}
}

// TestTunnelErrors: an error about a tunnel packet becomes one for the client.
func TestTunnelErrors(t *testing.T) {
	syn := func(src, dst string) []byte { return packettest.TCP(src, dst, packettest.SYN) }
	const router4, router6 = "10.0.0.1", "2001:db8:b::1"
	gre := director{mode: "tun", realServers: []string{rs4}, tunnel: modes.Tunnel{Kind: packet.GRE}}
	gue := director{mode: "tun", realServers: []string{rs4}, tunnel: modes.Tunnel{Kind: packet.GUE}}
	ipip, ipip6 := director{mode: "tun", realServers: []string{rs4}}, director{mode: "tun", realServers: []string{rs6}}
	seg4, seg6 := packettest.TCP(client4, web4, packettest.DF, packettest.Pad(300)), packettest.TCP(client6, web6, packettest.Pad(300))
	in4 := func(proto byte, b []byte) []byte { return packettest.IP(dip4, rip4, proto, b) }
	in6 := func(proto byte, b []byte) []byte { return packettest.IP(dip6, rip6, proto, b) }
	c0 := packettest.TOS(0xc0)
	tests := []struct {
		name    string
		d       director
		syn     []byte
		in      []byte
		want    []byte // to the client
		verdict packet.Verdict
		why     packet.Reason
	}{
		{name: "ipip: too big, less the outer header", d: ipip, syn: syn(client4, web4), verdict: packet.Send,
			in:   packettest.Error(router4, dip4, 3, 4, 1300, in4(4, seg4)[:128]),
			want: packettest.Error(vip4, cip4, 3, 4, 1280, seg4[:108], c0)},
		{name: "gue: too big", d: gue, syn: syn(client4, web4), verdict: packet.Send,
			in:   packettest.Error(router4, dip4, 3, 4, 1300, packettest.UDP(dip4+":40000", rip4+":6080", packettest.Data("\x00\x04\x00\x00"+string(seg4)))),
			want: packettest.Error(vip4, cip4, 3, 4, 1300-32, seg4, c0)},
		{name: "gre: too big for an IPv6 client", d: gre, syn: syn(client6, web6), verdict: packet.Send,
			in:   packettest.Error(router4, dip4, 3, 4, 1400, in4(47, append([]byte{0, 0, 0x86, 0xdd}, seg6...))),
			want: packettest.Error(vip6, cip6, 2, 0, 1376, seg6)},
		{name: "ipip: an IPv6 client is not told less than every link carries", d: ipip, syn: syn(client6, web6), verdict: packet.Send,
			in:   packettest.Error(router4, dip4, 3, 4, 1000, in4(41, seg6)),
			want: packettest.Error(vip6, cip6, 2, 0, 1280, seg6)},
		{name: "ipip: no way to the real server", d: ipip, syn: syn(client4, web4), verdict: packet.Send,
			in:   packettest.Error(router4, dip4, 3, 1, 0, in4(4, seg4)),
			want: packettest.Error(vip4, cip4, 3, 1, 0, seg4, c0)},
		{name: "ipip over IPv6: too big for an IPv4 client", d: ipip6, syn: syn(client4, web4), verdict: packet.Send,
			in:   packettest.Error(router6, dip6, 2, 0, 1400, in6(4, seg4)),
			want: packettest.Error(vip4, cip4, 3, 4, 1360, seg4, c0)},
		{name: "ipip over IPv6: no room left", d: ipip6, syn: syn(client6, web6), verdict: packet.Drop, why: packet.PathTooSmall,
			in: packettest.Error(router6, dip6, 2, 0, 1280, in6(41, seg6))},
		{name: "a wrong checksum", d: ipip, syn: syn(client4, web4), verdict: packet.Drop, why: packet.BadICMP,
			in: packettest.Error(router4, dip4, 3, 4, 1300, in4(4, seg4), packettest.WrongSum)},
		{name: "about no flow", d: ipip, syn: syn(client6, web6), verdict: packet.Drop, why: packet.BadICMP,
			in: packettest.Error(router4, dip4, 3, 4, 1300, in4(4, seg4))},
		{name: "about another tunnel than the flow's", d: ipip, syn: syn(client4, web4), verdict: packet.Drop, why: packet.BadICMP,
			in: packettest.Error(router4, dip4, 3, 4, 1300, packettest.IP(dip4, "10.0.0.99", 4, seg4))},
		{name: "about a tunnel from another address", d: ipip, syn: syn(client4, web4), verdict: packet.Drop, why: packet.BadICMP,
			in: packettest.Error(router4, dip4, 3, 4, 1300, packettest.IP("192.0.2.99", rip4, 4, seg4))},
		{name: "about a flow of another mode", d: natDirector, syn: syn(client4, web4), verdict: packet.Drop, why: packet.BadICMP,
			in: packettest.Error(router4, dip4, 3, 4, 1300, in4(4, seg4))},
		{name: "an error about something else is not ours", d: ipip, syn: syn(client4, web4), verdict: packet.Return,
			in: packettest.Error(router4, dip4, 3, 4, 1300, packettest.TCP(dip4+":1", rip4+":2"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.d.start(t)
			handle(t, b, tt.syn, 0)
			got := handle(t, b, tt.in, time.Second)
			if got.verdict != tt.verdict || got.reason != tt.why {
				t.Fatalf("%v, %v; want %v, %v", got.verdict, got.reason, tt.verdict, tt.why)
			}
			sum := b.Stats().Services[0].Traffic
			if tt.want == nil {
				if sum.ReplyPackets != 0 {
					t.Errorf("%d packets counted as replies", sum.ReplyPackets)
				}
				return
			}
			diff(t, "error", sameIdent(tt.want, got.bytes), got.bytes)
			if sum.ReplyPackets != 1 {
				t.Errorf("%d packets counted as replies, want the error", sum.ReplyPackets)
			}
		})
	}

	t.Run("what is known of the path counts if it is less", func(t *testing.T) {
		b := ipip.start(t)
		b.SetPathMTU(netip.MustParseAddr(rip4), 1200)
		handle(t, b, syn(client4, web4), 0)
		got := handle(t, b, packettest.Error(router4, dip4, 3, 4, 1300, in4(4, seg4)), 0)
		want := packettest.Error(vip4, cip4, 3, 4, 1180, seg4, c0)
		diff(t, "error", sameIdent(want, got.bytes), got.bytes)
	})
}

// TestScheduleICMP: an error about an unknown flow reaches a real server, which
// then has that flow.
func TestScheduleICMP(t *testing.T) {
	policy := lb.DefaultPolicy()
	policy.ScheduleICMP = true
	two := []string{rip4 + ":8081", mapped4}
	aboutTCP := packettest.Error("198.51.100.1", vip4, 3, 4, 1300, packettest.TCP(web4, client4))
	aboutUDP := packettest.Error("198.51.100.1", vip4, 3, 3, 0, packettest.UDP(web4, client4, packettest.NoSum))

	t.Run("TCP: the flow stays where the error went", func(t *testing.T) {
		b := director{mode: "nat", realServers: two, policy: &policy}.start(t)
		got := handle(t, b, aboutTCP, 0)
		if got.verdict != packet.Send || got.reason != packet.OK {
			t.Fatalf("%v, %v", got.verdict, got.reason)
		}
		to := packettest.Parsed(t, got.bytes).Tuple // reversed: from the client to the real server
		if f := flowsOf(b, 0); f != "40000>10.0.0.3 none 2" {
			t.Fatalf("flows %s", f)
		}
		for i := range 4 {
			got := handle(t, b, packettest.TCP(client4, web4), time.Second)
			if tuple := packettest.Parsed(t, got.bytes).Tuple; got.verdict != packet.Send || tuple != to {
				t.Errorf("packet %d: %v to port %d, want %d", i, got.verdict, tuple.DstPort, to.DstPort)
			}
		}
	})
	t.Run("TCP: without a packet it ends within 3 seconds", func(t *testing.T) {
		b := director{mode: "nat", realServers: two, policy: &policy}.start(t)
		handle(t, b, aboutTCP, 0)
		if got := handle(t, b, packettest.TCP(client4, web4), 3*time.Second); got.verdict != packet.Pass {
			t.Errorf("%v, %v", got.verdict, got.reason)
		}
	})
	t.Run("UDP: 3 seconds, until the client sends", func(t *testing.T) {
		b := director{mode: "nat", realServers: []string{mapped4}, policy: &policy}.start(t)
		handle(t, b, aboutUDP, 0)
		if got := handle(t, b, packettest.UDP(mapped4, client4), 4*time.Second); got.verdict != packet.Return {
			t.Errorf("a reply after 4 seconds: %v, want no flow", got.verdict)
		}
		handle(t, b, aboutUDP, 5*time.Second)
		handle(t, b, packettest.UDP(client4, web4), 6*time.Second)
		if got := handle(t, b, packettest.UDP(mapped4, client4), 250*time.Second); got.verdict != packet.Send {
			t.Errorf("a reply long after the client sent: %v", got.verdict)
		}
	})
	t.Run("without a real server it is dropped, not answered", func(t *testing.T) {
		b := director{policy: &policy}.start(t)
		if got := handle(t, b, aboutTCP, 0); got.verdict != packet.Drop || got.reason != packet.NoRealServer {
			t.Errorf("%v, %v", got.verdict, got.reason)
		}
	})
	t.Run("about a real server's request it is nothing", func(t *testing.T) {
		b := director{mode: "nat", realServers: []string{mapped4}, policy: &policy}.start(t)
		if got := handle(t, b, packettest.Error("10.0.0.1", cip4, 3, 1, 0, packettest.TCP(client4, mapped4)), 0); got.verdict != packet.Return {
			t.Errorf("%v, %v", got.verdict, got.reason)
		}
	})
}

func TestAnswerUnknownReplies(t *testing.T) {
	policy := lb.DefaultPolicy()
	policy.AnswerUnknownReplies = true
	start := func(mode string) *lb.Balancer {
		c := director{mode: mode, realServers: []string{mapped4, mapped6}, policy: &policy}.config(t)
		for i := range c.Services[0].RealServers {
			rs := &c.Services[0].RealServers[i]
			rs.AnswerFrom = netip.MustParseAddr(dip4)
			if rs.Address.Addr().Is6() {
				rs.AnswerFrom = netip.MustParseAddr(dip6)
			}
		}
		return startWith(t, c, lb.Options{Flows: 1000})
	}
	c0 := packettest.TOS(0xc0)
	data4, data6 := packettest.TCP(mapped4, client4, packettest.Pad(10)), packettest.UDP(mapped6, client6, packettest.Pad(10))
	tests := []struct {
		name string
		mode string
		in   []byte
		want []byte // nil: goes back
	}{
		{name: "TCP", mode: "nat", in: data4, want: packettest.Error(dip4, rip4, 3, 3, 0, data4, c0)},
		{name: "UDP over IPv6", mode: "nat", in: data6, want: packettest.Error(dip6, rip6, 1, 4, 0, data6)},
		{name: "a SYN to the VIP", mode: "nat", in: packettest.TCP(mapped4, web4, packettest.SYN),
			want: packettest.Error(vip4, rip4, 3, 3, 0, packettest.TCP(mapped4, web4, packettest.SYN), c0)},
		{name: "data to a port of the VIP that has no service", mode: "nat", in: packettest.TCP(mapped4, vip4+":81"),
			want: packettest.Error(vip4, rip4, 3, 3, 0, packettest.TCP(mapped4, vip4+":81"), c0)},
		{name: "not a reset", mode: "nat", in: packettest.TCP(mapped4, client4, packettest.RST)},
		{name: "not an ABORT", mode: "nat", in: packettest.SCTP(mapped4, client4, 6)},
		{name: "not from another port", mode: "nat", in: packettest.TCP(rip4+":8081", client4)},
		{name: "not an ICMP error", mode: "nat", in: packettest.Error(rip4, cip4, 3, 3, 0, packettest.UDP(client4, mapped4))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := handle(t, start(tt.mode), tt.in, 0)
			if tt.want == nil {
				if got.verdict != packet.Return {
					t.Errorf("%v, %v; want it back", got.verdict, got.reason)
				}
				return
			}
			if got.verdict != packet.Send || got.reason != packet.NoFlow {
				t.Fatalf("%v, %v", got.verdict, got.reason)
			}
			diff(t, "answer", sameIdent(tt.want, got.bytes), got.bytes)
		})
	}
	t.Run("an update of the service takes it back", func(t *testing.T) {
		c := director{mode: "nat", realServers: []string{mapped4}, policy: &policy}.config(t)
		b := startWith(t, c, lb.Options{Flows: 1000})
		c.Services[0].Policy = lb.DefaultPolicy()
		if err := b.UpdateService(c.Services[0]); err != nil {
			t.Fatal(err)
		}
		if got := handle(t, b, data4, 0); got.verdict != packet.Return {
			t.Errorf("%v, %v", got.verdict, got.reason)
		}
	})
}

// TestOnePacketFragments: the fragments of one datagram go to one real server
// also where every datagram is scheduled by itself.
func TestOnePacketFragments(t *testing.T) {
	policy := lb.DefaultPolicy()
	policy.OnePacket = true
	b := director{mode: "nat", realServers: []string{rip4 + ":8081", mapped4}, policy: &policy}.start(t)
	first := map[uint16]bool{}
	for range 4 {
		parts := packettest.Fragments(packettest.UDP(client4, web4, packettest.Pad(100)), 48)
		head := packettest.Parsed(t, parts[0])
		b.Queue(0).Handle(head, 0)
		first[packettest.Parsed(t, head.Bytes()).Tuple.DstPort] = true
		for i, part := range parts[1:] {
			p := packettest.Parsed(t, part)
			p.SetPorts(40000, 80)
			if v, why := b.Queue(0).Handle(p, 0); v != packet.Send {
				t.Errorf("part %d: %v, %v", i+1, v, why)
			}
		}
	}
	if len(first) != 2 {
		t.Errorf("datagrams went to %d real servers, want both in turn", len(first))
	}
}
