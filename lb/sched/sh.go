package sched

import (
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// sourceHash sends all flows of a client to the same real server. Its 256
// buckets go to the real servers in turn, to each as many as its weight; one
// of weight 0 gets one too. The clients of one that takes no flows are refused
// unless the flag fallback finds them another.
type sourceHash struct {
	buckets [256]*lb.RealServer
	flags   flags
}

func newSourceHash(o *settings, set []*lb.RealServer, _ lb.Scheduler) lb.Scheduler {
	s := &sourceHash{flags: o.flags}
	server, turns := 0, 0
	for i := range s.buckets {
		s.buckets[i] = set[server]
		if turns++; turns >= set[server].Weight {
			server, turns = (server+1)%len(set), 0
		}
	}
	return s
}

func (s *sourceHash) Pick(t *packet.Tuple, _ time.Duration) *lb.RealServer {
	h := hash256(client(t, s.flags))
	if rs := s.buckets[h]; rs.TakesFlows() {
		return rs
	}
	if s.flags&fallback != 0 {
		for i := range s.buckets {
			// IPVS hashes the client again with offset h+i, which adds it to
			// h: so it starts at 2h.
			if rs := s.buckets[h+h+uint8(i)]; rs.TakesFlows() {
				return rs
			}
		}
	}
	return nil
}

// client is what sh and mh hash of a client.
func client(t *packet.Tuple, f flags) uint32 {
	c := fold(&t.Src)
	if f&withPort != 0 {
		c += uint32(t.SrcPort)
	}
	return c
}
