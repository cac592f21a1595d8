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
// no scheduler, and a known flow costs no more for it. now is the time of Run's
// clock.
//
// Unpin ends the flow; without it, it ends as others do.
func (b *Balancer) Pin(service string, server netip.AddrPort, t packet.Tuple, now time.Duration) error {
	rs, err := b.pinnable(service, packet.EndpointFrom(server))
	if err != nil {
		return err
	}
	hash := t.Hash(b.table.seed)
	b.table.end(&t, hash, 0) // who has the port now is the caller
	f := Flow{Tuple: t, Server: rs, State: first(t.Proto)}
	why := b.table.insert(&f, 0, hash, tickOf(now))
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

// Unpin ends the flow that Pin has made for t, if it is still there.
func (b *Balancer) Unpin(t packet.Tuple) { b.table.end(&t, t.Hash(b.table.seed), flagPinned) }

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
