package stack

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// memQueueLen bounds what stands in a queue of a MemTUN, as txqueuelen does.
const memQueueLen = 4096

// A MemTUN is a TUN device in memory: what a test injects comes out of Read,
// what is written comes out of Written. It needs no privilege.
type MemTUN struct {
	queues []*memQueue
}

type memQueue struct {
	in, out chan []byte
	next    []byte // taken from in by Wait, for Read; belongs to the reader
	wake    chan struct{}
}

// NewMemTUN makes a TUN device of so many queues.
func NewMemTUN(queues int) *MemTUN {
	t := &MemTUN{queues: make([]*memQueue, queues)}
	for i := range t.queues {
		t.queues[i] = &memQueue{in: make(chan []byte, memQueueLen), out: make(chan []byte, memQueueLen), wake: make(chan struct{}, 1)}
	}
	return t
}

// Inject lets b, a virtio-net header and the packet behind it, be read from a
// queue. The device keeps b.
func (t *MemTUN) Inject(queue int, b []byte) { t.queues[queue].in <- b }

// InjectPacket injects an IP packet without segmentation, whose checksums are
// complete.
func (t *MemTUN) InjectPacket(queue int, ip []byte) {
	t.Inject(queue, append(make([]byte, packet.VNetLen, packet.VNetLen+len(ip)), ip...))
}

// Written is where what was written to a queue comes out, with its virtio-net
// header.
func (t *MemTUN) Written(queue int) <-chan []byte { return t.queues[queue].out }

// Name implements TUN.
func (t *MemTUN) Name() string { return "mem" }

// Queues implements TUN.
func (t *MemTUN) Queues() []Queue {
	qs := make([]Queue, len(t.queues))
	for i, q := range t.queues {
		qs[i] = q
	}
	return qs
}

// Close implements TUN.
func (t *MemTUN) Close() error { return nil }

// Read implements Queue.
func (q *memQueue) Read(b []byte) (int, error) {
	p := q.next
	q.next = nil
	if p == nil {
		select {
		case p = <-q.in:
		default:
			return 0, nil
		}
	}
	return copy(b, p), nil
}

// Write implements Queue.
func (q *memQueue) Write(b []byte) error {
	select {
	case q.out <- append([]byte(nil), b...):
		return nil
	default:
		return fmt.Errorf("queue of %d packets is full: %w", memQueueLen, unix.ENOBUFS)
	}
}

// Wait implements Queue.
func (q *memQueue) Wait() error {
	select {
	case q.next = <-q.in:
	case <-q.wake:
	}
	return nil
}

// Wake implements Queue.
func (q *memQueue) Wake() error {
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}
