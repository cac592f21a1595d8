package sched_test

import (
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/packet"
)

// TestWeightsAreRespected: with many clients and long flows each real server
// gets flows in the ratio of its weight, and none at weight 0.
func TestWeightsAreRespected(t *testing.T) {
	const flows = 10_000
	weights := map[string]float64{"A": 1, "B": 2, "C": 0, "D": 5, "E": 2}
	for _, tt := range []struct {
		scheduler string
		flags     []string
		off       float64 // how far from its share each may be
	}{
		{"wrr", nil, 0.001},
		{"wlc", nil, 0.001},
		{"sed", nil, 0.001},
		{"nq", nil, 0.001},
		{"maglev", nil, 0.05},
		{"mh", []string{"mh-port"}, 0.05},
		// The one of weight 0 has a bucket of 11, and IPVS's way to another one
		// leads from all its buckets to much the same real servers.
		{"sh", []string{"sh-port", "sh-fallback"}, 0.2},
		{"twos", nil, 0.1},
	} {
		t.Run(tt.scheduler, func(t *testing.T) {
			b := newBench(t, tt.scheduler, sched.Options{Flags: tt.flags})
			b.apply("A=1 B=2 C=0 D=5 E=2")
			got := b.picks(flows)
			for name, w := range weights {
				n := float64(strings.Count(got, name))
				if want := flows * w / 10; math.Abs(n-want) > want*tt.off+1 {
					t.Errorf("%s of weight %v of 10 got %v flows, want %v", name, w, n, want)
				}
			}
		})
	}
}

// TestBoundedLoad: however few clients there are, no real server gets a flow
// over its bound; and the choice is the hash's until then.
func TestBoundedLoad(t *testing.T) {
	weights := map[byte]float64{'A': 1, 'B': 1, 'C': 4, 'D': 2}
	const sum = 8
	const all = "A=1 B=1 C=4 D=2"
	unbounded := newBench(t, "maglev", sched.Options{Maglev: sched.Maglev{Fields: []string{"src"}}})
	unbounded.apply(all)
	home := unbounded.picks(1)[0]
	b := newBench(t, "maglev", sched.Options{Maglev: sched.Maglev{Fields: []string{"src"}, MaxLoad: 150}})
	b.apply(all)
	had := map[byte]float64{}
	for i := range 2000 {
		got := b.picks(1)[0]
		bound := math.Ceil(1.5 * float64(i+1) * weights[got] / sum)
		if had[got]++; had[got] > bound {
			t.Fatalf("flow %d makes %v of %c, want at most %v", i+1, had[got], got, bound)
		}
		if homeBound := math.Ceil(1.5 * float64(i+1) * weights[home] / sum); got != home && had[home] < homeBound {
			t.Fatalf("flow %d goes to %c while its home %c has %v of %v", i+1, got, home, had[home], homeBound)
		}
		b.now += time.Millisecond / 7 // some are counted, some assumed
	}
}

// TestHashesDisturbFew: of the clients of 49 real servers few move when the
// fiftieth goes, and with mh none when it is drained.
func TestHashesDisturbFew(t *testing.T) {
	const clients = 20_000
	set := servers(t, 50, one)
	gone := set[20]
	without := slices.Delete(slices.Clone(set), 20, 21)
	drained := *gone
	drained.Weight = 0
	for _, tt := range []struct {
		name  string
		o     sched.Options
		set   []*lb.RealServer
		moved int
	}{
		{"maglev", sched.Options{}, without, clients / 100},
		{"mh", sched.Options{Flags: []string{"mh-port"}}, without, clients / 30},
		{"mh", sched.Options{Flags: []string{"mh-port", "mh-fallback"}}, slices.Concat(set[:20], []*lb.RealServer{&drained}, set[21:]), 0},
	} {
		newScheduler := build(t, tt.name, tt.o)
		before := newScheduler(set, nil)
		after := newScheduler(tt.set, before)
		moved := 0
		for i := range clients {
			tuple := client(i)
			was, is := before.Pick(&tuple, 0), after.Pick(&tuple, 0)
			if is == nil || is.Weight == 0 {
				t.Fatalf("%s: client %d goes nowhere", tt.name, i)
			}
			if was != gone && is != was {
				moved++
			}
		}
		if moved > tt.moved {
			t.Errorf("%s: %d of %d clients moved, want at most %d", tt.name, moved, clients, tt.moved)
		}
	}
}

// TestRace: queues pick while configurations come and go, for each scheduler.
// A real server that one configuration does not have is never picked from it.
func TestRace(t *testing.T) {
	sets := [][]*lb.RealServer{
		servers(t, 7, one),
		servers(t, 5, func(i int) int { return i }),
		servers(t, 6, func(int) int { return 0 }),
	}
	options := variants()
	for _, name := range sched.Names() {
		options[name+" slow"] = sched.Options{SlowStart: time.Millisecond}
	}
	for name, o := range options {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newScheduler := build(t, name, o)
			s := newScheduler(sets[0], nil)
			for round := range 30 {
				set := sets[round%len(sets)]
				next := make(chan lb.Scheduler, 1)
				var wg sync.WaitGroup
				wg.Go(func() { next <- newScheduler(sets[(round+1)%len(sets)], s) })
				for worker := range 2 {
					wg.Go(func() {
						var tuple packet.Tuple
						for i := range 100 {
							tuple = client(worker*100 + i)
							rs := s.Pick(&tuple, time.Duration(round)*time.Millisecond)
							if rs != nil && (rs.Weight == 0 || !slices.Contains(set, rs)) {
								t.Errorf("picked %v of weight %d", rs.Endpoint, rs.Weight)
							}
						}
					})
				}
				wg.Wait()
				s = <-next
			}
		})
	}
}
