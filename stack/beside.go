package stack

import (
	"sync"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// A beside takes the few packets that come to the director by no queue, from
// whatever goroutine. What the handler sends goes by the kernel.
type beside struct {
	handler Handler
	queue   Queue // of the TUN device, to write to

	mu     sync.Mutex
	egress egress        // guarded by mu
	room   []byte        // guarded by mu; where the packet lies
	packet packet.Packet // guarded by mu
	tally  tally         // guarded by mu
	count  counters
}

func newBeside(q Queue, h Handler) *beside {
	b := &beside{handler: h, queue: q, room: make([]byte, slotLen)}
	b.egress = egress{mode: EgressKernel, queue: q, room: make([]byte, splitRoom), tally: &b.tally, count: &b.count}
	return b
}

// Inject has the handler decide about a copy of an IP packet that came by no
// queue, such as an ICMP error that was sent to the host itself. Only what it
// sends goes anywhere. Anybody may call it while the Road runs.
func (r *Road) Inject(ip []byte) { r.beside.inject(ip, r.Now()) }

func (b *beside) inject(ip []byte, now time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.count.publish(&b.tally)
	b.tally.packets++
	b.tally.bytes += uint64(len(ip))
	if len(ip) > packet.MaxSize {
		b.count.drop(packet.TooBig)
		return
	}
	p := &b.packet
	p.Reset(b.room, packet.Headroom, packet.Headroom+copy(b.room[packet.Headroom:], ip))
	if why := p.Parse(); why != packet.OK {
		b.count.drop(why)
		return
	}
	switch verdict, why := b.handler.Handle(p, now); verdict {
	case packet.Send:
		b.egress.send(p, now)
		b.egress.flush()
	case packet.Return:
		b.tally.returned++ // it was the kernel's, and still is
	default:
		b.count.drop(why)
	}
}
