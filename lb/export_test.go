package lb

import "time"

// SweepAll frees every flow that is due now, as Run does bit by bit.
func (b *Balancer) SweepAll(now time.Duration) {
	for range len(b.table.shards) {
		b.table.Sweep(now, 1<<30)
	}
}
