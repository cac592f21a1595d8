package sched

import (
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// destinationHash sends all clients of one VIP to the same real server. Its
// 256 buckets go to the real servers in turn, whatever their weight; the VIPs
// of one that takes no flows are refused.
type destinationHash struct {
	set []*lb.RealServer
}

func newDestinationHash(_ *settings, set []*lb.RealServer, _ lb.Scheduler) lb.Scheduler {
	return destinationHash{set}
}

func (s destinationHash) Pick(t *packet.Tuple, _ time.Duration) *lb.RealServer {
	if rs := s.set[int(hash256(fold(&t.Dst)))%len(s.set)]; rs.TakesFlows() {
		return rs
	}
	return nil
}
