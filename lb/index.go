package lb

import (
	"math/bits"
	"slices"
)

// An index slot names an entry and has enough of the tuple's hash to be moved
// without looking at the entry. Its upper half is the tag, the lower 32 bits of
// the hash; then come the entry's number and a bit that tells a reply tuple
// from a request tuple. No slot is 0.
type indexSlot uint64

// slotOf is a slot without its tag.
func slotOf(entry uint32, reply bool) indexSlot {
	s := indexSlot(entry) << 1
	if reply {
		s |= 1
	}
	return s
}

func (s indexSlot) tag() uint32   { return uint32(s >> 32) }
func (s indexSlot) entry() uint32 { return uint32(s) >> 1 }
func (s indexSlot) isReply() bool { return s&1 != 0 }

// A hint is what a flow leaves in other shards: the slot of its reply tuple
// and, once it has ended, the template that counts it.
type hint struct {
	hash     uint64
	entry    uint32 // 0: none
	template uint32 // 0: none
}

// hints are the entries that one hash's reply slots name. Two tuples of a
// shard have the same tag once in a million shards, so few have to fit.
type hints struct {
	n       int
	entries [4]uint32
}

func (h *hints) add(entry uint32) {
	if h.n < len(h.entries) {
		h.entries[h.n] = entry
		h.n++
	}
}

func (h *hints) list() []uint32 { return h.entries[:h.n] }

// full says whether a further entry would find no room.
func (h *hints) full() bool { return h.n == len(h.entries) }

// first is where the probing for hash starts, at and after walk on. An empty
// index reads as one free slot.
func (s *shard) first(hash uint64) uint32 {
	return uint32(hash) & uint32(len(s.slots)-1)
}

func (s *shard) after(i uint32) uint32 { return (i + 1) & uint32(len(s.slots)-1) }

func (s *shard) at(i uint32) indexSlot {
	if i >= uint32(len(s.slots)) {
		return 0
	}
	return indexSlot(s.slots[i])
}

// put adds a slot; there is room for it, see roomLocked.
func (s *shard) put(hash uint64, slot indexSlot) {
	slot |= indexSlot(hash) << 32
	i := s.first(hash)
	for s.at(i) != 0 {
		i = s.after(i)
	}
	s.slots[i] = uint64(slot)
	s.keys++
}

// preferReply moves the reply slot that is equal to slot in front of all others
// of its tag; these keep their order.
func (s *shard) preferReply(hash uint64, slot indexSlot) {
	slot |= indexSlot(hash) << 32
	end := s.first(hash)
	for s.at(end) != slot {
		if s.at(end) == 0 {
			return
		}
		end = s.after(end)
	}
	for i := s.first(hash); ; i = s.after(i) {
		at := s.at(i)
		if i == end {
			s.slots[i] = uint64(slot)
			return
		}
		if at.tag() == uint32(hash) && at.isReply() {
			s.slots[i], slot = uint64(slot), at
		}
	}
}

// remove removes one slot that is equal to slot, if there is any, and closes
// the gap, so that the index never fills with tombstones. Slots of one tag stay
// in order.
func (s *shard) remove(hash uint64, slot indexSlot) {
	slot |= indexSlot(hash) << 32
	i := s.first(hash)
	for s.at(i) != slot {
		if s.at(i) == 0 {
			return
		}
		i = s.after(i)
	}
	mask := uint32(len(s.slots) - 1)
	for j := s.after(i); s.at(j) != 0; j = s.after(j) {
		if home := s.at(j).tag() & mask; (j-home)&mask >= (j-i)&mask {
			s.slots[i] = s.slots[j]
			i = j
		}
	}
	s.slots[i] = 0
	s.keys--
}

// minSlotBits makes the smallest index of a shard one page.
const minSlotBits = 9

// roomLocked makes room for one more key in the index of the locked shard s,
// whose number is id: at most three quarters of the slots are in use.
func (t *Table) roomLocked(s *shard, id uint32) error {
	if int(s.keys) < len(s.slots)/4*3 {
		return nil
	}
	return t.growLocked(s, id)
}

func (t *Table) growLocked(s *shard, id uint32) error {
	size := max(minSlotBits, bits.Len(uint(len(s.slots))))
	slots, err := t.arenas.take(size)
	if err != nil {
		return err
	}
	old := s.slots
	s.slots, s.keys = slots, 0
	t.where[id].set(slots)
	// From behind a gap on, so that slots of one tag stay in order.
	gap := max(0, slices.Index(old, 0))
	for _, part := range [][]uint64{old[gap:], old[:gap]} {
		for _, v := range part {
			if v != 0 {
				s.put(v>>32, indexSlot(v&(1<<32-1)))
			}
		}
	}
	if old != nil {
		t.arenas.leave(size - 1)
	}
	return nil
}

// slotBits is the logarithm of the index's length, 0 where there is none.
func (s *shard) slotBits() int { return max(0, bits.Len(uint(len(s.slots)))-1) }
