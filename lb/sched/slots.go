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
	at, size := p.first, uint32(len(t.slots))
	for t.taken[at/64]&(1<<(at%64)) != 0 {
		if at += p.skip; at >= size {
			at -= size
		}
	}
	p.first = at
	t.taken[at/64] |= 1 << (at % 64)
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
// the slots are as the weights to within one. Every weight is above 0.
//
// Round n is a real server's k-th (from 0) if n is the first one with
// n*weight >= k*heaviest; all have their first slot in round 1.
func (t *slotTable) fillByWeight(weights []int) {
	heaviest := slices.Max(weights)
	rounds := len(t.slots) // enough: each has a slot for the heaviest
	// Who takes a slot in a round is a list, linked by index+1 and in falling
	// order, so that a light real server costs only the rounds that it is in.
	due := make([]uint32, rounds+1)
	link := make([]uint32, len(weights))
	given := make([]int, len(weights))
	for server := range weights {
		link[server], due[1] = due[1], uint32(server)+1
	}
	var turn []uint32
	for n := 1; ; n++ {
		turn = turn[:0]
		for s := due[n]; s != 0; s = link[s-1] {
			turn = append(turn, s-1)
		}
		slices.Sort(turn)
		for _, server := range turn {
			t.take(int(server))
			if t.free == 0 {
				return
			}
			given[server]++
			again := max(n+1, (given[server]*heaviest+weights[server]-1)/weights[server])
			if again <= rounds {
				link[server], due[again] = due[again], server+1
			}
		}
	}
}
