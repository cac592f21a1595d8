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
		for i := len(set) - 1; i >= 0; i-- {
			s.set = set[i:]
			s.changed()
		}
		return s
	case *weightedRoundRobin:
		was.mu.Lock()
		s.threshold = was.threshold
		if slices.EqualFunc(set, was.set, sameWeight) {
			s.last = was.last
		}
		was.mu.Unlock()
	}
	s.changed()
	return s
}

func sameWeight(a, b *lb.RealServer) bool { return a.Same(b) && a.Weight == b.Weight }

// changed fits the thresholds to the set (ip_vs_wrr_dest_changed). For an
// unchanged set it changes nothing but a threshold that is no level at all.
func (s *weightedRoundRobin) changed() {
	s.step, s.top = 0, 0
	for _, rs := range s.set {
		s.step = gcd(rs.Weight, s.step)
		s.top = max(s.top, rs.Weight)
	}
	s.step = max(s.step, 1)
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
	for {
		if s.last++; s.last >= len(s.set) {
			s.last = 0
			if s.threshold -= s.step; s.threshold <= 0 {
				s.threshold = s.top
			}
		}
		if rs := s.set[s.last]; rs.Weight >= s.threshold {
			return rs
		}
	}
}
