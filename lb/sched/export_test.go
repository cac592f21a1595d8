package sched

import (
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// Replicas is how many real servers an lblcr remembers for a VIP.
func Replicas(s lb.Scheduler, vip packet.Addr) int {
	return len(s.(*replicatedLocality).byAddr[vip].servers)
}
