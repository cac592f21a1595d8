package sched

import (
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// leastConnection picks the real server with the least load, whatever its
// weight; the newest of equals.
type leastConnection struct {
	set []*lb.RealServer // usable
}

func newLeastConnection(_ *settings, set []*lb.RealServer, _ lb.Scheduler) lb.Scheduler {
	return leastConnection{usable(set)}
}

// Pick ignores the tuple: load has no affinity.
func (s leastConnection) Pick(*packet.Tuple, time.Duration) *lb.RealServer {
	var least *lb.RealServer
	var load int64
	for _, rs := range s.set {
		if rs.Overloaded() {
			continue
		}
		if l := overhead(rs); least == nil || l < load {
			least, load = rs, l
		}
	}
	return least
}

// overhead is the load of a real server as IPVS estimates it
// (ip_vs_dest_conn_overhead): an active flow counts as 256 inactive ones.
func overhead(rs *lb.RealServer) int64 {
	return rs.ActiveFlows()<<8 + rs.InactiveFlows()
}
