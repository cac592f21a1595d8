package sched

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// roundRobin gives each real server its turn, whatever its weight, but none to
// those of weight 0 and those that are overloaded.
type roundRobin struct {
	set  []*lb.RealServer
	last atomic.Int64 // index in set of the last that had a turn; -1: the head of the list
}

func newRoundRobin(_ *settings, set []*lb.RealServer, before lb.Scheduler) lb.Scheduler {
	s := &roundRobin{set: set}
	s.last.Store(-1)
	if was, ok := before.(*roundRobin); ok {
		s.last.Store(was.lastIn(set))
	}
	return s
}

// lastIn is where the last one that had a turn stands in set or, where that
// one is gone, the one before it that is not.
func (s *roundRobin) lastIn(set []*lb.RealServer) int64 {
	for i := s.last.Load(); i >= 0; i-- {
		if at := slices.IndexFunc(set, s.set[i].Same); at >= 0 {
			return int64(at)
		}
	}
	return -1
}

// Pick ignores the tuple: round robin has no affinity.
func (s *roundRobin) Pick(*packet.Tuple, time.Duration) *lb.RealServer {
	for {
		last := s.last.Load()
		next := s.after(last)
		if next < 0 {
			return nil
		}
		if s.last.CompareAndSwap(last, next) {
			return s.set[next]
		}
	}
}

// Peek implements lb.Peeker.
func (s *roundRobin) Peek(*packet.Tuple, time.Duration) *lb.RealServer {
	next := s.after(s.last.Load())
	if next < 0 {
		return nil
	}
	return s.set[next]
}

// after is the next one after index last that gets new flows, or -1.
func (s *roundRobin) after(last int64) int64 {
	n := int64(len(s.set))
	for range n {
		if last++; last == n {
			last = 0
		}
		if s.set[last].TakesFlows() {
			return last
		}
	}
	return -1
}
