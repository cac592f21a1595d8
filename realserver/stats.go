package realserver

import (
	"sync/atomic"

	"github.com/uvs-project/uvs/packet"
)

// Stats are what a Decapsulator counted since its start.
type Stats struct {
	Packets uint64 // tunnel packets received
	Bytes   uint64 // of the inner packets that were accepted
	Writes  uint64 // to the TUN device, several merged packets count once
	Dropped [packet.NumReasons]uint64

	// What DecapBPF's program has unpacked: packets, those that the kernel had
	// merged by their segments, and the bytes of the inner ones. The others
	// stand above.
	IngressPackets, IngressBytes uint64
}

// droppedSince lists what was dropped after before, as pairs of reason and
// number for a log line; nil if nothing was.
func (s Stats) droppedSince(before Stats) []any {
	var pairs []any
	for why, n := range s.Dropped {
		if n > before.Dropped[why] {
			pairs = append(pairs, packet.Reason(why).String(), n-before.Dropped[why])
		}
	}
	return pairs
}

// counters are one reader's; only its goroutine bumps them.
type counters struct {
	packets, bytes, writes atomic.Uint64
	dropped                [packet.NumReasons]atomic.Uint64
}

func (c *counters) addTo(s *Stats) {
	s.Packets += c.packets.Load()
	s.Bytes += c.bytes.Load()
	s.Writes += c.writes.Load()
	for i := range c.dropped {
		s.Dropped[i] += c.dropped[i].Load()
	}
}
