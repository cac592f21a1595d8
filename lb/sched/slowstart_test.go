package sched_test

import (
	"strings"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb/sched"
)

// TestSlowStart: flows that each scheduler gives to a real server C that joins
// A and B, after a part of the slow start. Without one wlc would give C
// every flow until it has as many as the others.
func TestSlowStart(t *testing.T) {
	const before, each = 600, 300
	tests := []struct {
		scheduler    string        // and its flags
		at           time.Duration // of 10 s
		least, most  int           // of each flows that C gets
		withoutLeast int           // that it gets without slow start
	}{
		// While C returns it gets a part of its turns, a third of all.
		{"rr", time.Second, 1, 20, 100},
		{"rr", 5 * time.Second, 30, 70, 100},
		{"rr", 10 * time.Second, 100, 100, 100},
		{"wrr", 5 * time.Second, 30, 70, 100},
		{"maglev", 5 * time.Second, 30, 70, 80},
		{"sh sh-port", 5 * time.Second, 10, 70, 80},
		{"mh mh-port", 5 * time.Second, 10, 70, 80},
		// Of wlc it gets a part of everything, up to a part of a third of
		// all flows that there are.
		{"wlc", time.Second, 15, 31, 290},
		{"wlc", 5 * time.Second, 140, 153, 290},
		{"wlc", 9999 * time.Millisecond, 290, 300, 290},
		{"wlc", 10 * time.Second, 300, 300, 290},
		{"nq", 5 * time.Second, 140, 153, 290},
	}
	for _, tt := range tests {
		t.Run(tt.scheduler+" after "+tt.at.String(), func(t *testing.T) {
			name := strings.Fields(tt.scheduler)
			join := func(slow time.Duration) int {
				b := newBench(t, name[0], sched.Options{Flags: name[1:], SlowStart: slow})
				b.apply("A=1 B=1 C=0")
				b.picks(before)
				b.now += time.Hour // however long it was away
				b.apply("A=1 B=1 C=1")
				b.picks(10) // among them the one that starts the time
				b.now += tt.at
				return strings.Count(b.picks(each), "C")
			}
			if got := join(10 * time.Second); got < tt.least || got > tt.most {
				t.Errorf("%d of %d flows, want %d to %d", got, each, tt.least, tt.most)
			}
			if got := join(0); got < tt.withoutLeast {
				t.Errorf("%d of %d flows without slow start, want at least %d", got, each, tt.withoutLeast)
			}
		})
	}
}

func TestSlowStartOf(t *testing.T) {
	tests := []struct {
		name    string
		configs []string // 10 s pass between them and after the last
		wait    time.Duration
		slow    bool // C gets less than a third
	}{
		{name: "nobody when the service is new", configs: []string{"A=1 B=1 C=1"}},
		{name: "one that is added", configs: []string{"A=1 B=1", "A=1 B=1 C=1"}, slow: true},
		{name: "one whose weight was 0", configs: []string{"A=1 B=1 C=0", "A=1 B=1 C=1"}, slow: true},
		{name: "one whose weight grows no more", configs: []string{"A=1 B=1 C=1", "A=3 B=3 C=3"}},
		{name: "one that was removed and added again", configs: []string{"A=1 B=1 C=1", "A=1 B=1", "A=1 B=1 C=1"}, slow: true},
		{name: "one that is returning, over a reload", configs: []string{"A=1 B=1 C=0", "A=1 B=1 C=1", "A=2 B=1 C=1"}, slow: true},
		{name: "one that has returned, over a reload", configs: []string{"A=1 B=1 C=0", "A=1 B=1 C=1", "A=1 B=1 C=1", "A=1 B=1 C=1", "A=1 B=1 C=1"}},
		{name: "nobody where all return", configs: []string{"A=0 B=0 C=0", "A=1 B=1 C=1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, "rr", sched.Options{SlowStart: 35 * time.Second})
			for _, c := range tt.configs {
				b.apply(c)
				b.picks(30)
				b.now += 10 * time.Second
			}
			if got := strings.Count(b.picks(300), "C"); got < 90 != tt.slow {
				t.Errorf("C got %d of 300 flows", got)
			}
		})
	}
}

// TestSlowStartTakesTurns: those that have not just returned have their turns
// over a reload too.
func TestSlowStartTakesTurns(t *testing.T) {
	picks := func(before int, reload bool) string {
		b := newBench(t, "rr", sched.Options{SlowStart: time.Hour})
		b.apply("A=1 B=1")
		b.apply("A=1 B=1 C=1")
		got := b.picks(before)
		if reload {
			b.apply("A=1 B=1 C=1")
		}
		return got + b.picks(12-before)
	}
	for before := range 9 {
		if got, want := picks(before, true), picks(before, false); got != want {
			t.Errorf("picks %s with a reload after %d, want %s", got, before, want)
		}
	}
}

// TestSlowStartKeepsWhatTheSchedulerKnows over a reload that brings it, and
// one that takes it away.
func TestSlowStartKeepsWhatTheSchedulerKnows(t *testing.T) {
	b := newBench(t, "rr", sched.Options{})
	plain := b.build
	b.apply("A=1 B=1 C=1")
	got := b.picks(2)
	b.build = newBench(t, "rr", sched.Options{SlowStart: time.Second}).build
	b.apply("A=1 B=1 C=1")
	got += b.picks(2)
	b.build = plain
	b.apply("A=1 B=1 C=1")
	got += b.picks(2)
	if want := "CBACBA"; got != want {
		t.Errorf("picks %s, want %s", got, want)
	}
}
