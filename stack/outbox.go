package stack

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// An outbox has packets that were made outside the loops and wait for the first
// loop to send them. Those who make them never wait for it.
type outbox struct {
	filled atomic.Bool // n is not 0; read by the loop each round

	mu       sync.Mutex
	first, n int
	waiting  [outboxLen]outgoing // from first on, around
}

// An outgoing is a packet in an outbox.
type outgoing struct {
	nextHop packet.Endpoint
	len     int
	bytes   [maxOutgoing]byte
}

const (
	outboxLen = 1024

	// maxOutgoing is the longest packet, in bytes, that an outbox takes: one
	// without payload in any tunnel.
	maxOutgoing = 256

	// maxEmitted is how many packets are sent before the loop goes on reading.
	maxEmitted = 64
)

// put adds p, which stays the caller's. It is false where there is no room;
// first says that the outbox was empty.
func (o *outbox) put(p *packet.Packet) (first, ok bool) {
	b := p.Bytes()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == outboxLen || len(b) > maxOutgoing {
		return false, false
	}
	s := &o.waiting[(o.first+o.n)%outboxLen]
	s.nextHop, s.len = p.NextHop, copy(s.bytes[:], b)
	o.n++
	o.filled.Store(true)
	return o.n == 1, true
}

// take makes p the oldest packet, in buf, which has room for it behind the
// headroom. It is false where there is none.
func (o *outbox) take(p *packet.Packet, buf []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == 0 {
		return false
	}
	s := &o.waiting[o.first]
	p.Reset(buf, packet.Headroom, packet.Headroom+copy(buf[packet.Headroom:], s.bytes[:s.len]))
	p.NextHop = s.nextHop
	o.first = (o.first + 1) % outboxLen
	o.n--
	o.filled.Store(o.n != 0)
	return true
}

// Emit sends p, a short packet without segmentation, that answers none, as if
// a Handler had said so. It returns at once and does not keep p. false says
// that too many wait already. Anybody may call it while Run runs.
func (r *Road) Emit(p *packet.Packet) bool {
	first, ok := r.outbox.put(p)
	if first {
		// Where this fails the queue is about to, and says so to Run.
		_ = r.loops[0].queue.Wake()
	}
	return ok
}

// emit sends some of what waits in the outbox of the first loop and says
// whether there is more.
func (l *loop) emit() (more bool) {
	o := l.outbox
	if o == nil || !o.filled.Load() {
		return false
	}
	const size = packet.Headroom + maxOutgoing
	now := time.Since(l.road.start)
	for i := range maxEmitted {
		p := &l.packets[i]
		if !o.take(p, l.room[i*size:(i+1)*size]) {
			break
		}
		if why := p.Parse(); why != packet.OK {
			l.count.lose(why)
			continue
		}
		l.egress.take(p, now)
	}
	l.egress.flush()
	return o.filled.Load()
}
