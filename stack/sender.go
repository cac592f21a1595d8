package stack

import (
	"errors"

	"github.com/uvs-project/uvs/packet"
)

// maxRings is how many devices of one queue get a ring: those towards the
// clients and the real servers. Others do without.
const maxRings = 8

// A sender is one queue's way to the links. Small frames go by the ring of
// their device, super-packets and long frames by the frameBatch, and what a
// ring refuses by the frameBatch too, which finds the frame that is at fault.
// The frames of a device leave in the order in which they came.
type sender struct {
	batch *frameBatch
	rings []*txRing

	tally *tally
	count *counters
}

func openSender(t *tally, c *counters) (*sender, error) {
	socket, err := openLinkSocket()
	if err != nil {
		return nil, err
	}
	s := &sender{batch: newFrameBatch(socket), tally: t, count: c}
	for range maxRings {
		r, err := openRing()
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.rings = append(s.rings, r)
	}
	return s, nil
}

func (s *sender) close() error {
	errs := []error{s.batch.socket.close()}
	for _, r := range s.rings {
		errs = append(errs, r.close())
	}
	return errors.Join(errs...)
}

// send takes a frame and says whether it is held: then its bytes must stay as
// they are until flush. plain says that it is no super-packet.
func (s *sender) send(frame []byte, ifindex int, plain bool) (held bool) {
	r := s.ring(ifindex)
	if r != nil && plain && !r.batched && r.add(frame) {
		if r.pending == maxFrames {
			s.kick(r)
		}
		return false
	}
	if r != nil {
		s.kick(r)
		r.batched = true
	}
	s.batch.add(frame, ifindex)
	if s.batch.full() {
		s.flushBatch()
		return false
	}
	return true
}

// ring finds the ring of a device, or gives it one; nil where there is none.
func (s *sender) ring(ifindex int) *txRing {
	for _, r := range s.rings {
		if r.ifindex == ifindex {
			return r
		}
	}
	for _, r := range s.rings {
		if r.ifindex != 0 {
			continue
		}
		if r.attach(ifindex) != nil {
			r.ifindex = -1
			continue
		}
		return r
	}
	return nil
}

// flush sends all that is held and pending.
func (s *sender) flush() {
	for _, r := range s.rings {
		s.kick(r)
	}
	s.flushBatch()
}

// kick sends what is pending in r.
func (s *sender) kick(r *txRing) {
	if r.pending == 0 {
		return
	}
	ifindex := r.ifindex
	sent, refused := r.send()
	s.tally.byLink += uint64(sent)
	if refused == 0 {
		return
	}
	s.flushBatch()
	for i := range refused {
		s.batch.add(r.refusedFrame(i, refused), ifindex)
	}
	s.flushBatch()
	r.takeBack(refused)
}

func (s *sender) flushBatch() {
	n := s.batch.n
	if n == 0 {
		return
	}
	sent := s.batch.flush()
	s.tally.byLink += uint64(sent)
	if sent < n {
		s.count.lost[packet.SendFailed].Add(uint64(n - sent))
	}
	for _, r := range s.rings {
		r.batched = false
	}
}
