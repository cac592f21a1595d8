package lb

import (
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/uvs-project/uvs/packet"
)

// A packet among a million flows finds neither its index slot nor its entry in
// a cache, and the slot says where the entry is, so it would wait for memory
// twice. Prepare has the packets of a batch wait together: the memory answers
// several requests at the same time.

// Prepare has the processor fetch what Handle will need for each packet of the
// batch, and changes nothing but their Hash: a packet that is not prepared, or
// whose flow comes and goes meanwhile, is handled just so, only slower.
func (q *Queue) Prepare(batch []packet.Packet) {
	t := q.b.table
	for i := range batch {
		p := &batch[i]
		p.Hash = p.Tuple.Hash(t.seed)
		t.prefetchSlot(p.Hash)
	}
	for i := range batch {
		t.prefetchEntry(batch[i].Hash)
	}
}

// prefetchSlot fetches a shard and where the probing for hash starts in it.
func (t *Table) prefetchSlot(hash uint64) {
	id := t.shardOf(hash)
	prefetchLine(&t.shards[id])
	prefetch(t.where[id].slot(hash))
}

// prefetchEntry fetches the entry that hash leads to, or, where it leads to
// none, what a new flow will change: the entry that it gets, and the one and
// the wheel's slot that it is probably filed in front of.
func (t *Table) prefetchEntry(hash uint64) {
	id := t.shardOf(hash)
	s := &t.shards[id]
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := s.first(hash); s.at(i) != 0; i = s.after(i) {
		slot := s.at(i)
		if slot.tag() != uint32(hash) {
			continue
		}
		n := slot.entry()
		prefetchLine(&t.entries.all[n])
		if slot.isReply() {
			prefetchLine(&t.shards[t.ownerOf(n)])
		}
		return
	}
	n := s.free
	if n == 0 && s.fresh < s.freshEnd {
		n = s.fresh
	}
	prefetchLine(&t.entries.all[n])
	prefetchLine(&s.created)
	prefetchLine(&t.entries.all[s.filed])
	prefetchLine(&t.heads[int(id)*headsPerShard+int(s.filedIn)])
}

func prefetchLine[T any](v *T) { prefetch(uintptr(unsafe.Pointer(v))) }

// whereabouts say where a shard's index lies, for those who do not hold the
// lock: the address of its first slot, which is aligned to a page, and in the
// low bits the logarithm of its length. It may be unmapped already.
type whereabouts struct{ w atomic.Uint64 }

func (w *whereabouts) set(slots []uint64) {
	w.w.Store(uint64(uintptr(unsafe.Pointer(&slots[0]))) | uint64(bits.Len(uint(len(slots)-1))))
}

// slot is the address of the slot where the probing for hash starts.
func (w *whereabouts) slot(hash uint64) uintptr {
	v := w.w.Load()
	i := hash & (1<<(v&63) - 1)
	return uintptr(v&^63 + i*8)
}
