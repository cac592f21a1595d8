package lb

import "time"

// Expiry is a timing wheel per shard and class. The wheel has a list of
// entries per slot; an entry is filed in the slot in which its deadline falls,
// or in the farthest. A packet only stores a new deadline. When the slot is
// reached, what is due is removed and the rest is filed anew, so the table is
// never scanned and a busy flow costs one refiling per turn of the wheel.
//
// A flow is gone at its deadline for whoever looks it up, to the tick; the
// wheel only frees the memory, up to a slot's width later.

const (
	slotShift     = 4                            // a slot is 16 ticks wide, 1.1 s: for so long an ended flow may still count for schedulers and thresholds
	wheelSlots    = 256                          // so one turn takes 275 s
	headsPerShard = int(numClasses) * wheelSlots // heads of the lists, 5 KiB
)

// fileLocked files entry n, which belongs to the locked shard s, by its state
// and deadline.
func (t *Table) fileLocked(s *shard, n uint32) {
	e := &t.entries.all[n]
	ahead := min(max(int32(e.deadline>>slotShift-s.turned), 0), wheelSlots-1)
	slot := (s.turned + uint32(ahead)) % wheelSlots
	e.filed = e.filed>>filedBits<<filedBits | uint16(e.class())*wheelSlots + uint16(slot)
	head := t.head(n, e)
	e.prev, e.next = 0, *head
	if e.next != 0 {
		t.entries.all[e.next].prev = n
	}
	*head = n
	s.filed, s.filedIn = n, e.filed%(1<<filedBits)
}

// refileLocked files entry n by what it is now.
func (t *Table) refileLocked(s *shard, n uint32) {
	t.unfileLocked(n)
	t.fileLocked(s, n)
}

// unfileLocked takes entry n out of the list in which it is filed.
func (t *Table) unfileLocked(n uint32) {
	e := &t.entries.all[n]
	if e.prev != 0 {
		t.entries.all[e.prev].next = e.next
	} else {
		*t.head(n, e) = e.next
	}
	if e.next != 0 {
		t.entries.all[e.next].prev = e.prev
	}
}

// head is the head of the list in which entry n, which is e, is filed.
func (t *Table) head(n uint32, e *entry) *uint32 {
	return &t.heads[int(t.ownerOf(n))*headsPerShard+int(e.filed%(1<<filedBits))]
}

const (
	// burst is how many entries are looked at while a lock is held: some 5 µs.
	burst = 32

	// askCost is how many entries could be looked at in the time of asking the
	// Offload for one flow, besides the flow itself.
	askCost = 7
)

// Sweep frees the flows that are due, and has memory ready for those to come.
// It visits a sixteenth of the shards and
// looks at not many more than budget entries; what is left is done by the next
// calls. It is to be called by one goroutine, some sixteen times a second.
func (t *Table) Sweep(now time.Duration, budget int) {
	t.arenas.tidy()
	t.entries.fill(&t.mu)
	outgrown := t.arenas.outgrown()
	for range max(1, len(t.shards)/16) {
		for more := true; more; {
			if budget <= 0 {
				return
			}
			var looked int
			looked, more = t.turn(t.cursor, tickOf(now))
			budget -= looked
		}
		t.follow(t.cursor, outgrown)
		t.cursor = (t.cursor + 1) % uint32(len(t.shards))
	}
}

// follow grows the index of a shard whose size the others have outgrown.
func (t *Table) follow(id uint32, outgrown int) {
	if outgrown == 0 {
		return
	}
	s := &t.shards[id]
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.slotBits(); b != 0 && b <= outgrown {
		_ = t.growLocked(s, id) // where there is no memory it stays as it is
	}
}

// turn turns the wheel of a shard until now, or until it has looked at burst
// entries and says that there may be more.
func (t *Table) turn(id, now uint32) (looked int, more bool) {
	var replies [burst]hint
	removed := 0
	slot := now >> slotShift
	s := &t.shards[id]
	s.mu.Lock()
	switch lag := int32(slot - s.turned); {
	case s.live == 0:
		s.turned = slot
	case lag > wheelSlots:
		s.turned = slot - wheelSlots // one turn sees everything
	}
	for int32(slot-s.turned) > 0 && looked < burst {
		n := t.filedAt(id, s.turned)
		if n == 0 {
			s.turned++
			continue
		}
		looked++
		e := &t.entries.all[n]
		if e.flags&flagOffered != 0 && int32(e.deadline-now) <= 0 {
			looked += askCost
		}
		if int32(e.deadline-now) <= 0 && !t.rearmLocked(n, now) && !t.followLocked(e, now) {
			if t.resetsIdle(n) {
				t.resetLocked(s, n, now)
				continue
			}
			if e.awaitsAnswer() {
				t.unansweredLocked(e, t.servers.get(e.server))
			}
			s.expired++
			replies[removed] = t.removeLocked(s, n)
			removed++
			continue
		}
		t.unfileLocked(n)
		t.fileLocked(s, n)
	}
	more = int32(slot-s.turned) > 0
	s.mu.Unlock()
	t.sendResets()
	for _, r := range replies[:removed] {
		t.removeReply(r)
	}
	return looked, more
}

// filedAt is an entry of any class in a slot of the locked shard id, or 0.
func (t *Table) filedAt(id, slot uint32) uint32 {
	heads := t.heads[int(id)*headsPerShard:][:headsPerShard]
	for c := range int(numClasses) {
		if n := heads[c*wheelSlots+int(slot%wheelSlots)]; n != 0 {
			return n
		}
	}
	return 0
}

const (
	// evictShards is how many shards are searched for a flow to give up. When
	// the table is full every shard is about full, so the first one decides.
	evictShards = 8

	// minIdle, in ticks, is how long a UDP flow must have been silent to be
	// given up: 2 s, so that an exchange under way is left alone.
	minIdle = 30

	// maxRefile bounds the busy UDP flows that one search files anew.
	maxRefile = 8
)

// evict gives up a flow to make room for one in shard id: one that nobody has
// answered yet, or the template of a client that none of its real server's
// answers has reached, or a flow that is closed, or a UDP flow that is idle, and of those
// the one that would end first. An established flow is never given up. The
// caller holds no lock.
func (t *Table) evict(id, now uint32) bool {
	for i := range uint32(min(evictShards, len(t.shards))) {
		id := (id + i) % uint32(len(t.shards))
		s := &t.shards[id]
		var reply hint
		s.mu.Lock()
		n := t.victimLocked(s, id, now)
		if n != 0 {
			s.evicted++
			reply = t.removeLocked(s, n)
		}
		s.mu.Unlock()
		t.removeReply(reply)
		if n != 0 {
			return true
		}
	}
	return false
}

// victimLocked finds the flow of shard id to give up, or 0.
func (t *Table) victimLocked(s *shard, id, now uint32) uint32 {
	for c := classOpening; c < classKept; c++ {
		heads := t.heads[int(id)*headsPerShard+int(c)*wheelSlots:][:wheelSlots]
		refiled := 0
		for i := uint32(0); i < wheelSlots; i++ {
			n := heads[(s.turned+i)%wheelSlots]
			if n == 0 {
				continue
			}
			e := &t.entries.all[n]
			if c != classUDP {
				return n
			}
			if e.flags&flagOffered != 0 {
				if refiled == maxRefile {
					continue // the Offload has been asked often enough
				}
				t.followLocked(e, now)
			}
			if late := min(e.deadline>>slotShift-s.turned, wheelSlots-1); late <= i || refiled == maxRefile {
				lifetime := t.servers.get(e.server).service.lifetimes[e.state]
				if lifetime-(e.deadline-now) >= minIdle {
					return n
				}
				break // what follows was active even later
			}
			refiled++
			t.unfileLocked(n)
			t.fileLocked(s, n)
			i-- // the slot has a new head
		}
	}
	return 0
}
