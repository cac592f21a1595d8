package sched

import (
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// localityBased is locality-based least connection: it sends all clients of a VIP to the real
// server that wlc chose for the first of them, until that one is overloaded:
// then wlc chooses again.
type localityBased struct {
	byDestination
}

func newLocality(_ *settings, set []*lb.RealServer, before lb.Scheduler) lb.Scheduler {
	var l *localities
	if was, ok := before.(*localityBased); ok {
		l = was.localities
	}
	return &localityBased{newByDestination(set, l)}
}

func (s *localityBased) Pick(t *packet.Tuple, now time.Duration) *lb.RealServer {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.findLocked(t.Dst, now)
	if e != nil {
		// As in IPVS the upper threshold does not count here.
		if rs := s.current(e.servers[0]); rs != nil && rs.Weight > 0 && !s.overloaded(rs) {
			return rs
		}
	}
	rs := leastLoaded(s.usable)
	switch {
	case rs == nil:
	case e != nil:
		e.servers[0] = rs
	default:
		s.addLocked(t.Dst, rs, now)
	}
	return rs
}
