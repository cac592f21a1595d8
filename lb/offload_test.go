package lb_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// fakeLane is an Offload that remembers.
type fakeLane struct {
	flows       map[packet.Tuple]lb.Offer
	invalidated int
	counted     int // calls of Count
	counts      map[uint32]uint64
	ago         map[packet.Tuple]time.Duration // how long ago a packet was carried
	meanwhile   func()                         // what happens once, while an offer is on its way; nil: nothing
}

func (l *fakeLane) Offer(o *lb.Offer) bool {
	if do := l.meanwhile; do != nil {
		l.meanwhile = nil
		do()
	}
	l.flows[o.Tuple] = *o
	return true
}

func (l *fakeLane) Withdraw(t *packet.Tuple) { delete(l.flows, *t) }

func (l *fakeLane) Seen(t *packet.Tuple) (time.Duration, bool) {
	ago, ok := l.ago[*t]
	return ago, ok
}

func (l *fakeLane) Invalidate() { l.invalidated++; clear(l.flows) }

func (l *fakeLane) Count(account uint32) (packets, bytes uint64) {
	l.counted++
	return l.counts[account], 100 * l.counts[account]
}

const (
	laneClient = "198.51.100.7:40000"
	laneVIP    = "203.0.113.10:80"
	laneRIP    = "10.2.0.11:8080"
)

// startLane starts a balancer that offers flows to a fake lane, with a nat
// service, and opens a TCP flow from laneClient.
func startLane(t *testing.T, change func(*lb.ServiceConfig)) (*lb.Balancer, *fakeLane, lb.Config) {
	t.Helper()
	l := &fakeLane{flows: map[packet.Tuple]lb.Offer{}, counts: map[uint32]uint64{}, ago: map[packet.Tuple]time.Duration{}}
	c := director{mode: "nat", realServers: []string{laneRIP}}.config(t)
	if change != nil {
		change(&c.Services[0])
	}
	b := startWith(t, c, lb.Options{Offload: l})
	handle(t, b, packettest.TCP(laneClient, laneVIP, packettest.SYN), 0)
	handle(t, b, packettest.TCP(laneRIP, laneClient, packettest.SYNACK), 0)
	return b, l, c
}

// talk sends as many segments of the established flow as always make an offer.
func talk(t *testing.T, b *lb.Balancer, now time.Duration) {
	t.Helper()
	for range 64 {
		handle(t, b, packettest.TCP(laneClient, laneVIP), now)
	}
}

func endpoint(s string) packet.Endpoint { return packet.EndpointFrom(netip.MustParseAddrPort(s)) }

func tuple(t *testing.T, pkt []byte) packet.Tuple { return packettest.Parsed(t, pkt).Tuple }

// TestWhatWasNeverOfferedIsNotAskedFor: to ask costs system calls, for each
// real server every two seconds.
func TestWhatWasNeverOfferedIsNotAskedFor(t *testing.T) {
	b, l, _ := startLane(t, nil)
	handle(t, b, packettest.TCP(laneClient, laneVIP), 0)
	before := l.counted
	b.Tick(10 * time.Second)
	b.Stats()
	if l.counted != before {
		t.Errorf("asked %d times before any flow was offered", l.counted-before)
	}
	talk(t, b, 0)
	b.Stats()
	if l.counted == before {
		t.Error("not asked afterwards")
	}
}

func TestAnEstablishedFlowIsOffered(t *testing.T) {
	b, l, _ := startLane(t, nil)
	for range 64 {
		handle(t, b, packettest.TCP(laneClient, laneVIP, packettest.SYN), 0)
	}
	if len(l.flows) != 0 {
		t.Fatalf("before it is established, %d directions were offered", len(l.flows))
	}
	talk(t, b, time.Second)
	request := l.flows[tuple(t, packettest.TCP(laneClient, laneVIP))]
	reply := l.flows[tuple(t, packettest.TCP(laneRIP, laneClient))]
	if len(l.flows) != 2 || request.Rewrite.Dst != endpoint(laneRIP) || reply.Rewrite.Src != endpoint(laneVIP) {
		t.Fatalf("offered %+v, want the request to %s and the reply from %s", l.flows, laneRIP, laneVIP)
	}
	if request.Account == reply.Account {
		t.Error("both directions count on one account")
	}
}

// TestTheNewerOfTwoFlowsHasTheReplies: two ports of a VIP lead to one port of the
// real server, and what it sends back does not tell which was meant.
func TestTheNewerOfTwoFlowsHasTheReplies(t *testing.T) {
	const otherVIP = "203.0.113.10:81"
	b, l, _ := startLane(t, func(s *lb.ServiceConfig) {
		s.Listens = append(s.Listens, lb.Listen{VIP: netip.MustParseAddr("203.0.113.10"), FirstPort: 81, Proto: packet.TCP})
	})
	fromServer := tuple(t, packettest.TCP(laneRIP, laneClient))
	carried := func(when, vip string) {
		t.Helper()
		switch o, ok := l.flows[fromServer]; {
		case vip == "" && ok:
			t.Errorf("%s replies are carried from %v, want none", when, o.Rewrite.Src)
		case vip != "" && (!ok || o.Rewrite.Src != endpoint(vip)):
			t.Errorf("%s replies are carried: %v, from %v; want %s", when, ok, o.Rewrite.Src, vip)
		}
	}
	talk(t, b, time.Second)
	carried("with one flow", laneVIP)
	handle(t, b, packettest.TCP(laneClient, otherVIP, packettest.SYN), 2*time.Second)
	carried("once there is a newer flow", "")
	talk(t, b, 2*time.Second)
	carried("while only the older one is offered", "")
	handle(t, b, packettest.TCP(laneRIP, laneClient, packettest.SYNACK), 3*time.Second)
	for range 64 {
		handle(t, b, packettest.TCP(laneClient, otherVIP), 3*time.Second)
	}
	talk(t, b, 3*time.Second)
	carried("once both were offered", otherVIP)

	handle(t, b, packettest.TCP(laneClient, otherVIP, packettest.RST), 4*time.Second)
	handle(t, b, packettest.TCP(laneRIP, laneClient), 20*time.Second)
	talk(t, b, 20*time.Second)
	carried("once the newer one has ended", laneVIP)
}

func TestAFlowIsTakenBack(t *testing.T) {
	for _, row := range []struct {
		name string
		do   func(t *testing.T, b *lb.Balancer, c lb.Config)
	}{
		{"by the client's FIN", func(t *testing.T, b *lb.Balancer, _ lb.Config) {
			handle(t, b, packettest.TCP(laneClient, laneVIP, packettest.FIN), 2*time.Second)
		}},
		{"by the real server's RST", func(t *testing.T, b *lb.Balancer, _ lb.Config) {
			handle(t, b, packettest.TCP(laneRIP, laneClient, packettest.RST), 2*time.Second)
		}},
		{"by its deadline, when the next packet comes", func(t *testing.T, b *lb.Balancer, _ lb.Config) {
			handle(t, b, packettest.TCP(laneClient, laneVIP), 2*time.Hour)
		}},
		{"by a configuration without its real server", func(t *testing.T, b *lb.Balancer, c lb.Config) {
			c.Services[0].RealServers = c.Services[0].RealServers[1:]
			c.Services[0].Policy.Removed = lb.RemovedKeep
			if err := b.Apply(c); err != nil {
				t.Fatal(err)
			}
		}},
		{"by another policy of its service", func(t *testing.T, b *lb.Balancer, c lb.Config) {
			c.Services[0].Policy.ResetExpired = true
			if err := b.UpdateService(c.Services[0]); err != nil {
				t.Fatal(err)
			}
		}},
		{"by a change of the path's MTU", func(t *testing.T, b *lb.Balancer, c lb.Config) {
			b.SetPathMTU(c.Services[0].RealServers[0].Address.Addr(), 1400)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			b, l, c := startLane(t, nil)
			talk(t, b, time.Second)
			if len(l.flows) != 2 {
				t.Fatalf("%d directions are offered, want 2", len(l.flows))
			}
			row.do(t, b, c)
			if len(l.flows) != 0 {
				t.Errorf("still in the lane: %+v", l.flows)
			}
		})
	}
}

// TestAnOfferThatAChangeOvertakes: what is invalidated while an offer is on its way
// would come back with it, as it was before the change.
func TestAnOfferThatAChangeOvertakes(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, b *lb.Balancer, c lb.Config)
	}{
		{"the real server is removed, and its flows are to be kept from it", func(t *testing.T, b *lb.Balancer, c lb.Config) {
			c.Services[0].RealServers = nil
			if err := b.Apply(c); err != nil {
				t.Fatal(err)
			}
		}},
		{"the service is to reset what is idle for too long", func(t *testing.T, b *lb.Balancer, c lb.Config) {
			c.Services[0].Policy.ResetExpired = true
			if err := b.UpdateService(c.Services[0]); err != nil {
				t.Fatal(err)
			}
		}},
		{"the path carries less", func(_ *testing.T, b *lb.Balancer, _ lb.Config) {
			b.SetPathMTU(netip.MustParseAddrPort(laneRIP).Addr(), 1400)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, l, c := startLane(t, func(s *lb.ServiceConfig) { s.Policy = lb.IPVSPolicy() })
			l.meanwhile = func() { tt.do(t, b, c) }
			for len(l.flows) == 0 && l.meanwhile != nil {
				handle(t, b, packettest.TCP(laneClient, laneVIP), time.Second)
			}
			if len(l.flows) != 0 {
				t.Errorf("%d directions are carried as before", len(l.flows))
			}
		})
	}
}

func TestAnotherWeightTakesNoFlowBack(t *testing.T) {
	b, l, c := startLane(t, nil)
	talk(t, b, time.Second)
	c.Services[0].RealServers[0].Weight = 5
	if err := b.UpdateService(c.Services[0]); err != nil {
		t.Fatal(err)
	}
	c.Services[0].RealServers[0].Weight = 0
	if err := b.Apply(c); err != nil {
		t.Fatal(err)
	}
	if len(l.flows) != 2 {
		t.Errorf("%d directions are left in the lane, want both", len(l.flows))
	}
}

func TestWhatTheLaneCarriesKeepsTheFlowAlive(t *testing.T) {
	const began, lifetime = time.Second, 900 * time.Second
	for _, row := range []struct {
		name  string
		way   []byte // whose last packet the lane carried, or nil
		ago   time.Duration
		lives bool
	}{
		{"a request a minute ago", packettest.TCP(laneClient, laneVIP), time.Minute, true},
		{"a reply a minute ago", packettest.TCP(laneRIP, laneClient), time.Minute, true},
		{"a reply longer ago than a lifetime", packettest.TCP(laneRIP, laneClient), lifetime + time.Second, false},
		{"nothing", nil, 0, false},
	} {
		for _, asks := range []string{"the sweep", "the next packet"} {
			t.Run(row.name+", asked by "+asks, func(t *testing.T) {
				b, l, _ := startLane(t, nil)
				talk(t, b, began)
				if row.way != nil {
					l.ago[tuple(t, row.way)] = row.ago
				}
				due := began + lifetime + time.Second
				switch asks {
				case "the sweep":
					b.SweepAll(due + time.Minute)
				case "the next packet":
					handle(t, b, packettest.TCP(laneClient, laneVIP), due)
				}
				_, offered := l.flows[tuple(t, packettest.TCP(laneClient, laneVIP))]
				if offered != row.lives {
					t.Errorf("the flow lives: %v, want %v", offered, row.lives)
				}
			})
		}
	}
}

func TestAFullTableKeepsTheUDPFlowsThatTheLaneCarries(t *testing.T) {
	const client, flows = "198.51.100.7:5000", 8
	for _, carried := range []bool{true, false} {
		t.Run(fmt.Sprintf("carried: %v", carried), func(t *testing.T) {
			l := &fakeLane{flows: map[packet.Tuple]lb.Offer{}, ago: map[packet.Tuple]time.Duration{}}
			b := startWith(t, director{mode: "nat", realServers: []string{laneRIP}}.config(t), lb.Options{Flows: flows, Offload: l})
			for range 64 {
				handle(t, b, packettest.UDP(client, laneVIP), 0)
			}
			key := tuple(t, packettest.UDP(client, laneVIP))
			if len(l.flows) != 2 {
				t.Fatalf("%d directions are offered, want 2", len(l.flows))
			}
			if carried {
				l.ago[key] = time.Second
			}
			for i := range 10 * flows {
				now := time.Duration(i) * 3 * time.Second
				b.SweepAll(now)
				handle(t, b, packettest.UDP(fmt.Sprintf("198.51.101.%d:%d", i%250, 1+i), laneVIP), now)
			}
			if _, kept := l.flows[key]; kept != carried {
				t.Errorf("the flow is kept: %v, want %v", kept, carried)
			}
			if b.Stats().Flows.Evicted == 0 {
				t.Error("nothing was evicted: this test proves nothing")
			}
		})
	}
}

func TestAFlowThatMayBeResetIsNotOffered(t *testing.T) {
	b, l, _ := startLane(t, func(s *lb.ServiceConfig) { s.Policy.ResetExpired = true })
	talk(t, b, time.Second)
	if len(l.flows) != 0 {
		t.Errorf("offered %+v: nobody would know the sequence numbers of its reset", l.flows)
	}
}

func TestCarriedPacketsCountForTheRealServer(t *testing.T) {
	b, l, _ := startLane(t, nil)
	before := b.Stats().Services[0].RealServers[0].Traffic
	talk(t, b, time.Second)
	talked := b.Stats().Services[0].RealServers[0].Traffic
	request := l.flows[tuple(t, packettest.TCP(laneClient, laneVIP))]
	reply := l.flows[tuple(t, packettest.TCP(laneRIP, laneClient))]
	l.counts[request.Account], l.counts[reply.Account] = 3, 5
	got := b.Stats().Services[0].RealServers[0].Traffic
	want := talked
	want.RequestPackets += 3
	want.RequestBytes += 300
	want.ReplyPackets += 5
	want.ReplyBytes += 500
	if got != want || got == before {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}
