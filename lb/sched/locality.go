package sched

import (
	"sync"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// localities are what lblc and lblcr remember: for each destination address,
// the real servers that it was given. They outlive the scheduler, so that a
// reload moves nothing that it need not.
type localities struct {
	mu     sync.Mutex
	byAddr map[packet.Addr]*locality
	swept  time.Duration // when idle ones were last looked for
}

// A locality is what one destination address was given.
type locality struct {
	servers []*lb.RealServer // the latest first, never empty; maybe of an earlier configuration
	used    time.Duration    // when it was last looked up
	changed time.Duration    // when servers last changed
}

// The limits are those of IPVS (ip_vs_lblc.c), but that an address that is
// not used is forgotten on time and not up to half an hour later.
const (
	maxLocalities    = 16 * 1024
	localityLife     = 24 * time.Hour // unused for so long: forgotten
	fullLocalityLife = 6 * time.Minute
	localitySweep    = time.Minute
)

// findLocked is the locality of an address, or nil.
func (l *localities) findLocked(a packet.Addr, now time.Duration) *locality {
	e := l.byAddr[a]
	if e == nil {
		return nil
	}
	if now-e.used >= localityLife {
		delete(l.byAddr, a)
		return nil
	}
	e.used = now
	return e
}

// peekLocked is findLocked without a trace.
func (l *localities) peekLocked(a packet.Addr, now time.Duration) *locality {
	if e := l.byAddr[a]; e != nil && now-e.used < localityLife {
		return e
	}
	return nil
}

// addLocked remembers rs for an address that has no locality. Where there
// are too many it forgets those that are idle, or does not remember.
func (l *localities) addLocked(a packet.Addr, rs *lb.RealServer, now time.Duration) {
	if len(l.byAddr) >= maxLocalities {
		if now-l.swept < localitySweep {
			return
		}
		l.swept = now
		for a, e := range l.byAddr {
			if now-e.used >= fullLocalityLife {
				delete(l.byAddr, a)
			}
		}
		if len(l.byAddr) >= maxLocalities {
			return
		}
	}
	l.byAddr[a] = &locality{servers: []*lb.RealServer{rs}, used: now, changed: now}
}

// byDestination is what lblc and lblcr have in common.
type byDestination struct {
	set    []*lb.RealServer                   // all
	usable []*lb.RealServer                   // of set
	byName map[packet.Endpoint]*lb.RealServer // of set
	*localities
}

// newByDestination goes on with the localities of before where that is not nil.
func newByDestination(set []*lb.RealServer, before *localities) byDestination {
	l := byDestination{set: set, usable: usable(set), byName: map[packet.Endpoint]*lb.RealServer{}, localities: before}
	for _, rs := range set {
		l.byName[rs.Endpoint] = rs
	}
	if before == nil {
		l.localities = &localities{byAddr: map[packet.Addr]*locality{}}
	}
	return l
}

// current is rs as the set has it, or nil: it was removed.
func (l *byDestination) current(rs *lb.RealServer) *lb.RealServer { return l.byName[rs.Endpoint] }

// overloaded says whether rs has more active flows than its weight while
// another has fewer than half of its own.
func (l *byDestination) overloaded(rs *lb.RealServer) bool {
	if rs.ActiveFlows() <= int64(rs.Weight) {
		return false
	}
	for _, other := range l.set {
		if other.ActiveFlows()*2 < int64(other.Weight) {
			return true
		}
	}
	return false
}
