package stack

import (
	"time"

	"github.com/uvs-project/uvs/packet"
)

// A Handler decides what becomes of the packets of one TUN queue. Package lb
// implements it.
type Handler interface {
	// Prepare is called with the packets of a batch that Parse accepted, before
	// Handle is called for each of them. What it looks up ahead it may keep in
	// their Hash, nothing else may change.
	Prepare(batch []packet.Packet)

	// Handle is called by the queue's own goroutine for each packet that
	// Parse accepted (a later fragment already has the ports of its first).
	// It changes p in place; p and its bytes are not kept after it returns.
	// now is monotonic time since the start, read once per batch.
	//
	// With Send, p is ready to leave: p.NextHop and p.Encap say how.
	Handle(p *packet.Packet, now time.Duration) (packet.Verdict, packet.Reason)
}
