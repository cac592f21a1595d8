package stack

import (
	"time"

	"github.com/uvs-project/uvs/packet"
)

// Fragments gives later fragments the ports of their first, as a Road does
// before it calls its Handler, for who takes packets to a Handler without a
// Road.
type Fragments struct {
	table *fragments
	count counters
}

// NewFragments knows no fragment yet.
func NewFragments() *Fragments { return &Fragments{table: newFragments()} }

// Place gives the parsed fragment p its ports and says whether it can be
// handled now. With a first fragment come those that waited for it, to be
// handled behind it: whole packets behind packet.Headroom, still to be parsed,
// which belong to the caller now.
func (f *Fragments) Place(p *packet.Packet, now time.Duration) (ready bool, waited [][]byte) {
	return f.table.place(p, now, &f.count)
}
