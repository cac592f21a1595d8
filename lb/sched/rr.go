package sched

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// roundRobin gives each real server its turn, whatever its weight, but none to
// those of weight 0.
type roundRobin struct {
	set  []*lb.RealServer // those that get turns
	next atomic.Uint64    // turns given
}

func newRoundRobin(set []*lb.RealServer, before lb.Scheduler) lb.Scheduler {
	s := &roundRobin{set: usable(set)}
	if was, ok := before.(*roundRobin); ok {
		s.next.Store(was.turnIn(s.set))
	}
	return s
}

// usable are the real servers of set whose weight is not 0.
func usable(set []*lb.RealServer) []*lb.RealServer {
	return slices.DeleteFunc(slices.Clone(set), func(rs *lb.RealServer) bool { return rs.Weight == 0 })
}

// turnIn is the turn in set at which to go on: after the last one that got a
// turn, or, where that one is gone, after the one before it that is not.
func (s *roundRobin) turnIn(set []*lb.RealServer) uint64 {
	given := s.next.Load()
	for i := range min(given, uint64(len(s.set))) {
		last := s.set[(given-1-i)%uint64(len(s.set))]
		if at := slices.IndexFunc(set, last.Same); at >= 0 {
			return uint64(at) + 1
		}
	}
	return 0
}

// Pick ignores the tuple: round robin has no affinity.
func (s *roundRobin) Pick(*packet.Tuple, time.Duration) *lb.RealServer {
	if len(s.set) == 0 {
		return nil
	}
	return s.set[(s.next.Add(1)-1)%uint64(len(s.set))]
}
