package sched

import (
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// weightedLeastConnection picks the real server with the least load for its
// weight; the newest of equals.
type weightedLeastConnection struct {
	set []*lb.RealServer // usable
}

func newWeightedLeastConnection(_ *settings, set []*lb.RealServer, _ lb.Scheduler) lb.Scheduler {
	return weightedLeastConnection{usable(set)}
}

// Pick ignores the tuple: load has no affinity.
func (s weightedLeastConnection) Pick(*packet.Tuple, time.Duration) *lb.RealServer {
	return leastLoaded(s.set)
}

// leastLoaded is the one of set, all usable, with the least load for its
// weight, the first of equals; nil where all are overloaded.
func leastLoaded(set []*lb.RealServer) *lb.RealServer {
	var least *lb.RealServer
	var load int64
	for _, rs := range set {
		if rs.Overloaded() {
			continue
		}
		// load/least.Weight > l/rs.Weight, without the rounding
		if l := overhead(rs); least == nil || load*int64(rs.Weight) > l*int64(least.Weight) {
			least, load = rs, l
		}
	}
	return least
}
