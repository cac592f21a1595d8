package stack

import (
	"fmt"
	"runtime"
	"time"

	"github.com/uvs-project/uvs/packet"
)

const (
	// maxBatch is the most packets of one round: what one sendmmsg takes.
	maxBatch = maxFrames

	// batchRoom is the memory, in bytes, for the packets of one round. They
	// lie in it one behind the other, so that a batch of small packets touches
	// a few pages only, and one of super-packets stays in a core's L2 cache
	// between the copy in and the copy out.
	batchRoom = 256 << 10

	// slotLen is what must be free for the next packet, whose length is not
	// known before it is read.
	slotLen = packet.Headroom + packet.MaxSize
)

// A loop carries the packets of one TUN queue. Everything in it belongs to the
// goroutine of run.
type loop struct {
	queue   Queue
	handler Handler
	egress  egress
	road    *Road

	room   []byte
	packet packet.Packet
	tally  tally
	count  counters
}

func newLoop(q Queue, h Handler, r *Road, o Options) *loop {
	l := &loop{queue: q, handler: h, road: r, room: make([]byte, batchRoom)}
	l.egress = egress{
		mode: o.Egress, routes: o.Routes, queue: q, room: make([]byte, splitRoom),
		tally: &l.tally, count: &l.count,
	}
	return l
}

// run carries packets until stop is set and the queue woken.
func (l *loop) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for !l.road.stop.Load() {
		drained, err := l.batch()
		if err != nil {
			return err
		}
		if !drained {
			continue
		}
		l.count.waits.Add(1)
		if err := l.queue.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// batch is one round: packets are read and handled until there is none left or
// the batch is full, then what leaves by link is sent. It says whether the
// queue is drained.
func (l *loop) batch() (drained bool, err error) {
	var now time.Duration
	used, n := 0, 0
	for n < maxBatch && len(l.room)-used >= slotLen {
		buf := l.room[used:]
		m, err := l.queue.Read(buf[packet.Headroom-packet.VNetLen : slotLen])
		if err != nil {
			return false, fmt.Errorf("read a packet: %w", err)
		}
		if m == 0 {
			drained = true
			break
		}
		if n == 0 {
			now = time.Since(l.road.start)
		}
		n++
		p := &l.packet
		p.Reset(buf, packet.Headroom, packet.Headroom-packet.VNetLen+m)
		if l.carry(p, now) {
			_, _, end := p.Buffer()
			used += (end + cacheLine - 1) &^ (cacheLine - 1)
		}
	}
	l.egress.flush()
	if n > 0 {
		l.count.publish(&l.tally)
	}
	return drained, nil
}

// cacheLine is where packets begin, so that two do not share a line.
const cacheLine = 64

// carry takes one packet from the parse to its way out and says whether it
// is held until the flush.
func (l *loop) carry(p *packet.Packet, now time.Duration) (held bool) {
	buf, start, end := p.Buffer()
	l.tally.packets++
	if end <= start {
		l.count.drop(packet.Truncated)
		return false
	}
	l.tally.bytes += uint64(end - start)
	p.ReadVNet(buf[start-packet.VNetLen : start])
	if why := p.Parse(); why != packet.OK {
		l.count.drop(why)
		return false
	}
	if p.Fragment().Is && needsFirst(p) {
		return l.carryFragment(p, now)
	}
	return l.decide(p, now)
}

// needsFirst says whether a fragment can only be handled with what its
// datagram's first one says. The protocol of an IPv6 fragment may be an
// extension header's, behind which there may be any other.
func needsFirst(p *packet.Packet) bool {
	switch p.Tuple.Proto {
	case packet.TCP, packet.UDP, packet.SCTP:
		return true
	case packet.ICMPv6:
		return false
	}
	return p.Tuple.Family == packet.IPv6
}

// carryFragment handles a fragment whose first has come, and those that waited
// for it.
func (l *loop) carryFragment(p *packet.Packet, now time.Duration) (held bool) {
	ready, waited := l.road.fragments.place(p, now, &l.count)
	if !ready {
		return false
	}
	held = l.decide(p, now)
	for _, b := range waited {
		var q packet.Packet
		q.Reset(b, packet.Headroom, len(b))
		if why := q.Parse(); why != packet.OK {
			panic("stack: a fragment that was parsed before: " + why.String())
		}
		if ready, _ := l.road.fragments.place(&q, now, &l.count); ready {
			l.decide(&q, now)
		}
	}
	return held
}

// decide asks the handler and does what it says.
func (l *loop) decide(p *packet.Packet, now time.Duration) (held bool) {
	verdict, why := l.handler.Handle(p, now)
	switch verdict {
	case packet.Drop:
		l.count.drop(why)
	case packet.Send:
		return l.egress.send(p, now)
	case packet.Pass:
		l.up(p)
	case packet.Return:
		l.egress.giveBack(p)
	}
	return false
}
