package health

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// MonitorOptions are what a Monitor is made with.
type MonitorOptions struct {
	// Changed is called after the state of a Member has changed, from any
	// goroutine; it must not block. Who is told takes TakeChanged. nil: nobody
	// is told.
	Changed func()

	Concurrency int          // most checks under way at one time; 0: 8192
	Log         *slog.Logger // nil: slog.Default()
}

// defaultConcurrency lets ten thousand real servers that do not answer be
// checked every two seconds with a time limit of one.
const defaultConcurrency = 8192

// A Monitor checks Members.
type Monitor struct {
	changed func()
	log     *slog.Logger
	slots   chan struct{} // one for each check under way
	wake    chan struct{} // tells Run that what is due has changed
	settled chan struct{} // closed when there is a result for all of the first Set
	shaker  *handshaker   // Run's own; nil: there was nothing for it yet

	mu      sync.Mutex
	members map[string]map[netip.AddrPort]*member // by service and real server; guarded by mu, with all that they hold
	queue   queue                                 // guarded by mu
	next    time.Time                             // guarded by mu; when Run looks at the queue again
	begun   bool                                  // guarded by mu; Set was called
	dirty   map[string]bool                       // guarded by mu; the services that TakeChanged returns
	unknown int                                   // guarded by mu; members that Settled waits for, below 0: none any more
}

// NewMonitor makes a Monitor without Members.
func NewMonitor(o MonitorOptions) *Monitor {
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Monitor{
		changed: o.Changed,
		log:     o.Log,
		slots:   make(chan struct{}, cmp.Or(o.Concurrency, defaultConcurrency)),
		wake:    make(chan struct{}, 1),
		settled: make(chan struct{}),
		members: map[string]map[netip.AddrPort]*member{},
		dirty:   map[string]bool{},
	}
}

// Set replaces all Members. One that was there before keeps its state; if its
// check is another one now, until the first result of that. No two have the
// same Service and Server.
func (m *Monitor) Set(members []Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	before := m.members
	m.members = map[string]map[netip.AddrPort]*member{}
	var fresh []*member
	for _, want := range members {
		of := m.members[want.Service]
		if of == nil {
			of = map[netip.AddrPort]*member{}
			m.members[want.Service] = of
		}
		old := before[want.Service][want.Server]
		if old != nil && old.sameCheck(&want) {
			old.Member = want
			of[want.Server] = old
			m.limitLocked(old, now)
			delete(before[want.Service], want.Server)
			continue
		}
		mb := newMember(want, old, now)
		of[want.Server] = mb
		fresh = append(fresh, mb)
	}
	for _, of := range before {
		for _, old := range of {
			m.dropLocked(old)
		}
	}
	m.spreadLocked(fresh, now)
	if !m.begun {
		m.begun = true
		for _, mb := range fresh {
			if mb.Check != nil {
				m.unknown++
			}
		}
		m.settleLocked(0)
	}
}

// dropLocked forgets a member.
func (m *Monitor) dropLocked(old *member) {
	old.gone = true
	if m.begun && old.state() == Checking {
		m.settleLocked(1)
	}
	for _, j := range []*job{&old.job, &old.ask, &old.readmit} {
		m.dequeueLocked(j)
	}
}

// mostApart is the most time between the first checks of two Members that are
// new together. Few are all checked at once, ten thousand within ten seconds
// or their interval.
const mostApart = time.Millisecond

// spreadLocked queues the first checks of members that are new, so that they
// do not fire together, neither now nor later.
func (m *Monitor) spreadLocked(fresh []*member, now time.Time) {
	at := func(i int, interval time.Duration) time.Time {
		return now.Add(time.Duration(i) * min(mostApart, interval/time.Duration(len(fresh))))
	}
	for i, mb := range fresh {
		if mb.Check != nil {
			m.queueLocked(&mb.job, at(i, mb.Timing.Interval))
		}
		if mb.Agent.Addr.IsValid() {
			m.queueLocked(&mb.ask, at(i, mb.Agent.Interval))
		}
		m.limitLocked(mb, now)
	}
	m.wakeUp()
}

func (m *Monitor) wakeUp() {
	select {
	case m.wake <- struct{}{}:
	default: // Run has not yet seen the last one
	}
}

// settleLocked notes that n members fewer lack a first result.
func (m *Monitor) settleLocked(n int) {
	if m.unknown < 0 {
		return
	}
	if m.unknown -= n; m.unknown == 0 {
		m.unknown = -1
		close(m.settled)
	}
}

// Settled is closed when each of the first Members that were Set was checked
// once.
func (m *Monitor) Settled() <-chan struct{} { return m.settled }

// Run checks the Members until ctx ends, and returns nil.
func (m *Monitor) Run(ctx context.Context) error {
	var underWay sync.WaitGroup
	defer underWay.Wait()
	defer func() {
		if m.shaker != nil {
			m.shaker.close()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, shakes, wait := m.takeDue(time.Now())
		if again := m.shake(shakes); again >= 0 {
			wait = min(wait, again)
		}
		for _, j := range due {
			select {
			case m.slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			underWay.Go(func() {
				j.do(m, ctx, j)
				<-m.slots
			})
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-m.wake:
		}
	}
}

const (
	// grain is how exact the times of checks are: those that are due within it
	// start together, so that many cost few wake-ups.
	grain = 5 * time.Millisecond

	// idle is how long Run sleeps where nothing is queued.
	idle = time.Hour
)
