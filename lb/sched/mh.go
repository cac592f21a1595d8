package sched

import (
	"math/bits"
	"slices"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// maglevHash is IPVS's mh (ip_vs_mh.c): all flows of a client go to the same
// real server, on every director with the same real servers, and a changed
// set moves few clients. A real server whose weight falls to 0 keeps its
// slots, so that no other client moves; its own are refused unless the flag
// fallback finds them another.
//
// The table size, the keys and the weights that it cuts off are the kernel's;
// maglev has better ones.
type maglevHash struct {
	set   []*lb.RealServer
	slots []uint16 // index in set; nil: no real server ever had a weight
	flags flags
}

const (
	mhSlots      = 4093 // CONFIG_IP_VS_MH_TAB_INDEX 12
	mhWeightBits = 6    // IP_VS_MH_TAB_BITS: weights are cut down to as many
)

var (
	mhFirstKey = sipKey{2654435761, 2654435761}
	mhSkipKey  = sipKey{2654446892, 2654446892}
)

func newMaglevHash(o *settings, set []*lb.RealServer, before lb.Scheduler) lb.Scheduler {
	// IPVS refuses more real servers than there are slots.
	set = set[:min(len(set), mhSlots)]
	s := &maglevHash{set: set, flags: o.flags}
	if was, ok := before.(*maglevHash); ok && slices.EqualFunc(set, was.set, sameSlots) {
		s.slots = was.slots
		return s
	}
	turns := mhTurns(set)
	if turns == nil {
		return s
	}
	wishes := make([]preference, len(set))
	for i, rs := range set {
		name := fold(&rs.Endpoint.Addr) + uint32(rs.Endpoint.Port)
		wishes[i] = preference{
			first: mhFirstKey.sum32(name) % mhSlots,
			skip:  mhSkipKey.sum32(name)%(mhSlots-1) + 1,
		}
	}
	t := newSlotTable(mhSlots, wishes)
	t.fillInTurns(turns)
	s.slots = t.slots
	return s
}

// sameSlots says whether a and b have the same wishes in the same table.
func sameSlots(a, b *lb.RealServer) bool {
	return a.Endpoint == b.Endpoint && a.LastWeight == b.LastWeight
}

// mhTurns is how many slots each of set takes in a row, or nil if none does.
func mhTurns(set []*lb.RealServer) []int {
	heaviest, divisor := 0, 0
	for _, rs := range set {
		heaviest = max(heaviest, rs.LastWeight)
		divisor = gcd(rs.LastWeight, divisor)
	}
	if heaviest == 0 {
		return nil
	}
	shift := max(0, bits.Len(uint(heaviest/divisor))-mhWeightBits)
	turns := make([]int, len(set))
	for i, rs := range set {
		if rs.LastWeight > 0 {
			turns[i] = max(1, rs.LastWeight/divisor>>shift)
		}
	}
	return turns
}

func (s *maglevHash) Pick(t *packet.Tuple, _ time.Duration) *lb.RealServer {
	if s.slots == nil {
		return nil
	}
	c := client(t, s.flags)
	home := mhFirstKey.sum32(c) % mhSlots
	if rs := s.set[s.slots[home]]; rs.TakesFlows() {
		return rs
	}
	if s.flags&fallback != 0 && anyTakesFlows(s.set) {
		for i := range uint32(mhSlots) {
			at := mhFirstKey.sum32(c+(home+i)%mhSlots) % mhSlots
			if rs := s.set[s.slots[at]]; rs.TakesFlows() {
				return rs
			}
		}
	}
	return nil
}
