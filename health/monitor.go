package health

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
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

// takeDue takes what is due from the queue, mere handshakes apart from the
// rest, and says when to look again.
func (m *Monitor) takeDue(now time.Time) (due []*job, shakes []*handshake, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.queue) > 0 && !m.queue[0].due.After(now) {
		j := heap.Pop(&m.queue).(*job)
		if j == &j.of.job {
			if shake := j.of.handshake(); shake != nil {
				shakes = append(shakes, shake)
				continue
			}
		}
		due = append(due, j)
	}
	wait = idle
	if len(m.queue) > 0 {
		wait = max(grain, m.queue[0].due.Sub(now))
	}
	m.next = now.Add(wait)
	return due, shakes, wait
}

// check does a job once and queues it for the next time.
func (m *Monitor) check(ctx context.Context, j *job) {
	m.mu.Lock()
	mb := j.of
	check, to, timing := mb.Check, mb.To, mb.Timing
	m.mu.Unlock()

	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, timing.Timeout)
	err := check.Check(limited, to)
	cancel()
	took := time.Since(start)
	if ctx.Err() != nil {
		return // we are stopping, which says nothing of the real server
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checkedLocked(j, err, timing.Timeout, start, took)
}

// shake begins handshakes, takes the results of those that are over, and says
// how soon it must be called again; below 0: not for those under way.
func (m *Monitor) shake(all []*handshake) (again time.Duration) {
	if m.shaker == nil {
		if len(all) == 0 {
			return -1
		}
		var err error
		if m.shaker, err = newHandshaker(cap(m.slots)); err != nil {
			for _, s := range all {
				s.err, s.start = err, time.Now()
			}
			m.shaken(all)
			return -1
		}
	}
	m.shaker.begin(all)
	over, again := m.shaker.look()
	if len(over) > 0 {
		m.shaken(over)
	}
	return again
}

// shaken takes handshakes that are over.
func (m *Monitor) shaken(over []*handshake) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range over {
		m.checkedLocked(s.job, s.err, s.timeout, s.start, s.took)
	}
}

// checkedLocked takes the result of a check that began at start and took so
// long, and queues the next one.
func (m *Monitor) checkedLocked(j *job, err error, limit time.Duration, start time.Time, took time.Duration) {
	mb := j.of
	if mb.gone || mb.Check == nil {
		return
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("no answer within %v: %w", limit, err)
	}
	if !mb.verdict.known {
		m.settleLocked(1)
	}
	mb.note(err, took)
	m.showLocked(mb, "")
	m.queueLocked(j, start.Add(jittered(mb.verdict.interval(&mb.Timing))))
}

// askAgent does so once and queues the question for the next time.
func (m *Monitor) askAgent(ctx context.Context, j *job) {
	m.mu.Lock()
	mb := j.of
	agent := mb.Agent
	m.mu.Unlock()

	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, agent.Timeout)
	line, err := agent.ask(limited)
	cancel()
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if mb.gone {
		return
	}
	less, maxFlows := mb.asked.less, mb.asked.maxFlows
	if err == nil {
		err = mb.asked.hear(line)
	}
	mb.agentErr = err
	m.showLocked(mb, "")
	if mb.asked.less != less {
		m.log.Info("real server wants another share", "service", mb.Service, "real_server", mb.Server, "percent", 100-mb.asked.less)
		m.changedLocked(mb)
	}
	if mb.asked.maxFlows != maxFlows {
		m.log.Info("real server wants another limit", "service", mb.Service, "real_server", mb.Server, "max_flows", mb.asked.maxFlows)
		m.changedLocked(mb)
	}
	m.queueLocked(j, start.Add(jittered(agent.Interval)))
}

// queueLocked queues a job for a time.
func (m *Monitor) queueLocked(j *job, due time.Time) {
	heap.Push(&m.queue, &queued{due, j})
	if due.Before(m.next) {
		m.wakeUp()
	}
}

// dequeueLocked takes a job from the queue, if it is there.
func (m *Monitor) dequeueLocked(j *job) {
	if j.index != notQueued {
		heap.Remove(&m.queue, j.index)
	}
}

// jittered is d or up to a twentieth more or less, so that checks that fire
// together once, such as after a pause of the whole host, drift apart.
func jittered(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*float64(d)/10)
}

// showLocked makes what is known of mb public. cause says why its state
// changes, if it does; "": see member.why.
func (m *Monitor) showLocked(mb *member, cause string) {
	now := mb.state()
	if now == mb.shown {
		return
	}
	was := mb.shown
	mb.returned = now == Up && was != Checking
	mb.shown, mb.since = now, time.Now()
	mb.cause = cmp.Or(cause, mb.why())
	mb.transitions++
	level := slog.LevelInfo
	if was == Checking && now == Up {
		level = slog.LevelDebug // as it should be
	}
	m.log.Log(context.Background(), level, "real server is "+now.String(), "service", mb.Service, "real_server", mb.Server, "before", was, "cause", mb.cause)
	m.changedLocked(mb)
}

// changedLocked tells that the service of mb has changed.
func (m *Monitor) changedLocked(mb *member) {
	m.dirty[mb.Service] = true
	m.changed()
}

// Status is what is known of all Members, in no order.
func (m *Monitor) Status() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var all []Status
	for service := range m.members {
		all = m.appendLocked(all, service, now)
	}
	return all
}

// StatusOf is what is known of the Members of one service, in no order.
func (m *Monitor) StatusOf(service string) []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.appendLocked(nil, service, time.Now())
}

// appendLocked appends what is known of the Members of a service.
func (m *Monitor) appendLocked(all []Status, service string, now time.Time) []Status {
	for _, mb := range m.members[service] {
		all = append(all, mb.status(now))
	}
	return all
}

// TakeChanged is what is known of the Members of those services in which a
// state has changed since it was last called, by the service.
func (m *Monitor) TakeChanged() map[string][]Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	changed := make(map[string][]Status, len(m.dirty))
	for service := range m.dirty {
		if all := m.appendLocked(nil, service, now); all != nil {
			changed[service] = all
		}
	}
	clear(m.dirty)
	return changed
}
