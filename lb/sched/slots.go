package sched

import "slices"

// A preference is the order in which one real server wants the slots of a
// Maglev table: first, first+skip, first+2*skip … modulo the size, which is
// prime, so every slot has its turn.
type preference struct{ first, skip uint32 }

// A slotTable is filled as the Maglev paper has it (§3.4): the real servers
// take turns, and each takes the slot that it prefers among the free ones.
type slotTable struct {
	slots []uint16     // index of the real server that has the slot
	taken []uint64     // a bit per slot; unlike slots it stays in the nearest cache
	next  []preference // of each real server, from the slot that it wants now
	free  int
}

// maxSlotServers is how many real servers a slot can tell apart.
const maxSlotServers = 1 << 16

// newSlotTable has size free slots for the real servers with the preferences,
// at most maxSlotServers.
func newSlotTable(size int, preferences []preference) *slotTable {
	return &slotTable{
		slots: make([]uint16, size),
		taken: make([]uint64, (size+63)/64),
		next:  slices.Clone(preferences),
		free:  size,
	}
}

// take gives a real server one slot. There must be a free one.
func (t *slotTable) take(server int) {
	p := &t.next[server]
	at, skip, size, taken := p.first, p.skip, uint32(len(t.slots)), t.taken
	for taken[at/64]>>(at%64)&1 != 0 {
		// at = (at + skip) % size, without a branch that nobody can foresee
		at += skip - size
		at += size & uint32(int32(at)>>31)
	}
	p.first = at
	taken[at/64] |= 1 << (at % 64)
	t.slots[at] = uint16(server)
	t.free--
}

// fillInTurns lets each real server take as many slots in a row as turns says
// whenever it is its turn, as IPVS does. Not all may be 0.
func (t *slotTable) fillInTurns(turns []int) {
	for {
		for server, n := range turns {
			for range n {
				t.take(server)
				if t.free == 0 {
					return
				}
			}
		}
	}
}

// fillByWeight lets the heaviest real server take a slot in every round and
// the others in the rounds in which they lag behind their weight, so that
// the slots are as the weights to within one. Within a round whoever waits
// longest comes first. Every weight is above 0.
//
// Round n is a real server's k-th (from 0) if n is the first one with
// n*weight >= k*heaviest; all have their first slot in round 1.
func (t *slotTable) fillByWeight(weights []int) {
	heaviest := slices.Max(weights)
	// Who takes a slot in a round is a list, linked by index+1, so that a light
	// real server costs only the rounds that it is in. There are no more
	// rounds than slots: the heaviest has one in each.
	type list struct{ first, last uint32 }
	due := make([]list, len(t.slots)+2)
	link := make([]uint32, len(weights))
	given := make([]int, len(weights))
	wait := func(server, round int) {
		if round >= len(due) {
			return
		}
		l := &due[round]
		link[server] = 0
		if l.first == 0 {
			l.first = uint32(server) + 1
		} else {
			link[l.last-1] = uint32(server) + 1
		}
		l.last = uint32(server) + 1
	}
	for server := range weights {
		wait(server, 1)
	}
	for n := 1; ; n++ {
		for s := due[n].first; s != 0; {
			server := int(s - 1)
			s = link[server]
			t.take(server)
			if t.free == 0 {
				return
			}
			given[server]++
			wait(server, max(n+1, (given[server]*heaviest+weights[server]-1)/weights[server]))
		}
	}
}
