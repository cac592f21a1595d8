package sched

import (
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/lb"
)

// balance is what maglev knows of the load of all real servers together for
// consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam,
// 2016).
type balance struct {
	flows   atomic.Int64 // of all, when they were counted, and every Pick since
	counted atomic.Int64 // when, as a time.Duration from 1; 0: never
}

// recount is how long flows may be off by those that ended: counting visits
// every real server.
const recount = time.Millisecond

// all is the number of flows with the new one.
func (b *balance) all(set []*lb.RealServer, now time.Duration) int64 {
	if then := b.counted.Load(); stale(then, now) && b.counted.CompareAndSwap(then, int64(now)+1) {
		b.flows.Store(sum(set))
	}
	return b.flows.Add(1)
}

// peek is what all would be, without a trace.
func (b *balance) peek(set []*lb.RealServer, now time.Duration) int64 {
	if stale(b.counted.Load(), now) {
		return sum(set) + 1
	}
	return b.flows.Load() + 1
}

// stale says whether what was counted then is to be counted again.
func stale(then int64, now time.Duration) bool {
	return then == 0 || now+1-time.Duration(then) >= recount
}

func sum(set []*lb.RealServer) (n int64) {
	for _, rs := range set {
		n += flowsOf(rs)
	}
	return n
}

func flowsOf(rs *lb.RealServer) int64 { return rs.ActiveFlows() + rs.InactiveFlows() }

// bounded is the holder of slot home or, while that one has its bound of
// flows, of the first slot after it whose holder has not. The slots after a
// real server's belong to all others by their weights, so they share what it
// does not take. all is the number of flows with the new one.
func (s *maglev) bounded(home int, all int64) *lb.RealServer {
	// A real server has room while flows+1 <= all * weight/weights * maxLoad/100,
	// rounded up; so one of them always has.
	share := all * s.settings.maglev.maxLoad
	of := s.weights * 100
	if !anyTakesFlows(s.set) {
		return nil
	}
	for i := range s.slots {
		at := home + i
		if at >= len(s.slots) {
			at -= len(s.slots)
		}
		if rs := s.set[s.slots[at]]; flowsOf(rs)*of < share*int64(rs.Weight) && !rs.Overloaded() {
			return rs
		}
	}
	// Flows began elsewhere meanwhile, or whoever has room is overloaded.
	return s.afterSlot(home)
}
