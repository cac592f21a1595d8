package bgp

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// peerTable is what is known of the sessions.
type peerTable struct {
	mu    sync.Mutex
	peers map[int]*peerState // by their numbers inside; guarded by mu
	next  int                // guarded by mu; the number given last
}

// peerState is one peer's; guarded by the table's mu.
type peerState struct {
	PeerStats
	addr   netip.Addr    // where it is; not valid until it is found
	cause  string        // of the end of the session; empty while it lives or is tried
	said   string        // the error that was logged last, since the session's end
	active chan struct{} // has something when GoBGP became ready
}

func newPeerTable() *peerTable { return &peerTable{peers: map[int]*peerState{}} }

// add takes a peer in by a number that is free. It goes on counting from
// earlier.
func (t *peerTable) add(i int, p *Peer, earlier PeerStats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	earlier.Peer, earlier.AS, earlier.State, earlier.Since = p.Name, p.AS, Active, time.Now()
	t.peers[i] = &peerState{PeerStats: earlier, addr: p.Address, active: make(chan struct{}, 1)}
	t.next = max(t.next, i)
}

// remove forgets a peer, whose gate has ended, and returns what was counted.
func (t *peerTable) remove(i int) PeerStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.peers[i].PeerStats
	delete(t.peers, i)
	return was
}

// clear forgets all peers and returns what was counted, by their names.
func (t *peerTable) clear() map[string]PeerStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := map[string]PeerStats{}
	for _, p := range t.peers {
		was[p.Peer] = p.PeerStats
	}
	clear(t.peers)
	return was
}

// free is a number that no peer has, nor had lately: what GoBGP still tells of
// one that is gone must not be taken for another's.
func (t *peerTable) free() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		t.next = (t.next + 1) % maxNumbers
		if t.peers[t.next] == nil {
			return t.next
		}
	}
}

// index is the number of the peer that GoBGP calls by a key, -1 for none.
func (t *peerTable) index(key string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.peers {
		if inside(i).String() == key {
			return i
		}
	}
	return -1
}

// of is what is known of peer i. Of one that was removed meanwhile it is
// nothing, kept nowhere. t.mu is held.
func (t *peerTable) of(i int) *peerState {
	if p := t.peers[i]; p != nil {
		return p
	}
	return &peerState{}
}

// found notes where peer i is.
func (t *peerTable) found(i int, at netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(i).addr = at
}

// address is where peer i is.
func (t *peerTable) address(i int) netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of(i).addr
}

// session says where peer i is, and whether its session is established.
func (t *peerTable) session(i int) (at netip.Addr, up bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.of(i)
	return p.addr, p.State == Established
}

// awaitActive waits until GoBGP is ready for a session.
func (t *peerTable) awaitActive(ctx context.Context, i int) error {
	for {
		t.mu.Lock()
		p := t.of(i)
		ready := p.State == Active
		t.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.active:
		}
	}
}

// received counts a message of peer i, sent one to it, refused the prefixes
// that it announced.
func (t *peerTable) received(i int, kind uint8) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(i).Received.count(kind)
}

func (t *peerTable) sent(i int, kind uint8) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(i).Sent.count(kind)
}

func (t *peerTable) refused(i, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(i).Refused += uint64(n)
}

var states = map[api.PeerState_SessionState]State{
	api.PeerState_IDLE: Idle, api.PeerState_CONNECT: Active, api.PeerState_ACTIVE: Active,
	api.PeerState_OPENSENT: OpenSent, api.PeerState_OPENCONFIRM: OpenConfirm, api.PeerState_ESTABLISHED: Established,
}

// event follows the sessions' states.
func (s *Speaker) event(e *api.WatchEventResponse) {
	p := e.GetPeer()
	if p == nil || p.Type != api.WatchEventResponse_PeerEvent_STATE {
		return
	}
	i, state := s.peers.index(p.Peer.State.NeighborAddress), states[p.Peer.State.SessionState]
	if i < 0 || state == "" {
		return
	}
	s.peers.is(s.log, i, state)
	if err := s.monitored(); err != nil {
		s.log.Error("BFD cannot watch the peers", "error", err)
	}
}

// is notes a session's state.
func (t *peerTable) is(log *slog.Logger, i int, state State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.of(i)
	was := p.State
	p.State = state
	switch {
	case state == Established && was != Established:
		p.Since, p.cause, p.said = time.Now(), "", ""
		p.Ups++
		log.Info("BGP session established", "peer", p.Peer, "as", p.AS)
	case was == Established && state != Established:
		p.Since, p.said = time.Now(), p.cause
		p.Downs++
		log.Warn("BGP session lost", "peer", p.Peer, "as", p.AS, "reason", cmp.Or(p.cause, "the connection broke"))
	}
	if state == Active {
		select {
		case p.active <- struct{}{}:
		default: // nobody has looked since the last time
		}
	}
}

// tries notes that a session is tried anew.
func (t *peerTable) tries(i int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(i).cause = ""
}

// failed notes why peer i has no session. It is logged when it is news.
func (t *peerTable) failed(log *slog.Logger, i int, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.of(i)
	p.LastError, p.cause = why, why
	if p.State == Established || p.said == why {
		return // the end of the session says it, or it was said
	}
	p.said = why
	log.Warn("no BGP session", "peer", p.Peer, "as", p.AS, "reason", why)
}

// ended is failed, unless a better reason is known.
func (t *peerTable) ended(log *slog.Logger, i int, why string) {
	t.mu.Lock()
	known := t.of(i).cause != ""
	t.mu.Unlock()
	if !known {
		t.failed(log, i, why)
	}
}

// broke notes why the session of peer i will end.
func (t *peerTable) broke(i int, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.of(i)
	p.LastError, p.cause = why, why
}
