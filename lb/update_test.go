package lb

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// manyServices has n services of the given number of real servers each, all
// picked by turns.
func manyServices(n, servers int) (c Config) {
	for i := range n {
		s := ServiceConfig{
			Name:      fmt.Sprintf("s%d", i),
			Listens:   []Listen{{VIP: netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), FirstPort: 80, Proto: packet.UDP}},
			Scheduler: newTurns,
		}
		for j := range servers {
			s.RealServers = append(s.RealServers, RealServerConfig{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i), byte(j >> 8), byte(j)}), uint16(1+i>>8)),
				Weight:  1,
				Mode:    fakeMode{direct: true},
			})
		}
		c.Services = append(c.Services, s)
	}
	return c
}

// turns is round robin, for tests that ask whether a scheduler was disturbed.
type turns struct {
	set  []*RealServer
	next int
}

func newTurns(set []*RealServer, _ Scheduler) Scheduler { return &turns{set: set} }

func (s *turns) Pick(*packet.Tuple, time.Duration) *RealServer {
	s.next++
	return s.set[(s.next-1)%len(s.set)]
}

func TestUpdateServiceLeavesTheOthersAlone(t *testing.T) {
	b := newTestBalancer(t, Options{Flows: 1000})
	c := manyServices(3, 2)
	b.mustApply(t, c)
	pick := func(service string) string {
		rs := b.state.Load().find(&packet.Tuple{
			Dst: packet.Addr{203, 0, 0, service[1] - '0'}, DstPort: 80, Proto: packet.UDP, Family: packet.IPv4,
		}).pick(&packet.Tuple{Family: packet.IPv4}, 0)
		return fmt.Sprint(rs.Endpoint.AddrPort(), " ", rs.Weight)
	}
	pick("s0")
	pick("s1")
	others := [2]*service{b.byName["s0"], b.byName["s2"]}

	changed := c.Services[1]
	changed.RealServers = append([]RealServerConfig{}, changed.RealServers...)
	changed.RealServers[1].Weight = 7
	if err := b.UpdateService(changed); err != nil {
		t.Fatal(err)
	}
	if now := [2]*service{b.byName["s0"], b.byName["s2"]}; now != others {
		t.Error("another service was built anew")
	}
	for _, want := range []struct{ service, rs string }{
		{"s0", "10.0.0.0:1 1"}, // the second turn
		{"s1", "10.1.0.1:1 7"}, // the first of the new scheduler, with the weight
		{"s2", "10.2.0.1:1 1"},
	} {
		if got := pick(want.service); got != want.rs {
			t.Errorf("%s: %s, want %s", want.service, got, want.rs)
		}
	}
	var weights []int
	for _, s := range b.Stats().Services {
		for _, rs := range s.RealServers {
			weights = append(weights, rs.Weight)
		}
	}
	if fmt.Sprint(weights) != "[1 1 7 1 1 1]" {
		t.Errorf("weights %v", weights)
	}
}

// TestUpdateServiceIsApplyForOne has the same happen to a service by both, and
// compares what becomes of its real servers, flows and counters.
func TestUpdateServiceIsApplyForOne(t *testing.T) {
	steps := []string{"A=1 B=1", "A=1 B=0", "B=1 C=2", "A=3 B=0", "A=1*", "", "A=1 B=1"}
	by := func(change func(*Balancer, Config) error) string {
		b := newTestBalancer(t, Options{Flows: 1000})
		b.mustApply(t, webConfig("A=1"))
		var got strings.Builder
		for i, step := range steps {
			if err := change(b, webConfig(step)); err != nil {
				t.Fatal(err)
			}
			for port := range uint16(3) {
				b.send(t, 0, uint16(i)+port+1, 0)
			}
			fmt.Fprintf(&got, "%s: %s\n", step, b.describe())
		}
		return got.String()
	}
	apply := by((*Balancer).Apply)
	update := by(func(b *Balancer, c Config) error { return b.UpdateService(c.Services[0]) })
	if apply != update {
		t.Errorf("by Apply:\n%s\nby UpdateService:\n%s", apply, update)
	}
}

func TestUpdateServiceRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*ServiceConfig)
		want   string
	}{
		{"a service that there is not", func(s *ServiceConfig) { s.Name = "wev" }, `service "wev": there is none of that name`},
		{"other listens", func(s *ServiceConfig) {
			s.Listens = []Listen{{VIP: s.Listens[0].VIP, FirstPort: 81, Proto: packet.UDP}}
		}, `service "web": other listens`},
		{"what Apply refuses", func(s *ServiceConfig) { s.Scheduler, s.RealServers[0].Weight = nil, -1 }, "service \"web\": no scheduler\nservice \"web\": real server 10.0.0.65:80: weight -1 is below 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newTestBalancer(t, Options{Flows: 10})
			b.mustApply(t, webConfig("A=1"))
			before := b.state.Load().services[0].Load()
			s := webConfig("A=1").Services[0]
			tt.change(&s)
			if err := b.UpdateService(s); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if b.state.Load().services[0].Load() != before {
				t.Error("something was changed")
			}
		})
	}
}
