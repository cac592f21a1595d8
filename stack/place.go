package stack

import (
	"time"

	"github.com/uvs-project/uvs/packet"
)

// carry places the fragment p and has those decided upon whose turn it is now,
// in their order.
func (t *fragments) carry(p *packet.Packet, now time.Duration, count *counters, decide func(*packet.Packet)) {
	key := keyOf(p)
	whose, all := t.place(p, now, count)
	switch whose {
	case itsOwn:
		decide(p)
	case asLeader:
		decide(p)
		for _, follower := range t.follow(key, count) {
			decide(follower)
		}
	case allOf:
		parts := make([]*packet.Packet, len(all))
		for i, b := range all {
			parts[i] = parsed(b)
		}
		datagram, why := packet.Assemble(parts)
		if why != packet.OK {
			count.drop(why)
			return
		}
		decide(datagram)
	}
}

// Fragments carries fragments as a Road does before it calls its Handler, for
// who takes packets to a Handler without a Road.
type Fragments struct {
	table *fragments
	count counters
}

// NewFragments knows no fragment yet.
func NewFragments() *Fragments { return &Fragments{table: newFragments()} }

// Carry takes in the parsed fragment p and calls decide for each packet whose
// turn it is now: for p, for those that waited for it, for the datagram that it
// completes, or for none. They are the caller's until Carry returns.
func (f *Fragments) Carry(p *packet.Packet, now time.Duration, decide func(*packet.Packet)) {
	f.table.carry(p, now, &f.count, decide)
}
