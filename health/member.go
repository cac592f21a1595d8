package health

import (
	"net/netip"
	"reflect"
	"time"
)

// A Member is one real server of one service, to be watched.
type Member struct {
	Service string
	Server  netip.AddrPort // as the configuration has it; with Service it names the Member

	Check     Check   // nil: taken as up
	Options   Options // that Check was built from
	To        Target
	Timing    Timing
	Agent     Agent
	Ejection  time.Duration // how long Eject takes it out the first time; 0: not at all
	SlowStart time.Duration // for so long a real server that came back is in SlowStart; 0: not at all
}

// sameCheck says whether results for m are results for o.
func (m *Member) sameCheck(o *Member) bool {
	return (m.Check == nil) == (o.Check == nil) && m.Agent == o.Agent && m.To.Addr == o.To.Addr && reflect.DeepEqual(m.Options, o.Options)
}

// A member is a Member with what is known of it. It is guarded by the mutex of
// its Monitor.
type member struct {
	Member
	job     job       // that checks it
	shake   handshake // of job
	ask     job       // that asks its agent
	readmit job       // that ends its ejection
	gone    bool      // not a Member any more

	verdict     verdict
	shown       State // Status has it, but for SlowStart
	since       time.Time
	cause       string // of shown
	returned    bool   // it was Down before it was Up
	transitions uint64

	ejection ejection
	asked    asked
	agentErr error // of the latest question to the agent

	last      error // of the latest check
	lastTook  time.Duration
	good, bad uint64
}

// handshake is what the check of m comes down to, where that is all; nil: it is
// more than that.
func (m *member) handshake() *handshake {
	c, ok := m.Check.(*tcp)
	if !ok || !c.mere(&m.To) {
		return nil
	}
	m.shake = handshake{to: m.To.Addr, timeout: m.Timing.Timeout, job: &m.job}
	return &m.shake
}

// state is what the member is now, but for SlowStart.
func (m *member) state() State {
	switch {
	case m.asked.maintenance:
		return Maintenance
	case m.asked.down, m.ejection.on, m.verdict.known && !m.verdict.up:
		return Down
	case m.Check != nil && !m.verdict.known:
		return Checking
	case m.asked.drain:
		return Draining
	}
	return Up
}

// newMember is the first form of a member or, after old, the next.
func newMember(want Member, old *member, now time.Time) *member {
	m := &member{Member: want, since: now}
	m.job = job{of: m, index: notQueued, do: (*Monitor).check}
	m.ask = job{of: m, index: notQueued, do: (*Monitor).askAgent}
	m.readmit = job{of: m, index: notQueued, do: (*Monitor).readmit}
	if old != nil {
		m.verdict = verdict{known: old.verdict.known || old.Check == nil, untried: true, up: old.verdict.up || old.Check == nil}
		if m.Agent.Addr == old.Agent.Addr {
			m.asked = old.asked
		}
		m.ejection = old.ejection
		m.since, m.cause, m.returned = old.since, old.cause, old.returned
		m.good, m.bad, m.transitions = old.good, old.bad, old.transitions
	}
	if m.shown = m.state(); old != nil && m.shown != old.shown {
		m.since, m.cause = now, m.why()
		m.transitions++
	}
	return m
}

// note takes the result of a check that took so long.
func (m *member) note(err error, took time.Duration) {
	m.last, m.lastTook = err, took
	if err == nil {
		m.good++
	} else {
		m.bad++
	}
	m.verdict.add(err == nil, &m.Timing)
}

// why says for an operator why the state is what it is.
func (m *member) why() string {
	switch {
	case m.asked.maintenance, m.asked.drain && m.shown == Draining:
		return "the agent says so"
	case m.asked.down:
		return "the agent says " + m.asked.why
	case m.ejection.on:
		return m.ejection.why
	case m.Check == nil:
		return "not checked"
	case m.last != nil:
		return m.last.Error()
	}
	return "check succeeded"
}

// Status is what a Monitor knows of one Member.
type Status struct {
	Service string
	Server  netip.AddrPort

	State State
	Since time.Time // of the state
	Cause string    // of the state
	Check string    // the type of the check

	Percent    int    // of its weight that the real server is to have, as its agent says
	MaxFlows   int    // that its agent wants it to have at most; 0: as configured
	AgentError string // of the latest question to the agent; empty: none

	Ejected           time.Time // until then; zero: it is not ejected
	Ejections, Spared uint64    // how often it was, and how often it was to be and was not

	LastError   string        // of the latest check; empty: it was good, or there was none
	LastTook    time.Duration // it took so long
	Good, Bad   uint64        // checks so far
	Transitions uint64        // changes of the state so far
}

func (m *member) status(now time.Time) Status {
	s := Status{
		Service: m.Service, Server: m.Server,
		State: m.shown, Since: m.since, Cause: m.cause, Check: m.Options.Type,
		Percent: 100 - m.asked.less, MaxFlows: m.asked.maxFlows, LastTook: m.lastTook, Good: m.good, Bad: m.bad, Transitions: m.transitions,
	}
	if s.Ejections, s.Spared = m.ejection.total, m.ejection.spared; m.ejection.on {
		s.Ejected = m.ejection.until
	}
	if m.last != nil {
		s.LastError = m.last.Error()
	}
	if m.agentErr != nil {
		s.AgentError = m.agentErr.Error()
	}
	if s.State == Up && m.returned && now.Sub(m.since) < m.SlowStart {
		s.State = SlowStart
	}
	return s
}
