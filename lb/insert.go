package lb

import (
	"slices"
	"sync/atomic"

	"github.com/uvs-project/uvs/packet"
)

// insert adds the flow f, whose State is that after its first packet, until
// now plus its state's lifetime. f.Server has been acquired for it and template,
// if it has one, counts it; the table gives both back when the flow ends, or at
// once where the flow is not added.
//
// flags are 0 or flagPinned. f.Local becomes what the mode chose. Where the client's tuple has a flow
// already, made by another queue a moment ago, f becomes that one.
func (t *Table) insert(f *Flow, template uint32, flags uint8, hash uint64, now uint32) packet.Reason {
	id := t.shardOf(hash)
	if t.live.Add(1) > t.limit && !t.evict(id, now) {
		t.live.Add(-1)
		t.unchoose(choice{f.Server, template})
		return packet.TableFull
	}
	mode := f.Server.Mode
	local, ok := mode.Local(*f, 0)
	if !ok {
		t.live.Add(-1)
		t.unchoose(choice{f.Server, template})
		return packet.NoPort
	}
	if local != f.Local { // a store just before the copy below would hold it up
		f.Local = local
	}
	var reply packet.Tuple
	var h hint
	if !f.Server.oneSided {
		reply, _ = mode.ReplyTuple(*f)
		h.hash = reply.Hash(t.seed)
		t.prefetchSlot(h.hash) // arrives while the request's shard is worked on
	}

	s := &t.shards[id]
	s.mu.Lock()
	if n := t.entryLocked(s, &f.Tuple, hash); n != 0 {
		chosen := choice{f.Server, template}
		t.copyFlow(f, &t.entries.all[n])
		s.mu.Unlock()
		t.live.Add(-1)
		t.unchoose(chosen)
		return packet.OK
	}
	n := t.allocateLocked(s, id)
	if n == 0 {
		s.mu.Unlock()
		t.live.Add(-1)
		t.unchoose(choice{f.Server, template})
		return packet.TableFull
	}
	t.fillLocked(s, n, f, template, flags, now)
	s.put(hash, slotOf(n, false))
	gen := t.entries.all[n].gen
	s.mu.Unlock()

	if template != 0 && assures(first(f.Tuple.Proto), f.State, Request) {
		t.assure(template)
	}
	if f.Server.oneSided {
		return packet.OK
	}
	h.entry = n
	return t.claimReply(f, s, gen, &reply, h)
}

// yield ends the flow of key if it is of another real server than rs: the client's
// packets are to go to rs from now on.
func (t *Table) yield(key *packet.Tuple, hash uint64, rs *RealServer) {
	s := &t.shards[t.shardOf(hash)]
	s.mu.Lock()
	n := t.entryLocked(s, key, hash)
	if n == 0 || t.entries.all[n].flags&flagPinned != 0 || t.servers.get(t.entries.all[n].server).Same(rs) {
		s.mu.Unlock()
		return
	}
	s.expired++
	gone := t.removeLocked(s, n)
	s.mu.Unlock()
	t.removeReply(gone)
}

// allocateLocked takes an entry and room for its slot; 0 says that there is
// none.
func (t *Table) allocateLocked(s *shard, id uint32) uint32 {
	if t.roomLocked(s, id) != nil {
		return 0 // no memory: full in all but name
	}
	if n := s.free; n != 0 {
		s.free = t.entries.all[n].next
		return n
	}
	if s.fresh == s.freshEnd {
		t.mu.Lock()
		from, ok := t.entries.take(chunkEntries)
		t.mu.Unlock()
		if !ok {
			return 0
		}
		atomic.StoreUint32(&t.owners[from/chunkEntries], id+1) // walk reads it at any time
		s.fresh, s.freshEnd = uint32(from), uint32(from+chunkEntries)
	}
	s.fresh++
	return s.fresh - 1
}

func (t *Table) fillLocked(s *shard, n uint32, f *Flow, template uint32, flags uint8, now uint32) {
	e := &t.entries.all[n]
	*e = entry{
		tuple:    f.Tuple,
		state:    f.State,
		flags:    flagLive | flags,
		server:   f.Server.id,
		local:    f.Local,
		deadline: now + f.Server.service.lifetimes[f.State],
		filed:    oneRequest,
		gen:      e.gen,
	}
	if f.Server.oneSided {
		e.flags |= flagOneSided
	}
	if template != 0 {
		e.flags |= flagControlled
		t.links[n] = template
	}
	if flags&flagPinned == 0 {
		f.Server.opened.Add(1)
	}
	if states[f.State].active {
		f.Server.active.Add(1)
	}
	t.enterLocked(s, n, now)
}

// enterLocked begins the life of the filled entry n.
func (t *Table) enterLocked(s *shard, n, now uint32) {
	if s.live == 0 {
		s.turned = now >> slotShift // nothing is filed: no turn to catch up with
	}
	s.live++
	s.created++
	t.fileLocked(s, n)
}

// claimReply makes the flow f, in entry h.entry of shard s, findable by its
// reply tuple, whose hash h has. While that belongs to another flow the mode
// proposes another Local, or takes it over where it has no choice: the other flow
// gets it back when this one has ended.
func (t *Table) claimReply(f *Flow, s *shard, gen uint16, reply *packet.Tuple, h hint) packet.Reason {
	mode, n := f.Server.Mode, h.entry
	for try := 1; ; try++ {
		rivals, ok := t.addReply(h)
		if !ok {
			return t.giveUp(s, n, gen, packet.TableFull)
		}
		if !t.setLocal(s, n, gen, f.Local) {
			// Another queue's flow evicted this one, maybe before the slot
			// was there to be removed.
			t.removeReply(h)
			return packet.TableFull
		}
		rival := t.holder(rivals, reply)
		if rival == 0 {
			return packet.OK
		}
		local, ok := mode.Local(*f, try)
		if !ok && try == 1 {
			t.preferReply(h)
			t.takeBack(*reply) // that of the other flow
			if rivals.full() {
				h.entry = rival // a lookup would not look as far
				t.removeReply(h)
			}
			return packet.OK
		}
		t.removeReply(h)
		if !ok {
			return t.giveUp(s, n, gen, packet.NoPort)
		}
		f.Local = local
		*reply, _ = mode.ReplyTuple(*f)
		h.hash = reply.Hash(t.seed)
	}
}

// setLocal stores Local in entry n of s unless the entry holds another flow
// than the one of gen by now.
func (t *Table) setLocal(s *shard, n uint32, gen uint16, local uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &t.entries.all[n]
	if e.flags&flagLive == 0 || e.gen != gen {
		return false
	}
	e.local = local
	return true
}

// addReply adds the slot of a reply tuple, behind those of the other entries that
// the same hash leads to, and returns these. Until it is known whether one of them
// has the tuple, replies must go on finding that one.
func (t *Table) addReply(h hint) (others hints, ok bool) {
	id := t.shardOf(h.hash)
	s := &t.shards[id]
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.roomLocked(s, id) != nil {
		return others, false
	}
	others = s.repliesTo(h.hash, h.entry)
	s.put(h.hash, slotOf(h.entry, true))
	return others, true
}

// preferReply moves the slot of a reply tuple, if it is there, in front of those
// of the other entries that the same hash leads to.
func (t *Table) preferReply(h hint) {
	s := &t.shards[t.shardOf(h.hash)]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.preferReply(h.hash, slotOf(h.entry, true))
}

// repliesTo are the entries but for one that the hash of a reply tuple leads
// to. The shard is locked.
func (s *shard) repliesTo(hash uint64, but uint32) (entries hints) {
	for i := s.first(hash); s.at(i) != 0; i = s.after(i) {
		slot := s.at(i)
		if slot.tag() == uint32(hash) && slot.isReply() && slot.entry() != but {
			entries.add(slot.entry())
		}
	}
	return entries
}

// holder is the one of the entries whose flow has the reply tuple, the oldest if
// there are several, or 0.
func (t *Table) holder(of hints, reply *packet.Tuple) uint32 {
	for _, n := range slices.Backward(of.list()) {
		s := &t.shards[t.ownerOf(n)]
		s.mu.Lock()
		ok := t.repliesBy(n, reply)
		s.mu.Unlock()
		if ok {
			return n
		}
	}
	return 0
}

// giveUp takes back a flow that could not be made findable by its replies.
func (t *Table) giveUp(s *shard, n uint32, gen uint16, why packet.Reason) packet.Reason {
	var gone hint // its reply slot is gone already
	s.mu.Lock()
	if e := &t.entries.all[n]; e.flags&flagLive != 0 && e.gen == gen {
		s.created--
		if e.flags&flagPinned == 0 {
			t.servers.get(e.server).opened.Add(^uint64(0))
		}
		gone = t.removeLocked(s, n)
	}
	s.mu.Unlock()
	t.leave(gone.template)
	return why
}
