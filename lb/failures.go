package lb

import (
	"net/netip"
	"sync/atomic"
)

// Failures counts TCP connections that a real server did not take. They are
// seen in nat and fullnat, whose replies cross the director; a connection fails
// once at most.
type Failures struct {
	Refused    uint64 // the client's SYN was answered by a RST
	Unanswered uint64 // it was not answered: see answerTime
}

// A Failing is a real server that did not take as many connections in a row as
// Policy.Failures says. The next report of it is about further ones.
type Failing struct {
	Service string
	Server  netip.AddrPort
	Row     Failures
}

// failures are those of one real server.
type failures struct {
	refused, unanswered atomic.Uint64

	row    atomic.Uint64 // those in a row, where Policy.Failures asks for them: rowRefused or rowUnanswered for each
	failed atomic.Bool   // row has reached Policy.Failures since Tick looked
	since  atomic.Uint32 // tick of the latest answer or report: what was asked before says nothing of how it is now
}

const (
	rowUnanswered = 1
	rowRefused    = 1 << 32
)

// inRow reads a row.
func inRow(row uint64) Failures { return Failures{Refused: row >> 32, Unanswered: row % (1 << 32)} }

// All is the number of connections that failed.
func (f Failures) All() uint64 { return f.Refused + f.Unanswered }

func (f *failures) counted() Failures {
	return Failures{Refused: f.refused.Load(), Unanswered: f.unanswered.Load()}
}

// answerTime, in ticks, is how long a SYN is waited upon: a client that sends
// it again has had no answer for that time, 0.87 s. Clients do so after a second
// (RFC 6298 section 2.1). Where none does, the flow's own deadline counts.
const answerTime = 13

// settlesLocked learns from a packet of entry e, whose flow waits for the real
// server's answer to a SYN, what the answer is. It is called before the packet
// moves the entry's deadline.
func (t *Table) settlesLocked(e *entry, rs *RealServer, d Direction, ev event, now uint32) {
	switch {
	case ev == eventPeek || ev == eventKeep:
	case d == Reply && ev == tcpRST:
		e.flags |= flagSettled
		rs.refused.Add(1)
		t.fail(rs, rowRefused)
	case d == Reply:
		e.flags |= flagSettled
		if rs.service.policy.Failures > 0 {
			rs.answers(now)
		}
	case ev == tcpSYN && int32(now-rs.asked(e)) >= answerTime:
		t.unansweredLocked(e, rs)
	}
}

// asked is the tick of the latest packet of entry e, whose real server is r.
func (r *RealServer) asked(e *entry) uint32 { return e.deadline - r.service.lifetimes[e.state] }

// answers ends the row. Many queues do so at a time, hence no store without
// need.
func (f *failures) answers(now uint32) {
	if f.row.Load() != 0 {
		f.row.Store(0)
	}
	if f.since.Load() != now {
		f.since.Store(now)
	}
}

// unansweredLocked notes that entry e got no answer to its SYN.
func (t *Table) unansweredLocked(e *entry, rs *RealServer) {
	e.flags |= flagSettled
	rs.unanswered.Add(1)
	if int32(rs.asked(e)-rs.since.Load()) >= 0 {
		t.fail(rs, rowUnanswered)
	}
}

// awaitsAnswer says whether entry e has a SYN that was neither answered nor
// given up, of a flow whose answer would cross the director. Flows of Pin do
// not count: who made them sees the answer.
func (e *entry) awaitsAnswer() bool {
	return e.state == TCPSynRecv && e.flags&(flagSettled|flagOneSided|flagPinned) == 0
}

// fail counts one failure more in a row. It is called on the packet's road, but
// only for connections that fail.
func (t *Table) fail(rs *RealServer, how uint64) {
	limit := rs.service.policy.Failures
	if limit > 0 && inRow(rs.row.Add(how)).All() >= uint64(limit) {
		rs.failed.Store(true)
		t.failing.Store(true)
	}
}

// tellFailing reports the real servers that have failed since it was last
// called.
func (b *Balancer) tellFailing(now uint32) {
	if b.onFailing == nil || !b.table.failing.Swap(false) {
		return
	}
	for _, f := range b.takeFailing(now) {
		b.onFailing(f)
	}
}

func (b *Balancer) takeFailing(now uint32) (all []Failing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.byName {
		for _, rs := range s.set {
			if !rs.failed.Swap(false) {
				continue
			}
			if row := inRow(rs.row.Swap(0)); row.All() >= uint64(max(1, s.policy.Failures)) {
				rs.since.Store(now)
				all = append(all, Failing{Service: s.name, Server: rs.Endpoint.AddrPort(), Row: row})
			}
		}
	}
	return all
}
