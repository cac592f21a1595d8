package lb

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// A Table finds the Flow of a packet, whichever way the packet travels.
//
// It is cut into shards by a seeded hash, so that no client can aim at one. A
// flow's entry belongs to the shard of its request tuple and is guarded by
// that shard's lock. Two index slots name the entry: one in its own shard for
// the request tuple, and one, in whatever shard the hash says, for the reply
// tuple of a mode whose replies come back through the director.
//
// A goroutine never holds two shard locks. A slot of a reply tuple is
// therefore a hint only: who follows it locks the entry's shard and compares
// the whole tuple, which is computed anew from the entry. So a slot may
// outlive its entry for the moment until it is removed without routing
// anything wrongly.
//
// Entries and slots are flat values without pointers in memory of their own:
// they cost the garbage collector nothing, and the shards are small enough
// (flowsPerShard) that growing one is no noticeable pause.
type Table struct {
	seed      uint64 // random per process
	servers   *registry
	offload   Offload      // nil: every packet comes to Handle
	offered   atomic.Int64 // flows that it was offered
	limit     int64
	shardBits int

	shards  []shard
	where   []whereabouts // of the shards' indexes
	owners  []uint32      // 1 + the shard of each chunk of entries, written once before the chunk is used; 0: nobody's yet
	heads   []uint32      // of all shards' timing wheels, see wheel.go
	trails  []trail       // by entry number, guarded as the entry; see reset.go
	links   []uint32      // by entry number, guarded as the entry; see template.go
	failing atomic.Bool   // a real server has failed, see failures.go
	secure  atomic.Bool   // TCP flows of all services follow the tables of Policy.SecureTCP
	live    atomic.Int64  // flows, and inserts under way; at most limit
	arenas  arenas        // of the shards' indexes

	mu      sync.Mutex    // guards what entries hands out; taken with a shard's lock held
	entries region[entry] // by entry number; 0 is none

	resets resets // the sweeper's own
	cursor uint32 // the shard that Sweep visits next; the sweeper's own
}

// An entry is one flow, one cache line.
type entry struct {
	tuple      packet.Tuple
	state      State
	flags      uint8
	server     uint32 // id in the registry
	local      uint32 // Flow.Local
	deadline   uint32 // tick from which on the flow does not exist any more
	next, prev uint32 // neighbours in the list of the wheel's slot, or the next free entry
	filed      uint16 // the wheel's slot: class, then slot; above them what requests counts
	gen        uint16 // counts the flows that the entry has held, to know it again
}

const (
	flagLive       = 1 << iota // holds a flow
	flagOneSided               // the mode's real servers answer the client directly
	flagOffered                // the offload may carry packets of it
	flagControlled             // the flow has a template
	flagAssured                // and has assured it
	flagTrailed                // trails says how far the connection has come
	flagPinned                 // made by Pin
	flagSettled                // what became of the client's SYN was counted, see failures.go
)

const (
	filedBits   = 12 // of entry.filed that are the wheel's
	oneRequest  = 1 << filedBits
	maxRequests = 1<<(16-filedBits) - 1
)

// requests is the number of packets of the client's that the flow has had, as
// far as 15.
func (e *entry) requests() int { return int(e.filed >> filedBits) }

func (e *entry) countRequest() {
	if e.filed < maxRequests*oneRequest {
		e.filed += oneRequest
	}
}

// A shard is a part of the table.
type shard struct {
	mu sync.Mutex // never held together with another shard's

	// Guarded by mu, as are the shard's entries and its part of heads. The
	// first cache line is what a lookup reads.
	slots    []uint64 // the index: open addressing, length a power of two, or empty
	keys     uint32   // slots in use
	turned   uint32   // first slot of the wheel, counted from time 0, that is not emptied yet
	free     uint32   // list of entries that held a flow
	fresh    uint32   // next entry of the chunk that never held one
	freshEnd uint32
	live     uint32
	filed    uint32 // the entry that was filed last,
	filedIn  uint16 // and where, to guess the next one's neighbour and list
	_        [2]byte
	created  uint64
	expired  uint64
	evicted  uint64
	dropped  uint64 // by dropEntries
	ended    uint64 // because their real server left
	_        [24]byte
}

const (
	// flowsPerShard is how many flows a shard has at most when the table is
	// full. Its index then has 8192 slots at most, which grow in some 50 µs, or
	// 200 µs where the kernel has to find the memory first.
	flowsPerShard = 2048

	maxShardBits = 16 // larger tables have larger shards

	// chunkEntries is how many entries a shard takes at a time: 8 KiB.
	chunkEntries = 128

	maxLimit = 1 << 30 // an entry number has 31 bits, and shards need slack
)

// A tick is the unit of the table's clock, 67 ms: 32 bits last nine years.
const tickShift = 26

func tickOf(now time.Duration) uint32 { return uint32(now >> tickShift) }

// ticks rounds up, so that nothing ends early.
func ticks(d time.Duration) uint32 { return uint32((d + 1<<tickShift - 1) >> tickShift) }

// newTable makes a table for at most limit flows of the real servers that
// servers knows.
func newTable(limit int, servers *registry) (*Table, error) {
	if limit < 1 || limit > maxLimit {
		return nil, fmt.Errorf("a limit of %d flows is not within 1 and %d", limit, maxLimit)
	}
	t := &Table{seed: rand.Uint64(), servers: servers, limit: int64(limit), shardBits: shardBits(limit)}
	n := 1 << t.shardBits
	t.shards = make([]shard, n)
	t.where = make([]whereabouts, n)

	// Shards fill unevenly and keep the chunks that they took once; the sweeper
	// may hold a page.
	numEntries := (limit+limit/4)/chunkEntries*chunkEntries + 4*n*chunkEntries + pageOf[entry]()
	t.owners = make([]uint32, numEntries/chunkEntries)
	var err error
	if t.entries.all, err = reserve[entry](numEntries); err != nil {
		return nil, err
	}
	if t.heads, err = reserve[uint32](n * headsPerShard); err != nil {
		t.close()
		return nil, err
	}
	if t.trails, err = reserve[trail](numEntries); err != nil {
		t.close()
		return nil, err
	}
	if t.links, err = reserve[uint32](numEntries); err != nil {
		t.close()
		return nil, err
	}
	t.arenas.shards = n
	indexes, err := t.arenas.arenaLocked(minSlotBits)
	if err != nil {
		t.close()
		return nil, err
	}
	// What the first flow of each shard takes.
	populate(t.heads)
	indexes.warm(n << minSlotBits)
	t.entries.warm((n + 1) * chunkEntries)
	t.entries.take(chunkEntries) // has entry 0
	return t, nil
}

// shardBits gives shards of flowsPerShard flows, and smaller ones where that
// would leave too few for several queues.
func shardBits(limit int) int {
	fit := bits.Len(uint((limit - 1) / flowsPerShard))
	few := min(6, bits.Len(uint((limit-1)/256)))
	return min(max(fit, few), maxShardBits)
}

// close gives the memory back. The table must not be used any more.
func (t *Table) close() {
	unreserve(t.entries.all)
	unreserve(t.heads)
	unreserve(t.trails)
	unreserve(t.links)
	t.arenas.close()
	t.entries.all, t.heads = nil, nil
}

// Len is the number of flows.
func (t *Table) Len() int { return int(t.live.Load()) }

// Limit is the most flows that the table takes.
func (t *Table) Limit() int { return int(t.limit) }

func (t *Table) shardOf(hash uint64) uint32 {
	return uint32(hash >> 1 >> (63 - t.shardBits))
}

// ownerOf is the shard of entry n.
func (t *Table) ownerOf(n uint32) uint32 { return t.owners[n/chunkEntries] - 1 }

// flow copies an entry whose lock is held.
func (t *Table) flow(e *entry) (f Flow) {
	t.copyFlow(&f, e)
	return f
}

func (t *Table) copyFlow(f *Flow, e *entry) {
	f.Tuple, f.Server, f.Local, f.State = e.tuple, t.servers.get(e.server), e.local, e.state
}

// lookup finds the flow f of a packet with the tuple key, whose hash is given,
// and takes the flow's life on by ev. It finds nothing where the flow is due,
// or where the client starts anew and its old flow gives way; that flow is
// removed. p is the packet, for the flows whose trail is kept.
func (t *Table) lookup(key *packet.Tuple, hash uint64, ev event, anew bool, now uint32, f *Flow, p *packet.Packet) (d Direction, o outcome) {
	var elsewhere hints
	id := t.shardOf(hash)
	s := &t.shards[id]
	s.mu.Lock()
	for i := s.first(hash); s.at(i) != 0; i = s.after(i) {
		slot := s.at(i)
		if slot.tag() != uint32(hash) {
			continue
		}
		n := slot.entry()
		if slot.isReply() {
			elsewhere.add(n)
			continue
		}
		if e := &t.entries.all[n]; e.tuple == *key {
			return Request, t.hit(s, n, Request, ev, anew, now, f, p)
		}
	}
	s.mu.Unlock()
	for _, n := range elsewhere.list() {
		o := &t.shards[t.ownerOf(n)]
		o.mu.Lock()
		if !t.repliesBy(n, key) {
			o.mu.Unlock()
			continue
		}
		due := int32(t.entries.all[n].deadline-now) <= 0
		if out := t.hit(o, n, Reply, ev, anew, now, f, p); out != unknown || !due {
			return Reply, out
		}
		// The newest has just ended, and an older one may have the tuple.
	}
	return 0, unknown
}

// repliesBy says whether key is the reply tuple of the flow in entry n, whose
// lock is held.
func (t *Table) repliesBy(n uint32, key *packet.Tuple) bool {
	e := &t.entries.all[n]
	if e.flags&(flagLive|flagOneSided) != flagLive {
		return false
	}
	f := t.flow(e)
	reply, ok := f.Server.Mode.ReplyTuple(f)
	return ok && reply == *key
}

// hit is called with s locked, the shard of entry n, and unlocks it.
func (t *Table) hit(s *shard, n uint32, d Direction, ev event, anew bool, now uint32, f *Flow, p *packet.Packet) outcome {
	e := &t.entries.all[n]
	t.copyFlow(f, e)
	rs, oneSided := f.Server, e.flags&flagOneSided != 0
	o, ends, count := known, false, &s.ended
	switch {
	case int32(e.deadline-now) <= 0 && !t.followLocked(e, now) || d == Request && (anew && rs.replaces(e) || rs.isolates(e, ev)):
		ends, count = true, &s.expired
	case rs.judged && e.flags&flagPinned == 0:
		o, ends = rs.judge(&e.tuple, d, ev, anew)
	}
	if ends {
		*count++
		if int32(e.deadline-now) <= 0 && e.awaitsAnswer() {
			t.unansweredLocked(e, rs)
		}
		gone := t.removeLocked(s, n)
		s.mu.Unlock()
		t.removeReply(gone)
		return unknown
	}
	template := uint32(0) // to be assured
	if o == known && ev != eventPeek {
		if e.awaitsAnswer() {
			t.settlesLocked(e, rs, d, ev, now)
		}
		if d == Request {
			e.countRequest()
			if rs.service.keepTrails {
				t.trailLocked(n, ev, p)
			}
		}
		state := e.state.next(ev, wayOf(d, oneSided), t.isSecure(rs.service))
		if e.flags&(flagControlled|flagAssured) == flagControlled && ev != eventKeep && assures(e.state, state, d) {
			e.flags |= flagAssured
			template = t.links[n]
		}
		e.deadline = now + rs.service.lifetimes[state]
		if state != e.state {
			if state == TCPSynRecv {
				e.flags &^= flagSettled // another connection
			}
			if state == TCPClose && e.flags&flagPinned != 0 {
				e.deadline = min(e.deadline, now+unpinned)
			}
			t.changeLocked(s, n, rs, state)
			f.State = state
		}
	}
	if o == known && e.flags&flagPinned != 0 {
		o = ours
	}
	s.mu.Unlock()
	if template != 0 {
		t.assure(template)
	}
	return o
}

// isSecure says whether TCP flows of s follow the tables of secure_tcp.
func (t *Table) isSecure(s *service) bool { return s.policy.SecureTCP || t.secure.Load() }

// changeLocked moves the flow of entry n to another state and files it anew,
// since its deadline may be earlier than before and its class another.
func (t *Table) changeLocked(s *shard, n uint32, rs *RealServer, state State) {
	e := &t.entries.all[n]
	switch was, is := states[e.state].active, states[state].active; {
	case is && !was:
		rs.active.Add(1)
	case was && !is:
		rs.active.Add(-1)
	}
	if !state.offerable() {
		t.withdrawLocked(e)
	}
	e.state = state
	t.unfileLocked(n)
	t.fileLocked(s, n)
}

// removeLocked takes the flow out of entry n of the locked shard s. The caller
// gives the result to removeReply once it holds no lock.
func (t *Table) removeLocked(s *shard, n uint32) (reply hint) {
	e := &t.entries.all[n]
	t.withdrawLocked(e)
	f := t.flow(e)
	s.remove(e.tuple.Hash(t.seed), slotOf(n, false))
	t.unfileLocked(n)
	if e.state.isTemplate() {
		f.Server.templates.Add(-1)
	} else {
		if tuple, ok := f.Server.Mode.ReplyTuple(f); ok {
			reply = hint{hash: tuple.Hash(t.seed), entry: n}
		}
		if e.flags&flagControlled != 0 {
			reply.template = t.links[n]
		}
		if states[e.state].active {
			f.Server.active.Add(-1)
		}
		f.Server.release()
	}
	e.flags = 0
	e.gen++
	e.next = s.free
	s.free = n
	s.live--
	t.live.Add(-1)
	return reply
}

// removeReply removes what a flow has left in other shards. The caller holds
// no lock.
func (t *Table) removeReply(h hint) {
	t.leave(h.template)
	if h.entry == 0 {
		return
	}
	s := &t.shards[t.shardOf(h.hash)]
	s.mu.Lock()
	s.remove(h.hash, slotOf(h.entry, true))
	s.mu.Unlock()
}
