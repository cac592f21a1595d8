package stack

import (
	"sync/atomic"

	"github.com/uvs-project/uvs/packet"
)

// Stats are counters since the start.
type Stats struct {
	Queues []QueueStats
	Beside QueueStats // of the packets that came by Inject
}

// Total is the sum of all.
func (s *Stats) Total() QueueStats {
	t := s.Beside
	for i := range s.Queues {
		q := &s.Queues[i]
		t.Batches += q.Batches
		t.Waits += q.Waits
		t.Packets += q.Packets
		t.Bytes += q.Bytes
		t.Sent += q.Sent
		t.Passed += q.Passed
		t.Returned += q.Returned
		t.ByLink += q.ByLink
		t.ByKernel += q.ByKernel
		t.Waited += q.Waited
		for r := range t.Dropped {
			t.Dropped[r] += q.Dropped[r]
			t.Lost[r] += q.Lost[r]
		}
	}
	return t
}

// QueueStats count what one queue did. A super-packet counts as one packet.
type QueueStats struct {
	Batches uint64 // rounds of read, handle, flush that found a packet, or sent one of Emit
	Waits   uint64 // times the queue ran dry and its goroutine slept
	Packets uint64 // read from the TUN device
	Bytes   uint64 // of those packets

	Sent     uint64 // packets that the Handler sent
	Passed   uint64 // packets that went up to the netstack
	Returned uint64 // packets that went back to the kernel unchanged

	ByLink   uint64 // frames that left by the packet socket
	ByKernel uint64 // packets that the kernel routes, written to the TUN device
	Waited   uint64 // frames that waited for their neighbour's address

	// Dropped counts by reason what was dropped before it was sent, passed or
	// returned: at the parse, among the fragments, by the Handler and for a
	// wrong checksum on the way up. With Sent, Passed and Returned it makes up
	// Packets, but for fragments that wait and those that were put together.
	Dropped [packet.NumReasons]uint64

	// Lost counts by reason what was sent or returned and did not leave: the
	// frames and segments that the egress or the kernel refused.
	Lost [packet.NumReasons]uint64
}

// A tally is one batch's counters, a plain value of the queue's goroutine.
// They reach the published ones once per batch, as an atomic operation costs
// as much as the lookup of a header field.
type tally struct {
	packets, bytes         uint64
	sent, passed, returned uint64
	byLink, byKernel       uint64
}

// counters are a queue's published counters. Only the queue's goroutine bumps
// them, but for what happens to frames that waited.
type counters struct {
	_                      [64]byte // keeps the neighbours' writes off our cache lines
	batches, waits         atomic.Uint64
	packets, bytes         atomic.Uint64
	sent, passed, returned atomic.Uint64
	byLink, byKernel       atomic.Uint64
	waited                 atomic.Uint64
	dropped, lost          [packet.NumReasons]atomic.Uint64
	_                      [64]byte
}

// publish adds t to c and clears it.
func (c *counters) publish(t *tally) {
	c.batches.Add(1)
	c.packets.Add(t.packets)
	c.bytes.Add(t.bytes)
	for _, f := range [...]struct {
		to *atomic.Uint64
		n  uint64
	}{
		{&c.sent, t.sent}, {&c.passed, t.passed}, {&c.returned, t.returned},
		{&c.byLink, t.byLink}, {&c.byKernel, t.byKernel},
	} {
		if f.n != 0 {
			f.to.Add(f.n)
		}
	}
	*t = tally{}
}

func (c *counters) drop(why packet.Reason) { c.dropped[why].Add(1) }
func (c *counters) lose(why packet.Reason) { c.lost[why].Add(1) }

func (c *counters) stats() QueueStats {
	s := QueueStats{
		Batches: c.batches.Load(), Waits: c.waits.Load(),
		Packets: c.packets.Load(), Bytes: c.bytes.Load(),
		Sent: c.sent.Load(), Passed: c.passed.Load(), Returned: c.returned.Load(),
		ByLink: c.byLink.Load(), ByKernel: c.byKernel.Load(), Waited: c.waited.Load(),
	}
	for i := range c.dropped {
		s.Dropped[i], s.Lost[i] = c.dropped[i].Load(), c.lost[i].Load()
	}
	return s
}
