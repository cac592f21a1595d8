package sched

import (
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// shortestDelay picks the real server whose active flows, with the new one,
// are the fewest for its weight; the newest of equals. Inactive flows, and so
// all of UDP, do not count.
type shortestDelay struct {
	set []*lb.RealServer // usable
}

func newShortestDelay(_ *settings, set []*lb.RealServer, _ lb.Scheduler) lb.Scheduler {
	return shortestDelay{usable(set)}
}

// Pick ignores the tuple: load has no affinity.
func (s shortestDelay) Pick(*packet.Tuple, time.Duration) *lb.RealServer {
	var least *lb.RealServer
	var delay int64
	for _, rs := range s.set {
		if rs.Overloaded() {
			continue
		}
		if d := rs.ActiveFlows() + 1; least == nil || delay*int64(rs.Weight) > d*int64(least.Weight) {
			least, delay = rs, d
		}
	}
	return least
}
