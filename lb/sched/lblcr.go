package sched

import (
	"slices"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// replicatedLocality is lblc with replication: it sends the clients of a VIP to
// a set of real servers of its own, by wlc among them. wlc over all adds one to the set whenever the
// chosen one is overloaded, and the most loaded one leaves when the set has
// not changed for a day.
type replicatedLocality struct {
	byDestination
}

func newReplicatedLocality(_ *settings, set []*lb.RealServer, before lb.Scheduler) lb.Scheduler {
	var l *localities
	if was, ok := before.(*replicatedLocality); ok {
		l = was.localities
	}
	return &replicatedLocality{newByDestination(set, l)}
}

// replicaLife is IPVS's lblcr_expiration.
const replicaLife = 24 * time.Hour

func (s *replicatedLocality) Pick(t *packet.Tuple, now time.Duration) *lb.RealServer {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.findLocked(t.Dst, now)
	if e != nil {
		rs := s.least(e)
		if len(e.servers) > 1 && now-e.changed > replicaLife {
			s.dropMost(e, now)
		}
		if rs != nil && !s.overloaded(rs) {
			return rs
		}
	}
	rs := leastLoaded(s.usable)
	switch {
	case rs == nil:
	case e == nil:
		s.addLocked(t.Dst, rs, now)
	case !slices.ContainsFunc(e.servers, func(o *lb.RealServer) bool { return o.Endpoint == rs.Endpoint }):
		// Where real servers come and go, the removed ones would never leave: the
		// set must not change for a day for that.
		e.servers = slices.DeleteFunc(e.servers, func(o *lb.RealServer) bool { return s.current(o) == nil })
		e.servers = slices.Insert(e.servers, 0, rs)
		e.changed = now
	}
	return rs
}

// Peek implements lb.Peeker.
func (s *replicatedLocality) Peek(t *packet.Tuple, now time.Duration) *lb.RealServer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.peekLocked(t.Dst, now); e != nil {
		if rs := s.least(e); rs != nil && !s.overloaded(rs) {
			return rs
		}
	}
	return leastLoaded(s.usable)
}

// least is the one of e with the least load for its weight, the latest of
// equals, or nil where none gets new flows.
func (s *replicatedLocality) least(e *locality) *lb.RealServer {
	var least *lb.RealServer
	var load int64
	for _, was := range e.servers {
		rs := s.current(was)
		if rs == nil || !rs.TakesFlows() {
			continue
		}
		if l := overhead(rs); least == nil || load*int64(rs.Weight) > l*int64(least.Weight) {
			least, load = rs, l
		}
	}
	return least
}

// dropMost takes the one with the most load for its weight out of e, the
// latest of equals. As in IPVS a removed one counts as it was.
func (s *replicatedLocality) dropMost(e *locality, now time.Duration) {
	most, load, weight := -1, int64(0), int64(0)
	for i, rs := range e.servers {
		if is := s.current(rs); is != nil {
			rs = is
		}
		if l, w := overhead(rs), int64(rs.Weight); w > 0 && (most < 0 || load*w < l*weight) {
			most, load, weight = i, l, w
		}
	}
	if most >= 0 {
		e.servers = slices.Delete(e.servers, most, most+1)
		e.changed = now
	}
}
