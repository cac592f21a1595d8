package sched

import (
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// failOver picks the real server with the highest weight, the newest of
// equals: the others stand by.
type failOver struct {
	first *lb.RealServer // nil: every weight is 0
}

func newFailOver(_ *settings, set []*lb.RealServer, _ lb.Scheduler) lb.Scheduler {
	var s failOver
	for _, rs := range usable(set) {
		if s.first == nil || rs.Weight > s.first.Weight {
			s.first = rs
		}
	}
	return s
}

// Pick ignores the tuple: there is one real server for all.
func (s failOver) Pick(*packet.Tuple, time.Duration) *lb.RealServer { return s.first }
