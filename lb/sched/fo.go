package sched

import (
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// failOver picks the real server with the highest weight, the newest of
// equals: the others stand by.
type failOver struct {
	set []*lb.RealServer // usable, in the order in which they stand in
}

func newFailOver(_ *settings, set []*lb.RealServer, _ lb.Scheduler) lb.Scheduler {
	return failOver{byWeight(usable(set))}
}

// Pick ignores the tuple: there is one real server for all.
func (s failOver) Pick(*packet.Tuple, time.Duration) *lb.RealServer {
	for _, rs := range s.set {
		if !rs.Overloaded() {
			return rs
		}
	}
	return nil
}
