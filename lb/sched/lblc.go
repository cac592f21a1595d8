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
		if rs := s.remembered(e); rs != nil {
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

// remembered is the real server that e was given, nil where another one is to
// be chosen. As in IPVS the upper threshold does not count here.
func (s *localityBased) remembered(e *locality) *lb.RealServer {
	if rs := s.current(e.servers[0]); rs != nil && rs.Weight > 0 && !s.overloaded(rs) {
		return rs
	}
	return nil
}

// Peek implements lb.Peeker.
func (s *localityBased) Peek(t *packet.Tuple, now time.Duration) *lb.RealServer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.peekLocked(t.Dst, now); e != nil {
		if rs := s.remembered(e); rs != nil {
			return rs
		}
	}
	return leastLoaded(s.usable)
}
