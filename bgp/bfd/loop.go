package bfd

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// farewells are sent when a session ends: one may be lost.
	farewells = 3

	// readBatch bounds the packets read in one go, so that a flood of foreign
	// ones cannot keep ours from leaving.
	readBatch = 64

	// niceness of the thread, where we may: before all that are not of real
	// time. It sleeps nearly always.
	niceness = -20

	maxTTL = 255
)

// A loop is what Run works with; only its goroutine touches it.
type loop struct {
	m         *Monitor
	start     time.Time
	wake      *eventFD
	random    *mathrand.Rand
	sessions  []*link
	listeners []*listener
	polled    []unix.PollFd // the eventfd, then the listeners
	out       []byte

	retryAt time.Duration // what could not be opened is tried again then; 0: all is open
	said    string        // why it could not
}

// A link is a session with its peer and its socket.
type link struct {
	*session
	peer  Peer
	fd    int           // sends
	to    unix.Sockaddr // whither
	zone  int           // the interface that the peer is on, 0 for any
	stats PeerStats
}

// Run serves the sessions until ctx ends; the peers are then told that this is
// no failure. It returns nil when ctx ended it.
func (m *Monitor) Run(ctx context.Context) error {
	wake, err := newEventFD()
	if err != nil {
		return fmt.Errorf("bfd: %w", err)
	}
	defer wake.close()
	m.mu.Lock()
	if m.wake != nil {
		m.mu.Unlock()
		return errRunning
	}
	m.wake, m.fresh = wake, true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.wake = nil
		m.mu.Unlock()
	}()
	stop := context.AfterFunc(ctx, func() { _ = wake.signal() }) // the eventfd is open until stop
	defer stop()

	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return fmt.Errorf("bfd: %w", err)
	}
	l := &loop{m: m, start: time.Now(), wake: wake, random: mathrand.New(mathrand.NewChaCha8(seed)), out: make([]byte, 0, packetLen)}
	defer l.close()
	// The thread ends with the goroutine: its niceness is not for others.
	runtime.LockOSThread()
	// Where we may not, the scheduler still prefers a thread that sleeps.
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), niceness)
	for ctx.Err() == nil {
		if err := l.step(); err != nil {
			return fmt.Errorf("bfd: %w", err)
		}
	}
	return nil
}

func (l *loop) now() time.Duration { return time.Since(l.start) }

// step waits for a packet, a deadline or a wish, and does what it asks for.
func (l *loop) step() error {
	l.takePeers()
	if err := l.wait(); err != nil {
		return err
	}
	l.wake.drain()
	for _, in := range l.listeners {
		l.read(in)
	}
	now := l.now()
	for _, s := range l.sessions {
		was := s.state
		if s.due(now) {
			l.send(s, s.packet())
		}
		l.note(s, was)
	}
	return nil
}

// wait sleeps until the next deadline at most.
func (l *loop) wait() error {
	next := time.Duration(1<<63 - 1)
	for _, s := range l.sessions {
		next = min(next, s.next())
	}
	if l.retryAt != 0 {
		next = min(next, l.retryAt)
	}
	var timeout *unix.Timespec
	if next != 1<<63-1 {
		ts := unix.NsecToTimespec(int64(max(0, next-l.now())))
		timeout = &ts
	}
	_, err := unix.Ppoll(l.polled, timeout, nil)
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("ppoll: %w", err)
	}
	return nil
}

// read takes what has come in.
func (l *loop) read(in *listener) {
	for range readBatch {
		from, ttl, ifindex, n := in.receive()
		if n < 0 {
			return
		}
		p, err := parsePacket(in.buf[:n])
		if err != nil {
			l.m.invalid.Add(1)
			continue
		}
		s := l.find(p, in.multihop, from, ifindex)
		if s == nil || ttl < s.minTTL() {
			l.m.invalid.Add(1)
			continue
		}
		s.stats.Received++
		was := s.state
		if answer, final := s.receive(p, l.now()); answer {
			reply := s.packet()
			reply.poll, reply.final = false, final
			l.send(s, reply)
		}
		l.note(s, was)
	}
}

// find is the session that a packet is for: by our discriminator, once the
// peer knows it (RFC 5880 section 6.3), else by where it comes from. The
// address must fit in both cases: nobody else speaks for a peer.
func (l *loop) find(p packet, multihop bool, from netip.Addr, ifindex int) *link {
	for _, s := range l.sessions {
		if s.peer.Multihop != multihop || s.peer.Address.WithZone("") != from || s.zone != 0 && s.zone != ifindex {
			continue
		}
		if p.yours == 0 || p.yours == s.mine {
			return s
		}
	}
	return nil
}

// minTTL is the least that a packet of the peer can have.
func (s *link) minTTL() int {
	if s.peer.Multihop {
		return s.peer.MinTTL
	}
	return maxTTL
}

func (l *loop) send(s *link, p packet) {
	l.out = p.append(l.out[:0])
	// One that cannot be sent is like one that is lost on its way.
	if unix.Sendto(s.fd, l.out, unix.MSG_DONTWAIT, s.to) == nil {
		s.stats.Sent++
	}
}

func (l *loop) port(multihop bool) int {
	if multihop {
		return l.m.ports[1]
	}
	return l.m.ports[0]
}

// note publishes a session's state after a step in which it was another.
func (l *loop) note(s *link, was State) {
	if s.state != was {
		s.stats.Since = time.Now()
		switch {
		case s.state == Up:
			s.stats.Ups++
			l.m.log.Info("BFD session up", "peer", s.peer.Name, "detection_time", s.detectionTime())
		case was == Up:
			s.stats.Downs++
			if s.diag == TimeExpired {
				s.stats.Lost++
			}
			l.m.log.Warn("BFD session down", "peer", s.peer.Name, "reason", s.diag, "peer_state", s.remote, "peer_reason", s.remoteDiag)
		}
	}
	l.publish(s)
	if s.state != was {
		select {
		case l.m.changed <- struct{}{}:
		default: // it is told already
		}
	}
}

func (l *loop) publish(s *link) {
	s.stats.State, s.stats.Diag, s.stats.Remote, s.stats.RemoteDiag = s.state, s.diag, s.remote, s.remoteDiag
	s.stats.Detection = 0
	if s.remoteMultiplier != 0 {
		s.stats.Detection = s.detectionTime()
	}
	l.m.mu.Lock()
	l.m.stats[s.peer.Name] = s.stats
	l.m.mu.Unlock()
}
