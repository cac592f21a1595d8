package lb_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/packet"
)

// wide has n services of two real servers each, and before them one that has a
// thousand.
func wide(tb testing.TB, n int, scheduler string) (c lb.Config) {
	tb.Helper()
	mode := mustMode(tb, "dr", rip4)
	add := func(vip netip.Addr, servers int) {
		s := lb.ServiceConfig{Name: vip.String(), Listens: []lb.Listen{{VIP: vip, FirstPort: 80, Proto: packet.TCP}}}
		var err error
		if s.Scheduler, err = sched.New(scheduler, sched.Options{}); err != nil {
			tb.Fatal(err)
		}
		for i := range servers {
			a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			s.RealServers = append(s.RealServers, lb.RealServerConfig{Address: netip.AddrPortFrom(a, 0), Weight: 1 + i%3, Mode: mode})
		}
		c.Services = append(c.Services, s)
	}
	add(netip.MustParseAddr(vip4), 1000)
	for i := range n {
		add(netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), 2)
	}
	return c
}

// weigh changes one weight of the service with a thousand real servers and
// returns how long it took until the next flow is scheduled by it.
func weigh(tb testing.TB, b *lb.Balancer, s *lb.ServiceConfig, i int) time.Duration {
	s.RealServers[i%1000].Weight = 1 + (s.RealServers[i%1000].Weight+i)%100
	start := time.Now()
	if err := b.UpdateService(*s); err != nil {
		tb.Fatal(err)
	}
	return time.Since(start)
}

// TestAChangedWeightCostsNoMoreForOtherServices changes one weight of a
// thousand, alone and beside ten thousand services, in turn. What it costs in
// milliseconds is BenchmarkUpdateService's to tell.
func TestAChangedWeightCostsNoMoreForOtherServices(t *testing.T) {
	const rounds, most = 20, 10
	for _, scheduler := range []string{"wlc", "wrr"} {
		t.Run(scheduler, func(t *testing.T) {
			alone, among := wide(t, 0, scheduler), wide(t, 10_000, scheduler)
			small, large := startWith(t, alone, lb.Options{Flows: 1000}), startWith(t, among, lb.Options{Flows: 1000})
			quick, slow := time.Hour, time.Hour
			for i := range rounds {
				quick = min(quick, weigh(t, small, &alone.Services[0], i))
				slow = min(slow, weigh(t, large, &among.Services[0], i))
			}
			if got, want := large.Stats().Services[0].RealServers[999-rounds+1].Weight, among.Services[0].RealServers[rounds-1].Weight; got != want {
				t.Errorf("weight %d, want %d", got, want)
			}
			if slow > most*quick {
				t.Errorf("%v beside ten thousand services, %v alone: the cost grows with the others", slow, quick)
			}
		})
	}
}

// BenchmarkUpdateService changes one of a thousand weights.
func BenchmarkUpdateService(b *testing.B) {
	for _, scheduler := range []string{"wlc", "wrr", "sh", "mh", "maglev"} {
		for _, services := range []int{1, 10_001} {
			if services > 1 && scheduler == "maglev" {
				continue // its tables for ten thousand take half a minute to build
			}
			b.Run(fmt.Sprintf("%s/services=%d", scheduler, services), func(b *testing.B) {
				c := wide(b, services-1, scheduler)
				balancer := startWith(b, c, lb.Options{Flows: 1000})
				i := 0
				for b.Loop() {
					weigh(b, balancer, &c.Services[0], i)
					i++
				}
			})
		}
	}
}

// BenchmarkApply replaces the configuration of ten thousand services.
func BenchmarkApply(b *testing.B) {
	c := wide(b, 10_000, "wlc")
	balancer := startWith(b, c, lb.Options{Flows: 1000})
	for b.Loop() {
		if err := balancer.Apply(c); err != nil {
			b.Fatal(err)
		}
	}
}
