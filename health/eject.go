package health

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// An ejection takes a real server out for a time because connections of
// clients to it fail, whatever its checks say. Each one lasts twice as long as
// the one before, until the real server did without for ten times the first.
type ejection struct {
	on      bool
	until   time.Time // of the latest
	strikes int       // those that are not forgotten
	why     string

	total, spared uint64
	spareTold     time.Time // when it was last logged that it was spared
}

// maxDoublings bounds how long a real server is taken out that always fails.
const maxDoublings = 5

// begin ejects for the next time, first being how long the first one lasts.
func (e *ejection) begin(first time.Duration, why string, now time.Time) {
	if now.Sub(e.until) >= 10*first {
		e.strikes = 0
	}
	lasts := first << min(e.strikes, maxDoublings)
	e.on, e.until, e.why = true, now.Add(lasts), fmt.Sprintf("%s; ejected for %v", why, lasts)
	e.strikes++
	e.total++
}

// Eject takes a Member with an Ejection out for a time, after which its checks
// alone say how it is. why is for an operator. A Member that is not usable stays
// as it is.
func (m *Monitor) Eject(service string, server netip.AddrPort, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mb := m.members[service][server]
	if mb == nil || mb.Ejection == 0 || !mb.shown.Usable() {
		return
	}
	mb.ejection.begin(mb.Ejection, why, time.Now())
	m.queueLocked(&mb.readmit, mb.ejection.until)
	m.showLocked(mb, "")
}

// Spare notes that a Member was to be ejected for why, but is not because of
// limit, both for an operator. It logs that once in an Ejection.
func (m *Monitor) Spare(service string, server netip.AddrPort, why, limit string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mb := m.members[service][server]
	if mb == nil || mb.Ejection == 0 || !mb.shown.Usable() {
		return
	}
	mb.ejection.spared++
	if now := time.Now(); now.Sub(mb.ejection.spareTold) >= mb.Ejection {
		mb.ejection.spareTold = now
		m.log.Warn("real server fails and is not ejected", "service", service, "real_server", serverText(server), "cause", why, "because", limit)
	}
}

// limitLocked has the ejection of mb end in its time, or at once where the
// Member has none any more.
func (m *Monitor) limitLocked(mb *member, now time.Time) {
	if !mb.ejection.on {
		return
	}
	end := mb.ejection.until
	if mb.Ejection == 0 {
		end = now
	}
	m.dequeueLocked(&mb.readmit)
	m.queueLocked(&mb.readmit, end)
}

// readmit ends an ejection.
func (m *Monitor) readmit(_ context.Context, j *job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mb := j.of; !mb.gone && mb.ejection.on {
		mb.ejection.on = false
		mb.ejection.until = time.Now()
		m.showLocked(mb, "its ejection is over")
	}
}
