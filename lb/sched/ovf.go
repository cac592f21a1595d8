package sched

import (
	"cmp"
	"slices"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// overflow fills the real server with the highest weight, the newest of
// equals, until its active flows exceed its weight, then the next, and refuses
// flows when all are full.
type overflow struct {
	set []*lb.RealServer // usable, in the order in which they fill
}

func newOverflow(_ *settings, set []*lb.RealServer, _ lb.Scheduler) lb.Scheduler {
	return overflow{byWeight(usable(set))}
}

// byWeight sorts set, the heaviest first, and returns it.
func byWeight(set []*lb.RealServer) []*lb.RealServer {
	slices.SortStableFunc(set, func(a, b *lb.RealServer) int { return cmp.Compare(b.Weight, a.Weight) })
	return set
}

// Pick ignores the tuple: load has no affinity.
func (s overflow) Pick(*packet.Tuple, time.Duration) *lb.RealServer {
	for _, rs := range s.set {
		if rs.ActiveFlows() <= int64(rs.Weight) && !rs.Overloaded() {
			return rs
		}
	}
	return nil
}
