package sched

import (
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// neverQueue picks an idle real server, the newest of several, and the one
// with the shortest delay where none is idle.
type neverQueue struct {
	shortestDelay
}

func newNeverQueue(_ *settings, set []*lb.RealServer, _ lb.Scheduler) lb.Scheduler {
	return neverQueue{shortestDelay{usable(set)}}
}

// Pick ignores the tuple: load has no affinity.
func (s neverQueue) Pick(t *packet.Tuple, now time.Duration) *lb.RealServer {
	for _, rs := range s.set {
		if rs.ActiveFlows() == 0 && !rs.Overloaded() {
			return rs
		}
	}
	return s.shortestDelay.Pick(t, now)
}
