// Package bfd finds out within a second that a router is gone: Bidirectional
// Forwarding Detection in asynchronous mode, over one hop (RFC 5880, 5881) or
// several (RFC 5883).
//
// A [Monitor] keeps one session to each of its [Peer]s. Both ends send a small
// packet every interval; one that hears nothing for the detection time, some
// intervals, takes the other for lost.
//
//	peer ──► UDP 3784, 4784 ──► parse ──► whose? TTL? ──► session.receive
//	peer ◄── a socket for each session ◄── session.due ◄── time
//
// All sessions are served by one goroutine on a thread of its own, which
// allocates nothing while it runs, so that neither the packet loops nor the
// rest of the program can make it late.
package bfd

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The UDP ports (RFC 5881 section 4, RFC 5883 section 5).
const (
	singleHopPort = 3784
	multihopPort  = 4784
)

// A Peer is the other end of a session.
type Peer struct {
	Name    string     // how statistics and logs call it; no two have the same
	Address netip.Addr // with a zone where it is link-local
	Local   netip.Addr // where packets come from; zero: as the host routes

	// Multihop: the peer is not on the same link. One that is must send with
	// the TTL 255, so nobody beyond the link can speak for it (RFC 5881 section
	// 5); of one that is not no TTL is asked for (RFC 5883) but MinTTL.
	Multihop bool
	MinTTL   int

	Interval   time.Duration // between packets, ours and those we can take
	Multiplier uint8         // after so many intervals of ours the peer takes us for lost
}

// PeerStats is one session. Counters never go down.
type PeerStats struct {
	Name       string
	State      State
	Since      time.Time // of State
	Diag       Diag      // why the state is no longer Up
	Remote     State     // what the peer says of itself
	RemoteDiag Diag
	Detection  time.Duration // after so long without a packet the peer is lost; 0: it never spoke
	Ups, Downs uint64        // how often it came up, and how often it left that state
	Lost       uint64        // Downs because the peer was silent for the detection time
	Sent       uint64        // packets
	Received   uint64
}

// A Monitor keeps the sessions.
type Monitor struct {
	log     *slog.Logger
	changed chan struct{}
	invalid atomic.Uint64

	mu    sync.Mutex
	peers []Peer // wanted
	fresh bool   // the loop has not seen them
	wake  *eventFD
	stats map[string]PeerStats // by Name; the loop writes them when something changes

	ports    [2]int     // single hop and multihop
	listenOn netip.Addr // zero: every address
}

// New makes a monitor without peers. It touches nothing until Run.
func New(log *slog.Logger) *Monitor {
	return &Monitor{
		log: log, changed: make(chan struct{}, 1), stats: map[string]PeerStats{},
		ports: [2]int{singleHopPort, multihopPort},
	}
}

// Set makes peers those that there are sessions to. A session whose peer stays
// the same goes on; that of one which is gone ends with a word to the peer
// that this is no failure.
func (m *Monitor) Set(peers []Peer) error {
	names := map[string]bool{}
	for _, p := range peers {
		switch {
		case names[p.Name]:
			return fmt.Errorf("bfd: peer %s: there twice", p.Name)
		case !p.Address.IsValid():
			return fmt.Errorf("bfd: peer %s: no address", p.Name)
		case p.Interval < time.Millisecond || p.Interval > maxInterval || p.Multiplier == 0:
			return fmt.Errorf("bfd: peer %s: %d packets every %v", p.Name, p.Multiplier, p.Interval)
		}
		names[p.Name] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peers, m.fresh = peers, true
	if m.wake != nil {
		return m.wake.signal()
	}
	return nil
}

// maxInterval is what 32 bits of microseconds hold, well rounded down.
const maxInterval = time.Hour

// Changed receives after a session's state changed; changes that follow fast
// are told once.
func (m *Monitor) Changed() <-chan struct{} { return m.changed }

// Stats is the state of each session, in the order of Set.
func (m *Monitor) Stats() []PeerStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]PeerStats, 0, len(m.peers))
	for _, p := range m.peers {
		s, known := m.stats[p.Name]
		if !known {
			s = PeerStats{Name: p.Name, State: Down, Remote: Down}
		}
		all = append(all, s)
	}
	return all
}

// Known is the state of each session that there is or was, in no order. One
// that was is AdminDown; its counters are those of all sessions of its name.
func (m *Monitor) Known() []PeerStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.stats))
}

// Invalid counts packets that belong to no session or break a rule: hostile,
// broken or late.
func (m *Monitor) Invalid() uint64 { return m.invalid.Load() }

var errRunning = errors.New("bfd: runs already")
