package sched

import (
	"slices"
	"sync"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// weightedRoundRobin is IPVS's wrr (ip_vs_wrr.c): it walks the list and gives
// a turn to each real server whose weight reaches a threshold, which falls by
// the weights' greatest common divisor from round to round and then starts
// again at the top. The order is not smooth: a heavy server gets bursts.
type weightedRoundRobin struct {
	set  []*lb.RealServer
	step int // greatest common divisor of the weights, at least 1
	top  int // highest threshold; 0: every weight is 0

	mu        sync.Mutex
	last      int // index in set of the last that was looked at; -1: the head of the list
	threshold int
}

func newWeightedRoundRobin(_ *settings, set []*lb.RealServer, before lb.Scheduler) lb.Scheduler {
	s := &weightedRoundRobin{set: set, last: -1}
	switch was := before.(type) {
	case nil:
		// IPVS is told of the real servers one by one, the last of the list
		// first, and each one that is added moves the threshold.
		divisor, heaviest := 0, 0
		for _, rs := range slices.Backward(set) {
			divisor, heaviest = gcd(rs.Weight, divisor), max(heaviest, rs.Weight)
			s.fit(divisor, heaviest)
		}
		return s
	case *weightedRoundRobin:
		was.mu.Lock()
		s.threshold = was.threshold
		if slices.EqualFunc(set, was.set, unedited) {
			s.last = was.last
		}
		was.mu.Unlock()
	}
	divisor, heaviest := 0, 0
	for _, rs := range set {
		divisor, heaviest = gcd(rs.Weight, divisor), max(heaviest, rs.Weight)
	}
	s.fit(divisor, heaviest)
	return s
}

// unedited says whether nothing was changed for which a kernel's list would have
// had an edit, after which its wrr starts at the head.
func unedited(a, b *lb.RealServer) bool {
	return a.Same(b) && a.Weight == b.Weight && a.MaxFlows == b.MaxFlows && a.MinFlows == b.MinFlows
}

// fit fits the thresholds to a set with a greatest common divisor and heaviest
// of its weights (ip_vs_wrr_dest_changed). For an unchanged set it changes
// nothing but a threshold that is no level at all.
func (s *weightedRoundRobin) fit(divisor, heaviest int) {
	s.step, s.top = max(divisor, 1), heaviest
	if s.top > 0 {
		s.top -= s.step - 1
	}
	switch {
	case s.threshold > s.top || s.threshold == 0:
		s.threshold = s.top
	case s.step > 1:
		s.threshold = s.threshold/s.step*s.step + 1
	}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Pick ignores the tuple: round robin has no affinity.
func (s *weightedRoundRobin) Pick(*packet.Tuple, time.Duration) *lb.RealServer {
	if s.top == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	const nowhere = -2
	from, stop := s.last, nowhere
	lowest, wrapped := false, false
	for {
		for s.last < len(s.set)-1 {
			s.last++
			if rs := s.set[s.last]; rs.Weight >= s.threshold && !rs.Overloaded() {
				return rs
			}
			if s.last == stop {
				return nil
			}
		}
		s.last = -1
		if s.threshold -= s.step; s.threshold <= 0 {
			s.threshold = s.top
			if lowest || from == -1 {
				return nil
			}
			wrapped = true
		}
		// All are overloaded when the round at the lowest threshold is back at
		// where the walk began.
		if lowest = s.threshold <= s.step; lowest && wrapped && from != -1 {
			stop = from
		}
	}
}

// Peek implements lb.Peeker.
func (s *weightedRoundRobin) Peek(t *packet.Tuple, now time.Duration) *lb.RealServer {
	s.mu.Lock()
	walked := weightedRoundRobin{set: s.set, step: s.step, top: s.top, last: s.last, threshold: s.threshold}
	s.mu.Unlock()
	return walked.Pick(t, now)
}
