package lb

import (
	"sync/atomic"

	"github.com/uvs-project/uvs/packet"
)

// A connection is reset at both ends where the Policy says so: when it was
// idle for too long, or when its real server was removed. A host takes a RST
// only with the very sequence number that it expects (RFC 5961 section 3.2), so
// the table remembers for such services how far each connection has come. The
// client's packets tell it of both ends, and come by in every mode.
//
// What was reset stays in state CLOSE for a while. An end whose number was
// missed after all answers with a challenge ACK; that goes on to the other
// end, which knows nothing of the connection any more and resets it itself.

// A trail is how far a connection has come.
type trail struct {
	next uint32 // the sequence number that the client sends next, and the real server expects
	ack  uint32 // the one that the client expects next
}

// trailLocked follows the connection of entry n, whose lock is held, by a
// packet of the client's.
func (t *Table) trailLocked(n uint32, ev event, p *packet.Packet) {
	e, tr := &t.entries.all[n], &t.trails[n]
	if ev == tcpSYN {
		e.flags &^= flagTrailed // another connection, perhaps
		return
	}
	next, ack, ok := p.TCPNumbers()
	switch {
	case !ok:
	case e.flags&flagTrailed == 0:
		*tr = trail{next, ack}
		e.flags |= flagTrailed
	default:
		// What was sent again, or overtaken, is no step back.
		if int32(next-tr.next) > 0 {
			tr.next = next
		}
		if int32(ack-tr.ack) > 0 {
			tr.ack = ack
		}
	}
}

// resettable says whether the flow of an entry is a connection of which enough
// is known to reset it, and that is not over anyway.
func (e *entry) resettable() bool {
	return e.flags&flagTrailed != 0 && states[e.state].class == classKept
}

// resetsIdle says whether the flow of entry n, which is due, is to be reset.
func (t *Table) resetsIdle(n uint32) bool {
	e := &t.entries.all[n]
	return e.resettable() && t.servers.get(e.server).service.policy.ResetExpired
}

// resets are the connections that were closed with a lock held and whose ends
// are still to be told.
type resets struct {
	emit       func(*packet.Packet) bool // nil: nobody is told
	sent, lost atomic.Uint64             // packets

	n       int
	waiting [burst]struct {
		flow  Flow
		trail trail
	}
	buf [packet.Headroom + 128]byte
}

// resetLocked closes the flow of entry n of the locked shard s and notes that
// its ends are to be reset. The caller calls sendResets before burst are noted,
// and once it holds no lock.
func (t *Table) resetLocked(s *shard, n, now uint32) {
	e := &t.entries.all[n]
	f := t.flow(e)
	w := &t.resets.waiting[t.resets.n]
	w.flow, w.trail = f, t.trails[n]
	t.resets.n++
	e.deadline = now + f.Server.service.lifetimes[TCPClose]
	t.changeLocked(s, n, f.Server, TCPClose)
}

// sendResets tells both ends of the connections that resetLocked noted.
func (t *Table) sendResets() {
	r := &t.resets
	for i := range r.n {
		r.send(&r.waiting[i].flow, r.waiting[i].trail)
	}
	r.n = 0
}

func (r *resets) send(f *Flow, tr trail) {
	var p packet.Packet
	var rw packet.Rewrite
	f.Server.Mode.Rewrite(f, Request, &rw)
	if p.MakeReset(r.buf[:], &f.Tuple, tr.next, tr.ack) && rw.Apply(&p) == packet.OK {
		r.put(&p)
	}
	reply := f.Tuple.Reverse()
	if p.MakeReset(r.buf[:], &reply, tr.ack, tr.next) {
		r.put(&p)
	}
}

func (r *resets) put(p *packet.Packet) {
	if r.emit != nil && r.emit(p) {
		r.sent.Add(1)
		return
	}
	r.lost.Add(1)
}
