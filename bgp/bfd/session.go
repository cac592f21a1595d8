package bfd

import (
	"math/rand/v2"
	"time"
)

// State is a session's state (RFC 5880 section 4.1).
type State uint8

// The states.
const (
	AdminDown State = iota
	Down
	Init
	Up
)

// States are the names of the states, by their values.
var States = [...]string{AdminDown: "admin_down", Down: "down", Init: "init", Up: "up"}

func (s State) String() string { return States[s&3] }

// Diag says why a session left Up (RFC 5880 section 4.1).
type Diag uint8

// The diagnostics that we give.
const (
	NoDiag       Diag = 0
	TimeExpired  Diag = 1 // the peer was silent for the detection time
	NeighborDown Diag = 3 // the peer says that it is down
	Disabled     Diag = 7 // somebody wants it so
)

func (d Diag) String() string {
	names := [...]string{
		"none", "control detection time expired", "echo function failed", "neighbor signaled session down",
		"forwarding plane reset", "path down", "concatenated path down", "administratively down", "reverse concatenated path down",
	}
	if int(d) < len(names) {
		return names[d]
	}
	return "reserved"
}

// slowInterval is the shortest between packets of a session that is not up
// (RFC 5880 section 6.8.3).
const slowInterval = time.Second

// A session is one peer's, as RFC 5880 section 6.8.1 describes it. It knows no
// sockets and no clock: receive and due are its steps, time is an argument,
// and what is to be sent is what they return.
type session struct {
	interval   time.Duration // of our packets when up, and the shortest that we can take
	multiplier uint8
	random     *rand.Rand // jitter

	state      State
	diag       Diag // of our last change
	mine       uint32
	yours      uint32 // 0: not known
	remote     State
	remoteDiag Diag

	desiredMinTx     time.Duration
	polling          bool          // a poll sequence of ours awaits its final
	remoteMinRx      time.Duration // 0: the peer wants no packets
	remoteMinTx      time.Duration
	remoteMultiplier uint8

	sendAt   time.Duration // the next periodic packet; 0: at once
	detectAt time.Duration // the peer is lost then; 0: nothing was heard since it was
}

func newSession(interval time.Duration, multiplier uint8, mine uint32, random *rand.Rand) *session {
	return &session{
		interval: interval, multiplier: multiplier, mine: mine, random: random,
		state: Down, remote: Down,
		desiredMinTx: max(interval, slowInterval),
		remoteMinRx:  time.Microsecond, // RFC 5880 section 6.8.1
	}
}

// packet is what the session says now.
func (s *session) packet() packet {
	return packet{
		diag: s.diag, state: s.state, poll: s.polling, multiplier: s.multiplier,
		mine: s.mine, yours: s.yours, desiredMinTx: s.desiredMinTx, requiredMinRx: s.interval,
	}
}

// receive takes a packet of the peer. It returns true when one must be sent
// at once: final then says with which bit.
func (s *session) receive(p packet, now time.Duration) (answer bool, final bool) {
	s.yours = p.mine
	s.remote, s.remoteDiag = p.state, p.diag
	s.remoteMinRx, s.remoteMinTx, s.remoteMultiplier = p.requiredMinRx, p.desiredMinTx, p.multiplier
	if p.final {
		s.polling = false
	}
	if s.state == AdminDown {
		return false, false
	}
	s.detectAt = now + s.detectionTime()
	was := s.state
	switch {
	case p.state == AdminDown:
		if s.state != Down {
			s.set(Down, NeighborDown)
		}
	case s.state == Down && p.state == Down:
		s.set(Init, NoDiag)
	case s.state == Down && p.state == Init, s.state == Init && (p.state == Init || p.state == Up):
		s.set(Up, NoDiag)
	case s.state == Up && p.state == Down:
		s.set(Down, NeighborDown)
	}
	if s.state != was {
		s.sendAt = now // let it know
	}
	// A packet was scheduled by what the peer asked for before.
	if next := now + s.txInterval(); s.sendAt > next {
		s.sendAt = next
	}
	return p.poll, p.poll
}

// set changes the state, and with it how fast we send. A change of speed is
// made known by a poll sequence (RFC 5880 section 6.8.3).
func (s *session) set(state State, why Diag) {
	s.state, s.diag = state, why
	tx := max(s.interval, slowInterval)
	if state == Up {
		tx = s.interval
	}
	if tx != s.desiredMinTx {
		s.desiredMinTx = tx
		s.polling = state == Up
	}
	if state != Up {
		s.polling = false
	}
}

// due does what time asks for. It returns true when the periodic packet is to
// be sent.
func (s *session) due(now time.Duration) (send bool) {
	if s.detectAt != 0 && now >= s.detectAt {
		// Nothing of what the peer said holds any more.
		s.detectAt, s.yours = 0, 0
		s.remote, s.remoteMinRx = Down, time.Microsecond
		if s.state == Init || s.state == Up {
			s.set(Down, TimeExpired)
			s.sendAt = now
		}
	}
	if s.remoteMinRx == 0 || now < s.sendAt {
		return false
	}
	s.sendAt = now + s.jittered(s.txInterval())
	return true
}

// next is when due has something to do.
func (s *session) next() time.Duration {
	next := s.sendAt
	if s.remoteMinRx == 0 {
		next = 1<<63 - 1
	}
	if s.detectAt != 0 {
		next = min(next, s.detectAt)
	}
	return next
}

// detectionTime is from the values that both sides agreed on (RFC 5880
// section 6.8.4).
func (s *session) detectionTime() time.Duration {
	return time.Duration(s.remoteMultiplier) * max(s.interval, s.remoteMinTx)
}

func (s *session) txInterval() time.Duration { return max(s.desiredMinTx, s.remoteMinRx) }

// jittered takes off 0 to 25 per cent, so that sessions do not fall into step;
// with a multiplier of 1 at least 10, so that the peer does not wait in vain
// (RFC 5880 section 6.8.7).
func (s *session) jittered(d time.Duration) time.Duration {
	least, most := 0, 25
	if s.multiplier == 1 {
		least = 10
	}
	off := float64(least) + s.random.Float64()*float64(most-least)
	return d - time.Duration(float64(d)*off/100)
}
