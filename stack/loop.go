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
	outbox  *outbox // of the first loop; nil: another's

	room    []byte
	packets [maxBatch]packet.Packet
	tally   tally
	count   counters
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

// batch is one round: what waits in the outbox is sent, then packets are read
// until there is none left or the batch is full, then handled, then what leaves
// by link is sent. It says whether there is nothing left.
func (l *loop) batch() (drained bool, err error) {
	more := l.emit()
	n, drained, err := l.read()
	if err != nil {
		return false, err
	}
	drained = drained && !more
	if l.tally == (tally{}) {
		return drained, nil
	}
	l.carry(l.packets[:n], time.Since(l.road.start))
	l.egress.flush()
	l.count.publish(&l.tally)
	return drained, nil
}

// read reads a batch and parses it. What is no packet is dropped and not among
// the n that are left.
func (l *loop) read() (n int, drained bool, err error) {
	used := 0
	for range maxBatch {
		buf := l.room[used:]
		if len(buf) < slotLen {
			break
		}
		m, err := l.queue.Read(buf[packet.Headroom-packet.VNetLen : slotLen])
		if err != nil {
			return 0, false, fmt.Errorf("read a packet: %w", err)
		}
		if m == 0 {
			return n, true, nil
		}
		p := &l.packets[n]
		p.Reset(buf, packet.Headroom, packet.Headroom-packet.VNetLen+m)
		if l.accept(p) {
			_, _, end := p.Buffer()
			used += (end + cacheLine - 1) &^ (cacheLine - 1)
			n++
		}
	}
	return n, false, nil
}

// cacheLine is where packets begin, so that two do not share a line.
const cacheLine = 64

// accept parses a packet that was read, or drops it.
func (l *loop) accept(p *packet.Packet) bool {
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
	return true
}

// carry takes packets from the parse to their way out. Their bytes must stay as
// they are until the flush.
func (l *loop) carry(batch []packet.Packet, now time.Duration) {
	l.handler.Prepare(batch)
	for i := range batch {
		if p := &batch[i]; p.Fragment().Is && needsFirst(p) {
			l.carryFragment(p, now)
		} else {
			l.decide(p, now)
		}
	}
}

// needsFirst says whether a fragment can only be handled with what the others
// of its datagram say. The protocol of an IPv6 fragment may be an extension
// header's, behind which there may be any other.
func needsFirst(p *packet.Packet) bool {
	switch p.Tuple.Proto {
	case packet.TCP, packet.UDP, packet.SCTP, packet.ICMPv4:
		return true
	}
	return p.Tuple.Family == packet.IPv6
}

// carryFragment handles those fragments whose turn it is now that p has come.
func (l *loop) carryFragment(p *packet.Packet, now time.Duration) {
	l.road.fragments.carry(p, now, &l.count, func(p *packet.Packet) { l.decide(p, now) })
}

// decide asks the handler and does what it says.
func (l *loop) decide(p *packet.Packet, now time.Duration) {
	verdict, why := l.handler.Handle(p, now)
	switch verdict {
	case packet.Drop:
		l.count.drop(why)
	case packet.Send:
		l.egress.send(p, now)
	case packet.Pass:
		l.up(p)
	case packet.Return:
		l.egress.giveBack(p, now)
	}
}
