package sched_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/lb/sched"
)

// TestThresholds: every scheduler passes over a real server that has as many
// flows as it may have, refuses clients when all have, and takes them again
// when a bound is raised.
func TestThresholds(t *testing.T) {
	full := map[byte]int{'A': 3, 'B': 4, 'D': 2}
	for _, tt := range []struct {
		scheduler string
		flags     []string
		want      map[byte]int // flows of each of 200 clients; nil: full
	}{
		{scheduler: "dh", want: map[byte]int{'B': 4}},
		{scheduler: "fo"},
		{scheduler: "lblc", want: map[byte]int{'A': 195, 'B': 3, 'D': 2}}, // as in IPVS, what it remembers may be full
		{scheduler: "lblcr"},
		{scheduler: "lc"},
		{scheduler: "maglev"},
		{scheduler: "mh", flags: []string{"mh-port"}},
		{scheduler: "mh", flags: []string{"mh-port", "mh-fallback"}},
		{scheduler: "nq"},
		{scheduler: "ovf", want: map[byte]int{'A': 2, 'B': 3, 'D': 2}}, // its own bound is lower
		{scheduler: "rr"},
		{scheduler: "sed"},
		{scheduler: "sh", flags: []string{"sh-port"}},
		{scheduler: "sh", flags: []string{"sh-port", "sh-fallback"}},
		{scheduler: "twos"},
		{scheduler: "wlc"},
		{scheduler: "wrr"},
	} {
		t.Run(strings.Join(append([]string{tt.scheduler}, tt.flags...), " "), func(t *testing.T) {
			b := newBench(t, tt.scheduler, sched.Options{Flags: tt.flags})
			b.apply("A=1<3 B=2<4 C=0<1 D=1<2")
			picked := b.picks(200)
			got := map[byte]int{}
			for _, server := range []byte(strings.ReplaceAll(picked, "-", "")) {
				got[server]++
			}
			want := tt.want
			if want == nil {
				want = full
			}
			if !maps.Equal(got, want) {
				t.Errorf("flows %v, want %v: %s", got, want, picked)
			}
			b.apply("A=9<5 B=2<6 C=0<1 D=1<3") // three quarters of each are more than there are
			if again := b.picks(50); strings.Trim(again, "-") == "" {
				t.Error("every bound was raised by enough, and all clients are refused")
			}
		})
	}
}

// TestFallbackAtThresholds: without its fallback flag a hash refuses the
// clients of a full real server while others have room.
func TestFallbackAtThresholds(t *testing.T) {
	for _, name := range []string{"sh", "mh"} {
		b := newBench(t, name, sched.Options{})
		b.apply("A=1<1 B=1<1")
		if got := b.picks(3); strings.Trim(got, "-") != got[:1] || got[1:] != "--" {
			t.Errorf("%s: one client's flows went to %s", name, got)
		}
		b = newBench(t, name, sched.Options{Flags: []string{name + "-fallback"}})
		b.apply("A=1<1 B=1<1")
		if got := b.picks(3); got != "AB-" && got != "BA-" {
			t.Errorf("%s with fallback: one client's flows went to %s", name, got)
		}
	}
}
