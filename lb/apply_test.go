package lb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// firstUsable is a scheduler that always picks the head of the list.
type firstUsable struct{ set []*RealServer }

func (s firstUsable) Pick(*packet.Tuple, time.Duration) *RealServer {
	for _, rs := range s.set {
		if rs.Weight > 0 {
			return rs
		}
	}
	return nil
}

func newFirstUsable(set []*RealServer, _ Scheduler) Scheduler { return firstUsable{set} }

// webConfig is one service over the real servers with the names' addresses, as
// "A=1 B=0*": the last byte, the weight, and a star for another mode.
func webConfig(servers string) Config {
	s := ServiceConfig{
		Name:       "web",
		Listens:    []Listen{{VIP: netip.MustParseAddr("203.0.113.10"), FirstPort: 80, Proto: packet.UDP}},
		Scheduler:  newFirstUsable,
		OnNoServer: AnswerDrop,
	}
	for f := range strings.FieldsSeq(servers) {
		rs := RealServerConfig{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, f[0]}), 80),
			Weight:  int(f[2] - '0'),
			Mode:    fakeMode{locals: 60_000},
		}
		if strings.HasSuffix(f, "*") {
			rs.Mode = fakeMode{direct: true}
		}
		s.RealServers = append(s.RealServers, rs)
	}
	return Config{Services: []ServiceConfig{s}}
}

func newTestBalancer(tb testing.TB, o Options) *Balancer {
	tb.Helper()
	b, err := New(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(b.Close)
	return b
}

func (b *Balancer) mustApply(tb testing.TB, c Config) {
	tb.Helper()
	if err := b.Apply(c); err != nil {
		tb.Fatal(err)
	}
}

// send has the client's port send a datagram to the service.
func (b *Balancer) send(tb testing.TB, queue int, port uint16, now time.Duration) packet.Verdict {
	tb.Helper()
	src := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), port).String()
	v, _ := b.Queue(queue).Handle(packettest.Parsed(tb, packettest.UDP(src, "203.0.113.10:80")), now)
	return v
}

// describe writes the real servers of the only service in list order, with
// their packets and flows.
func (b *Balancer) describe() string {
	var s strings.Builder
	for _, rs := range b.Stats().Services[0].RealServers {
		fmt.Fprintf(&s, "%c:%dp%df", rs.Endpoint.Addr[3], rs.RequestPackets, rs.InactiveFlows)
		if rs.Removed {
			s.WriteString("-removed")
		}
		s.WriteByte(' ')
	}
	return strings.TrimSpace(s.String())
}

func TestApply(t *testing.T) {
	type step struct {
		config string
		at     time.Duration
		port   uint16 // of the client that sends a datagram then
		want   string
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"new real servers go to the head one by one", []step{
			{"A=1 B=1", 0, 1, "B:1p1f A:0p0f"},
			{"A=1 B=1 C=1 D=1", 0, 2, "D:1p1f C:0p0f B:1p1f A:0p0f"},
		}},
		{"those that stay keep their place whatever the order", []step{
			{"A=1 B=1 C=1", 0, 1, "C:1p1f B:0p0f A:0p0f"},
			{"C=1 D=1 A=1", 0, 2, "D:1p1f C:1p1f A:0p0f"},
		}},
		{"counters and flows survive a changed weight", []step{
			{"A=1 B=1", 0, 1, "B:1p1f A:0p0f"},
			{"A=1 B=0", 0, 1, "B:2p1f A:0p0f"},
			{"A=1 B=0", 0, 2, "B:2p1f A:1p1f"},
		}},
		{"flows of a removed real server go on", []step{
			{"A=1 B=1", 0, 1, "B:1p1f A:0p0f"},
			{"A=1", 0, 1, "A:0p0f B:2p1f-removed"},
			{"A=1", 0, 2, "A:1p1f B:2p1f-removed"},
			{"A=1", 200 * time.Second, 1, "A:1p1f B:3p1f-removed"},
			{"A=1", 600 * time.Second, 1, "A:2p2f"}, // the flow has ended; the client is scheduled anew
		}},
		{"a real server that comes back has its flows and counters", []step{
			{"A=1 B=1", 0, 1, "B:1p1f A:0p0f"},
			{"A=1", 0, 2, "A:1p1f B:1p1f-removed"},
			{"A=1 B=1", 0, 1, "B:2p1f A:1p1f"},
		}},
		{"another mode is for new flows only", []step{
			{"A=1", 0, 1, "A:1p1f"},
			{"A=1*", 0, 1, "A:2p1f"},
			{"A=1*", 0, 2, "A:3p2f"},
			{"A=1", 0, 3, "A:4p3f"},
			{"B=1", 0, 2, "B:0p0f A:5p3f-removed"},
		}},
		{"a service without real servers has its flows", []step{
			{"A=1", 0, 1, "A:1p1f"},
			{"", 0, 1, "A:2p1f-removed"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newTestBalancer(t, Options{Flows: 1000})
			for i, s := range tt.steps {
				b.mustApply(t, webConfig(s.config))
				b.send(t, 0, s.port, s.at)
				if got := b.describe(); got != s.want {
					t.Errorf("step %d: %s, want %s", i, got, s.want)
				}
			}
		})
	}
}

func TestTrafficOfAServiceNeverFalls(t *testing.T) {
	b := newTestBalancer(t, Options{Flows: 1000})
	want := uint64(0)
	for i, servers := range []string{"A=1", "B=1", "A=1*", "", "A=1 B=1"} {
		b.mustApply(t, webConfig(servers))
		now := time.Duration(i) * time.Hour
		if b.send(t, 0, 1, now) == packet.Send {
			want++
		}
		b.table.sweepAll(tickOf(now))
		if got := b.Stats().Services[0].RequestPackets; got != want {
			t.Errorf("step %d: %d packets, want %d", i, got, want)
		}
	}
}

func TestApplyRefusesWhole(t *testing.T) {
	b := newTestBalancer(t, Options{Flows: 1000})
	b.mustApply(t, webConfig("A=1"))
	bad := webConfig("B=1 B=1")
	bad.Services = append(bad.Services, webConfig("C=1").Services...)
	bad.Services[1].RealServers[0].Mode = nil
	bad.Services[1].Listens[0].LastPort = 70
	err := b.Apply(bad)
	if err == nil {
		t.Fatal("a bad configuration was taken")
	}
	for _, want := range []string{
		`services[0] "web": real server 10.0.0.66:80: given twice`,
		`services[1] "web": the name must be set and be its own`,
		`services[1] "web": listen 203.0.113.10:80/udp: the port range runs backwards`,
		`services[1] "web": real server 10.0.0.67:80: no mode`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %s:\n%v", want, err)
		}
	}
	if b.send(t, 0, 1, 0); b.describe() != "A:1p1f" {
		t.Errorf("after a refused configuration: %s", b.describe())
	}
}

func TestOneListenBelongsToOneService(t *testing.T) {
	c := webConfig("A=1")
	other := webConfig("A=1").Services[0]
	other.Name = "other"
	other.Listens[0].FirstPort, other.Listens[0].LastPort = 70, 90
	c.Services = append(c.Services, other)
	err := newTestBalancer(t, Options{Flows: 10}).Apply(c)
	if want := `services[1] "other": listen 203.0.113.10:70-90/udp: port 80 belongs to service "web" too`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestIDsAreRecycled: a hundred reloads that change everything need no more ids
// than two do, once the flows are gone.
func TestIDsAreRecycled(t *testing.T) {
	b := newTestBalancer(t, Options{Flows: 1000})
	for i := range 100 {
		now := time.Duration(i) * time.Hour
		servers := "A=1 B=1 C=1"
		if i%2 == 1 {
			servers = "D=1 E=1 F=1"
		}
		b.mustApply(t, webConfig(servers))
		b.send(t, 0, uint16(i), now)
		b.table.sweepAll(tickOf(now))
	}
	if n := len(*b.servers.byID.Load()); n > 9 {
		t.Errorf("%d ids in use", n)
	}
}

func TestFreedRecordTakesNoFlow(t *testing.T) {
	r := new(load)
	if !r.acquire() || r.free() {
		t.Error("a record was freed that has a flow")
	}
	r.release()
	if !r.free() {
		t.Error("a record without flows was not freed")
	}
	for range 2 {
		if r.acquire() {
			t.Error("a freed record took a flow")
		}
		if !r.free() {
			t.Error("its other mode's record was not freed")
		}
	}
}

// TestReloadUnderTraffic reloads while several queues carry packets and flows
// end. Every packet must find a real server that exists; at the end nothing may
// be left of anything.
func TestReloadUnderTraffic(t *testing.T) {
	const queues = 4
	b := newTestBalancer(t, Options{Queues: queues, Flows: 400, Emit: func(*packet.Packet) bool { return true }})
	configs := []Config{webConfig("A=1 B=1"), webConfig("C=1 B=1*"), webConfig("A=1* D=1"), webConfig("E=1"), {}}
	b.mustApply(t, configs[0])
	done := make(chan struct{})
	var control sync.WaitGroup
	control.Go(func() {
		rnd := rand.New(rand.NewPCG(1, 1))
		for {
			select {
			case <-done:
				return
			default:
				c := configs[rnd.IntN(len(configs))]
				for i := range c.Services {
					c.Services[i].Policy = Policy{
						Removed: Removed(rnd.IntN(int(numRemoved))), Drain: time.Duration(rnd.IntN(2)) * time.Second,
						OnePacket: rnd.IntN(4) == 0, ResetExpired: rnd.IntN(2) == 0,
					}
				}
				b.mustApply(t, c)
				b.SetPathMTU(netip.MustParseAddr("10.0.0.65"), 1400+rnd.IntN(100))
				b.Stats()
			}
		}
	})
	var traffic sync.WaitGroup
	for q := range queues {
		traffic.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(q), 2))
			for i := range 5000 {
				now := time.Duration(i) * 100 * time.Millisecond
				v := b.send(t, q, uint16(1000+rnd.IntN(500)), now)
				if v != packet.Send && v != packet.Drop && v != packet.Return && v != packet.Pass { // the last two without a service
					t.Errorf("verdict %v", v)
				}
				if i%16 == 0 && q == 0 {
					b.Tick(now)
					for range b.Flows(now) {
					}
				}
			}
		})
	}
	traffic.Wait()
	close(done)
	control.Wait()
	b.table.sweepAll(1 << 31)
	b.mustApply(t, Config{})
	b.mustApply(t, Config{})
	if len(b.accounts) != 0 {
		t.Errorf("%d services are remembered", len(b.accounts))
	}
	if n := len(*b.servers.byID.Load()); n > 100 || len(b.freeIDs) != n {
		t.Errorf("%d ids, %d of them free", n, len(b.freeIDs))
	}
}
