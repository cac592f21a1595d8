package sched_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/packet"
)

// servers are n real servers with the weights that a service gives out, as a
// Balancer makes them.
func servers(tb testing.TB, n int, weight func(i int) int) []*lb.RealServer {
	tb.Helper()
	b := newBench(tb, "rr", sched.Options{})
	var set []*lb.RealServer
	build := b.build
	b.build = func(s []*lb.RealServer, before lb.Scheduler) lb.Scheduler {
		set = s
		return build(s, before)
	}
	s := b.service()
	for i := range n {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24|uint32(i+1))
		b.add(&s, netip.AddrPortFrom(netip.AddrFrom4(a), 80), weight(i))
	}
	if err := b.b.Apply(lb.Config{Services: []lb.ServiceConfig{s}}); err != nil {
		tb.Fatal(err)
	}
	return set
}

func one(int) int { return 1 }

// client is the tuple of the i-th client.
func client(i int) packet.Tuple {
	t := packet.Tuple{
		Dst: packet.Addr{203, 0, 113, 10}, DstPort: 80, SrcPort: uint16(i),
		Proto: packet.TCP, Family: packet.IPv4,
	}
	binary.BigEndian.PutUint32(t.Src[:], 100<<24|uint32(i)*0x9e3779b1>>8)
	return t
}

// variants are the schedulers with the options that change what a Pick costs.
func variants() map[string]sched.Options {
	all := map[string]sched.Options{}
	for _, name := range sched.Names() {
		all[name] = sched.Options{}
	}
	all["maglev bounded"] = sched.Options{Maglev: sched.Maglev{MaxLoad: 125}}
	return all
}

func build(tb testing.TB, name string, o sched.Options) lb.NewScheduler {
	tb.Helper()
	var first string
	if _, err := fmt.Sscan(name, &first); err != nil {
		tb.Fatal(err)
	}
	b, err := sched.New(first, o)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestPickAllocatesNothing(t *testing.T) {
	set := servers(t, 100, one)
	for name, o := range variants() {
		s := build(t, name, o)(set, nil)
		i := 0
		tuple := client(0)
		s.Pick(&tuple, 0) // lblc and lblcr remember a new VIP
		if n := testing.AllocsPerRun(1000, func() {
			i++
			tuple = client(i)
			s.Pick(&tuple, 0)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkPick: the choice among 1000 real servers.
func BenchmarkPick(b *testing.B) {
	set := servers(b, 1000, func(i int) int { return i%5 + 1 })
	for name, o := range variants() {
		b.Run(name, func(b *testing.B) {
			s := build(b, name, o)(set, nil)
			var tuple packet.Tuple
			for i := 0; b.Loop(); i++ {
				tuple = client(i)
				s.Pick(&tuple, 0)
			}
		})
	}
}

// BenchmarkBuild: a scheduler over 1000 real servers, from nothing.
func BenchmarkBuild(b *testing.B) {
	sets := map[string][]*lb.RealServer{
		"equal":   servers(b, 1000, one),
		"1 to 5":  servers(b, 1000, func(i int) int { return i%5 + 1 }),
		"extreme": servers(b, 1000, func(i int) int { return 1 + i/999*65534 }),
	}
	for _, name := range sched.Names() {
		for weights, set := range sets {
			b.Run(name+"/"+weights, func(b *testing.B) {
				newScheduler := build(b, name, sched.Options{})
				for b.Loop() {
					newScheduler(set, nil)
				}
			})
		}
	}
}
