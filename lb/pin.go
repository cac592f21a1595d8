package lb

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// Pin makes packets with the tuple t a flow of one real server of a service,
// whatever its weight, its limits and its state, in place of a flow that t has.
// So a health check reaches the real server by the service's own road. It needs
// no scheduler, and a known flow costs no more for it. No statistics count its
// packets and that it was opened: those of the real server tell of clients. now is the time of Run's
// clock.
//
// Unpin has the flow end; without it, it ends as others do.
func (b *Balancer) Pin(service string, server netip.AddrPort, t packet.Tuple, now time.Duration) error {
	rs, err := b.pinnable(service, packet.EndpointFrom(server))
	if err != nil {
		return err
	}
	hash := t.Hash(b.table.seed)
	b.table.end(&t, hash, 0) // who has the port now is the caller
	f := Flow{Tuple: t, Server: rs, State: first(t.Proto)}
	why := b.table.insert(&f, 0, flagPinned, hash, tickOf(now))
	if why != packet.OK {
		return fmt.Errorf("no flow to the real server: %v", why)
	}
	if !f.Server.Same(rs) || !b.table.pin(&t, hash) {
		return fmt.Errorf("the tuple has another flow, to %v", f.Server.Endpoint.AddrPort())
	}
	return nil
}

// pinnable is the real server at e, acquired for a flow.
func (b *Balancer) pinnable(service string, e packet.Endpoint) (*RealServer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.byName[service]; s != nil {
		for _, rs := range s.set {
			if rs.Endpoint == e && rs.acquire() {
				return rs, nil
			}
		}
	}
	return nil, fmt.Errorf("service %q has no real server %v", service, e.AddrPort())
}

// pin marks the flow of the tuple t, so that a real server that is down gets
// its packets too. It is false where there is none any more.
func (t *Table) pin(tuple *packet.Tuple, hash uint64) bool {
	s := &t.shards[t.shardOf(hash)]
	s.mu.Lock()
	defer s.mu.Unlock()
	n := t.entryLocked(s, tuple, hash)
	if n != 0 {
		t.entries.all[n].flags |= flagPinned
	}
	return n != 0
}

// unpinned is how long, in ticks, a TCP flow outlives Unpin: a second, until the
// reset by which the check has closed its connection is read from its queue.
// Without the flow it would not reach the real server, which would wait for an
// answer to its FIN for minutes. For so long the flow outlives the reset too.
const unpinned = 15

// Unpin has the flow that Pin has made for t end, if it is still there: at once,
// or within a moment where its last packet may be on the way. now is the time of
// Run's clock.
func (b *Balancer) Unpin(t packet.Tuple, now time.Duration) {
	hash := t.Hash(b.table.seed)
	if t.Proto != packet.TCP || !b.table.shorten(&t, hash, tickOf(now)+unpinned) {
		b.table.end(&t, hash, flagPinned)
	}
}

// shorten has the pinned flow of the tuple t end at deadline at the latest. It
// is false where the flow is closed already, or there is none.
func (t *Table) shorten(tuple *packet.Tuple, hash uint64, deadline uint32) bool {
	s := &t.shards[t.shardOf(hash)]
	s.mu.Lock()
	defer s.mu.Unlock()
	n := t.entryLocked(s, tuple, hash)
	e := &t.entries.all[n]
	if n == 0 || e.flags&flagPinned == 0 || e.state == TCPClose {
		return false
	}
	if int32(e.deadline-deadline) > 0 {
		t.withdrawLocked(e)
		e.deadline = deadline
		t.refileLocked(s, n)
	}
	return true
}

// end ends the flow of the tuple t if it has the flags.
func (t *Table) end(tuple *packet.Tuple, hash uint64, flags uint8) {
	s := &t.shards[t.shardOf(hash)]
	s.mu.Lock()
	n := t.entryLocked(s, tuple, hash)
	if n == 0 || t.entries.all[n].flags&flags != flags {
		s.mu.Unlock()
		return
	}
	s.expired++
	reply := t.removeLocked(s, n)
	s.mu.Unlock()
	t.removeReply(reply)
}
