package bfd

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// takePeers brings the sessions to what Set wanted. What cannot be had now,
// such as an interface that is not there, is tried again; the other sessions
// do not suffer.
func (l *loop) takePeers() {
	l.m.mu.Lock()
	peers, fresh := l.m.peers, l.m.fresh
	l.m.fresh = false
	l.m.mu.Unlock()
	if !fresh && (l.retryAt == 0 || l.now() < l.retryAt) {
		return
	}
	old := map[Peer]*link{}
	for _, s := range l.sessions {
		old[s.peer] = s
	}
	for p, s := range old {
		if !slices.Contains(peers, p) {
			l.end(s)
		}
	}
	var errs []error
	var sessions []*link
	for _, p := range peers {
		s := old[p]
		if s == nil {
			var err error
			if s, err = l.open(p); err != nil {
				errs = append(errs, fmt.Errorf("peer %s: %w", p.Name, err))
				continue
			}
		}
		sessions = append(sessions, s)
	}
	l.sessions = sessions
	for _, s := range sessions {
		l.publish(s)
	}
	l.tried(errors.Join(errors.Join(errs...), l.listen()))
}

// retryEvery is how often what could not be opened is tried again.
const retryEvery = time.Second

// tried notes whether all that is wanted is open.
func (l *loop) tried(err error) {
	l.retryAt = 0
	if err == nil {
		l.said = ""
		return
	}
	l.retryAt = l.now() + retryEvery
	if text := err.Error(); text != l.said {
		l.said = text
		l.m.log.Error("BFD cannot watch every peer", "error", text)
	}
}

// open starts a session.
func (l *loop) open(p Peer) (*link, error) {
	zone, err := zoneIndex(p.Address.Zone())
	if err != nil {
		return nil, err
	}
	fd, err := openSender(p, zone)
	if err != nil {
		return nil, err
	}
	s := &link{
		session: newSession(p.Interval, p.Multiplier, l.discriminator(), l.random),
		peer:    p, fd: fd, to: sockaddr(p.Address, zone, l.port(p.Multihop), p.Address.Is6()), zone: zone,
	}
	l.m.mu.Lock()
	s.stats = l.m.stats[p.Name] // of an earlier session
	l.m.mu.Unlock()
	s.stats.Name, s.stats.Since = p.Name, time.Now()
	s.sendAt = l.now()
	return s, nil
}

// discriminator is a number that no session has and nobody can guess.
func (l *loop) discriminator() uint32 {
	for {
		n := uint32(l.random.Uint64()) // of a generator that predicts nothing
		if n != 0 && !slices.ContainsFunc(l.sessions, func(s *link) bool { return s.mine == n }) {
			return n
		}
	}
}

// end tells the peer that the session ends because we want it so.
func (l *loop) end(s *link) {
	s.state, s.diag, s.polling = AdminDown, Disabled, false
	for range farewells {
		l.send(s, s.packet())
	}
	unix.Close(s.fd)
	s.stats.Since = time.Now()
	l.publish(s)
}

// listen opens the sockets that the sessions need and closes the others.
func (l *loop) listen() error {
	type kind struct{ v6, multihop bool }
	need := map[kind]bool{}
	for _, s := range l.sessions {
		need[kind{s.peer.Address.Is6(), s.peer.Multihop}] = true
	}
	var keep []*listener
	for _, in := range l.listeners {
		k := kind{in.v6, in.multihop}
		if !need[k] {
			unix.Close(in.fd)
			continue
		}
		delete(need, k)
		keep = append(keep, in)
	}
	l.listeners = keep
	var errs []error
	for k := range need {
		in, err := openListener(l.m.listenOn, k.v6, k.multihop, l.port(k.multihop))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l.listeners = append(l.listeners, in)
	}
	l.polled = append(l.polled[:0], unix.PollFd{Fd: int32(l.wake.fd), Events: unix.POLLIN})
	for _, in := range l.listeners {
		l.polled = append(l.polled, unix.PollFd{Fd: int32(in.fd), Events: unix.POLLIN})
	}
	return errors.Join(errs...)
}

func (l *loop) close() {
	for _, s := range l.sessions {
		l.end(s)
	}
	for _, in := range l.listeners {
		unix.Close(in.fd)
	}
}
