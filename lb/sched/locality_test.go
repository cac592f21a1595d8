package sched_test

import (
	"strings"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/packet"
)

// vip is the tuple of a request to the i-th of many VIPs.
func vip(i int) *packet.Tuple {
	t := client(0)
	t.Dst = packet.Addr{203, byte(i >> 16), byte(i >> 8), byte(i)}
	return &t
}

// TestLocalityForgets: real servers without flows are all alike to wlc, so
// only one that is remembered is not the first of the list.
func TestLocalityForgets(t *testing.T) {
	set := servers(t, 2, one)
	first, second := set[0], set[1]
	for _, name := range []string{"lblc", "lblcr"} {
		remembers := func(before int, again, later time.Duration) bool {
			newScheduler := build(t, name, sched.Options{})
			s := newScheduler(set[1:], nil)
			for i := range before {
				s.Pick(vip(i), 0)
			}
			s.Pick(vip(before), time.Minute)
			s.Pick(vip(before), again)
			s = newScheduler(set, s)
			switch rs := s.Pick(vip(before), later); rs {
			case first:
				return false
			case second:
				return true
			default:
				t.Fatalf("%s: picked %v", name, rs)
				return false
			}
		}
		for _, tt := range []struct {
			what         string
			before       int // other VIPs, all of them last used at 0
			again, later time.Duration
			want         bool
		}{
			{"a VIP that was not used for nearly a day", 0, time.Minute, time.Minute + 24*time.Hour - 1, true},
			{"a VIP that was not used for a day", 0, time.Minute, time.Minute + 24*time.Hour, false},
			{"a VIP that was used in the day", 0, time.Hour, 25*time.Hour - 1, true},
			{"one more VIP than fit", 16 * 1024, time.Minute, 2 * time.Minute, false},
			{"the last VIP that fits", 16*1024 - 1, time.Minute, 2 * time.Minute, true},
		} {
			if got := remembers(tt.before, tt.again, tt.later); got != tt.want {
				t.Errorf("%s: %s is remembered: %v", name, tt.what, got)
			}
		}
	}
}

// TestLocalityMakesRoom: when there are too many VIPs those go that were not
// used for six minutes.
func TestLocalityMakesRoom(t *testing.T) {
	set := servers(t, 2, one)
	for _, name := range []string{"lblc", "lblcr"} {
		newScheduler := build(t, name, sched.Options{})
		s := newScheduler(set[1:], nil)
		for i := range 16 * 1024 {
			s.Pick(vip(i), time.Duration(i%2)*time.Second)
		}
		s.Pick(vip(1<<20), 6*time.Minute) // the even ones were idle so long
		s = newScheduler(set, s)
		now := 6 * time.Minute
		for vipNumber, want := range map[int]*lb.RealServer{0: set[0], 1: set[1], 1 << 20: set[1]} {
			if got := s.Pick(vip(vipNumber), now); got != want {
				t.Errorf("%s: VIP %d goes to %v, want %v", name, vipNumber, got.Endpoint, want.Endpoint)
			}
		}
	}
}

// TestLocalityOfRemoved: a VIP whose real server is removed gets another, for
// good.
func TestLocalityOfRemoved(t *testing.T) {
	set := servers(t, 3, one)
	for _, name := range []string{"lblc", "lblcr"} {
		newScheduler := build(t, name, sched.Options{})
		s := newScheduler(set[2:], nil)
		s.Pick(vip(0), 0)
		s = newScheduler(set[1:2], s)
		if got := s.Pick(vip(0), 0); got != set[1] {
			t.Errorf("%s: picked %v", name, got)
		}
		s = newScheduler(set[:2], s)
		if got := s.Pick(vip(0), 0); got != set[1] {
			t.Errorf("%s: then picked %v", name, got)
		}
		s = newScheduler([]*lb.RealServer{}, s)
		if got := s.Pick(vip(0), 0); got != nil {
			t.Errorf("%s: of none picked %v", name, got)
		}
	}
}

// TestReplicaLeaves: the set of a VIP that needed a second real server loses
// the most loaded one when it has not changed for a day.
func TestReplicaLeaves(t *testing.T) {
	const added = 6 * time.Hour
	for _, tt := range []struct {
		at   time.Duration
		want bool // B, with the most flows, has left
	}{
		{24*time.Hour + 1, false}, // since the VIP's first flow, not since the change
		{added + 24*time.Hour, false},
		{added + 24*time.Hour + 1, true},
	} {
		b := newBench(t, "lblcr", sched.Options{})
		b.apply("A=100 B=100")
		got := b.picks(101) // B is overloaded then, A idle
		b.now = added
		got += b.picks(1)
		if want := strings.Repeat("B", 101) + "A"; got != want {
			t.Fatalf("picks %s, want %s", got, want)
		}
		b.now += 16 * time.Hour
		b.picks(1)
		b.now = tt.at
		// B had 101 flows: with A in the set alone, A gets more.
		if left := b.picks(150) == strings.Repeat("A", 150); left != tt.want {
			t.Errorf("after %v B has left: %v", tt.at, left)
		}
	}
}

// TestReplicasOfRemoved: where real servers come and go under addresses of their
// own, a VIP does not remember all that it ever had.
func TestReplicasOfRemoved(t *testing.T) {
	set := servers(t, 50, one)
	newScheduler := build(t, "lblcr", sched.Options{})
	var s lb.Scheduler
	for i := range len(set) - 1 {
		s = newScheduler(set[i:i+2], s)
		s.Pick(vip(0), time.Duration(i)*time.Minute)
	}
	if n := sched.Replicas(s, vip(0).Dst); n > 2 {
		t.Errorf("of two real servers that there are it remembers %d", n)
	}
}
