package sched

import (
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// slowStart eases real servers in that come back to a service, or are new in
// it: with cold caches the flows of their whole share at once would bring them
// down, and wlc would give them everybody's until they have as many as the
// others.
//
// It works for any scheduler, which chooses among all. Of the flows that it
// sends to a returning real server a part goes there, which grows evenly from
// none to all, and no more than make up that part of the real server's fair
// share. The others go where a second scheduler of the same kind sends them
// that does not know the returning ones. A flow's tuple decides, so that
// whoever was let through stays so.
type slowStart struct {
	set       []*lb.RealServer
	lasts     time.Duration
	all, rest lb.Scheduler // rest is nil where all that get new flows are returning
	returning map[*lb.RealServer]*returning
	weights   int64 // the sum of set's
}

// A returning is the return of one real server.
type returning struct {
	since atomic.Int64 // first choice of it, as a time.Duration from 1; 0: not yet; returned: over
}

const returned = -1

// slowly is a builder of slowStarts that last so long, over schedulers that
// build builds.
func slowly(lasts time.Duration, build builder) builder {
	return func(o *settings, set []*lb.RealServer, before lb.Scheduler) lb.Scheduler {
		s := &slowStart{set: set, lasts: lasts, returning: map[*lb.RealServer]*returning{}}
		var restBefore lb.Scheduler
		if was, ok := before.(*slowStart); ok {
			s.findReturning(was)
			restBefore = was.rest
		}
		s.all = build(o, set, inner(before))
		var rest []*lb.RealServer
		for _, rs := range set {
			s.weights += int64(rs.Weight)
			if s.returning[rs] == nil {
				rest = append(rest, rs)
			}
		}
		if len(s.returning) > 0 && len(usable(rest)) > 0 {
			s.rest = build(o, rest, restBefore)
		}
		return s
	}
}

// inner is the scheduler that chooses among all real servers.
func inner(s lb.Scheduler) lb.Scheduler {
	if slow, ok := s.(*slowStart); ok {
		return slow.all
	}
	return s
}

// findReturning finds those that got no new flows under was, and those that
// were not done with returning.
func (s *slowStart) findReturning(was *slowStart) {
	before := map[packet.Endpoint]*lb.RealServer{}
	for _, rs := range was.set {
		before[rs.Endpoint] = rs
	}
	for _, rs := range s.set {
		old := before[rs.Endpoint]
		switch r := was.returning[old]; {
		case rs.Weight == 0:
		case old == nil || old.Weight == 0:
			s.returning[rs] = new(returning)
		case r != nil && r.since.Load() != returned:
			s.returning[rs] = r
		}
	}
}

func (s *slowStart) Pick(t *packet.Tuple, now time.Duration) *lb.RealServer {
	rs := s.all.Pick(t, now)
	if s.rest == nil {
		return rs
	}
	r := s.returning[rs]
	if r == nil || s.letsThrough(rs, r, t, now) {
		return rs
	}
	if other := s.rest.Pick(t, now); other != nil {
		return other
	}
	return rs
}

// Peek implements lb.Peeker.
func (s *slowStart) Peek(t *packet.Tuple, now time.Duration) *lb.RealServer {
	rs := peek(s.all, t, now)
	if s.rest == nil {
		return rs
	}
	r := s.returning[rs]
	if r == nil {
		return rs
	}
	since := r.since.Load()
	if since == 0 {
		since = int64(now) + 1
	}
	if since == returned || s.part(since, now) >= 1 || s.hasRoom(rs, t, s.part(since, now)) {
		return rs
	}
	if other := peek(s.rest, t, now); other != nil {
		return other
	}
	return rs
}

// peek is what s would pick.
func peek(s lb.Scheduler, t *packet.Tuple, now time.Duration) *lb.RealServer {
	if p, ok := s.(lb.Peeker); ok {
		return p.Peek(t, now)
	}
	return s.Pick(t, now)
}

// letsThrough says whether the flow t goes to the returning rs, its choice.
func (s *slowStart) letsThrough(rs *lb.RealServer, r *returning, t *packet.Tuple, now time.Duration) bool {
	r.since.CompareAndSwap(0, int64(now)+1)
	since := r.since.Load()
	if since == returned {
		return true
	}
	part := s.part(since, now)
	if part >= 1 {
		r.since.Store(returned)
		return true
	}
	return s.hasRoom(rs, t, part)
}

// part is how much of a return that began then is over.
func (s *slowStart) part(then int64, now time.Duration) float64 {
	return float64(int64(now)+1-then) / float64(s.lasts)
}

// hasRoom says whether the flow t is of the part that rs gets by now, and rs
// has not more than it yet.
func (s *slowStart) hasRoom(rs *lb.RealServer, t *packet.Tuple, part float64) bool {
	const span = 1 << 16
	if float64(t.Hash(0)%span) >= part*span {
		return false
	}
	flows := int64(0)
	for _, other := range s.set {
		flows += flowsOf(other)
	}
	fair := float64(flows) * float64(rs.Weight) / float64(s.weights)
	return float64(flowsOf(rs)) < max(1, part*fair)
}
