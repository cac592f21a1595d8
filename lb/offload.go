package lb

import (
	"reflect"
	"slices"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// An Offload carries the packets of established flows past the packet loops.
// Offer, Withdraw and Seen are called from packet loops, with a lock of the
// flow table held: they take a system call at most.
type Offload interface {
	// Offer asks for one direction of a flow. What was taken for the same tuple
	// is replaced. It may be refused: the flow is offered again later.
	Offer(o *Offer) (taken bool)

	// Withdraw takes back the packets of t: the next one comes to Handle.
	Withdraw(t *packet.Tuple)

	// Seen is how long ago it has carried a packet of t; ok is false where it
	// has none of them, or has carried none yet.
	Seen(t *packet.Tuple) (ago time.Duration, ok bool)

	// Invalidate takes everything back at once.
	Invalidate()

	// Count is what was carried on an account.
	Count(account uint32) (packets, bytes uint64)
}

// An Offer is one direction of a flow with all that is done to its packets.
type Offer struct {
	Tuple   packet.Tuple // of the packets as they arrive
	Rewrite packet.Rewrite
	MTU     int    // what the path to the real server carries, as far as it is known; 0: not known
	Account uint32 // where they are counted
}

// defaultOfferEvery makes one of so many packets of established flows offer
// its flow. So a long flow is soon offered and a short one seldom is, without a
// count that each flow would have to keep: sample and hold (Estan and Varghese,
// SIGCOMM 2002).
const defaultOfferEvery = 8

// offerable says whether a flow of this state may be carried unseen: whatever
// ends it comes up.
func (s State) offerable() bool { return s == TCPEstablished || s == UDPNormal }

// Stays says why f is not offered to an Offload, "" where it is.
func (f *Flow) Stays() string {
	switch {
	case !f.State.offerable():
		return "it is not established"
	case f.Server.service.keepTrails:
		return "its policy may reset it, for which uvs has to see how far it has come"
	case f.Server.flowsDo() != RemovedServe:
		return "its real server left, and is not to be served unseen"
	}
	return ""
}

// Account is where the Offload counts the packets of one direction of f.
func (f *Flow) Account(d Direction) uint32 { return f.Server.accountOf(d) }

// accountOf is the account of a real server's packets of one direction.
func (r *record) accountOf(d Direction) uint32 { return r.id*2 + uint32(d) }

// offer hands the flow f over if it is still there. It is offered with the
// flow's lock held, so that who removes the flow withdraws it afterwards.
func (t *Table) offer(f *Flow) {
	if f.Stays() != "" {
		return
	}
	reply, ok := f.Server.Mode.ReplyTuple(*f)
	answered := ok && t.answers(&reply, &f.Tuple)
	t.offerLocking(f, answered)
	if answered && !t.answers(&reply, &f.Tuple) {
		t.takeBack(reply) // a newer flow has taken them over meanwhile
	}
}

// takeBack has the packets of a tuple come up again. The tuple is a copy, so that
// the caller's need not be on the heap.
func (t *Table) takeBack(of packet.Tuple) {
	if t.offload != nil {
		t.offload.Withdraw(&of)
	}
}

// answers says whether the replies of a tuple are found to be those of the flow
// of request: a newer one may have the same.
func (t *Table) answers(reply, request *packet.Tuple) bool {
	hash := reply.Hash(t.seed)
	s := &t.shards[t.shardOf(hash)]
	s.mu.Lock()
	all := s.repliesTo(hash, 0)
	s.mu.Unlock()
	for _, n := range all.list() {
		s := &t.shards[t.ownerOf(n)]
		s.mu.Lock()
		found, of := t.repliesBy(n, reply), t.entries.all[n].tuple
		s.mu.Unlock()
		if found {
			return of == *request
		}
	}
	return false
}

// offerLocking offers the requests of f and, if they are its own, the replies.
func (t *Table) offerLocking(f *Flow, replies bool) {
	hash := f.Tuple.Hash(t.seed)
	s := &t.shards[t.shardOf(hash)]
	s.mu.Lock()
	defer s.mu.Unlock()
	n := t.entryLocked(s, &f.Tuple, hash)
	if n == 0 {
		return
	}
	e := &t.entries.all[n]
	now := t.flow(e)
	if now.Stays() != "" { // by now
		return
	}
	if e.flags&flagOffered == 0 {
		e.flags |= flagOffered
		t.offered.Add(1)
	}
	if r := now.Server.record; !r.offered.Load() {
		r.offered.Store(true)
	}
	mtu := now.Server.PathMTU()
	o := Offer{Tuple: now.Tuple, MTU: mtu, Account: now.Server.accountOf(Request)}
	now.Server.Mode.Rewrite(&now, Request, &o.Rewrite)
	t.offload.Offer(&o)
	if replies {
		reply, _ := now.Server.Mode.ReplyTuple(now)
		o = Offer{Tuple: reply, Account: now.Server.accountOf(Reply)}
		now.Server.Mode.Rewrite(&now, Reply, &o.Rewrite)
		t.offload.Offer(&o)
	}
	// A change that came meanwhile may have taken everything back before this was
	// there.
	if t.servers.get(e.server) != now.Server || now.Server.PathMTU() != mtu {
		t.withdrawLocked(e)
	}
}

// withdrawLocked takes the flow of entry e back if it was offered.
func (t *Table) withdrawLocked(e *entry) {
	if e.flags&flagOffered == 0 {
		return
	}
	e.flags &^= flagOffered
	t.offered.Add(-1)
	t.offload.Withdraw(&e.tuple)
	f := t.flow(e)
	if reply, ok := f.Server.Mode.ReplyTuple(f); ok {
		t.offload.Withdraw(&reply)
	}
}

// entryLocked is the entry of a request tuple, or of a template's key, in its
// locked shard, or 0.
func (t *Table) entryLocked(s *shard, key *packet.Tuple, hash uint64) uint32 {
	for i := s.first(hash); s.at(i) != 0; i = s.after(i) {
		slot := s.at(i)
		if slot.tag() == uint32(hash) && !slot.isReply() && t.entries.all[slot.entry()].tuple == *key {
			return slot.entry()
		}
	}
	return 0
}

// carriesAs says whether every flow of s that the Offload carries may stay
// there under next: weights, timeouts and listens are nothing to it, another
// tunnel of the same mode is.
func (s *service) carriesAs(next *service) bool {
	return s.policy == next.policy && slices.EqualFunc(s.set, next.set, func(a, b *RealServer) bool {
		return a.record == b.record && a.flowsDo() == b.flowsDo() && (!a.oneSided || reflect.DeepEqual(a.Mode, b.Mode))
	})
}

// takeBack makes every flow come up again, after a change that may concern
// any of them. Those that still may are offered anew by their next packets.
func (b *Balancer) takeBack() {
	if b.table.offload != nil {
		b.table.offload.Invalidate()
	}
}

// followLocked moves the deadline of the flow in e on by what the Offload has
// carried of it, and says whether the flow lives on. Nobody asks before a flow
// is due, nor for the replies where the requests keep it alive, so that an
// active one costs a question per lifetime. That is less than to read the
// Offload's map in batches, which would have to read all of it.
func (t *Table) followLocked(e *entry, now uint32) (lives bool) {
	if e.flags&flagOffered == 0 {
		return false
	}
	f := t.flow(e)
	lifetime := f.Server.service.lifetimes[e.state]
	t.eachSeen(&f, func(seen time.Duration) bool {
		if ago := ticks(seen); ago < lifetime {
			if deadline := now - ago + lifetime; int32(deadline-e.deadline) > 0 {
				e.deadline = deadline
			}
		}
		return int32(e.deadline-now) <= 0
	})
	return int32(e.deadline-now) > 0
}

// eachSeen calls do with how long ago the Offload has carried a packet of each
// direction of f, if it has, until do wants no more.
func (t *Table) eachSeen(f *Flow, do func(ago time.Duration) (more bool)) {
	if ago, ok := t.offload.Seen(&f.Tuple); ok && !do(ago) {
		return
	}
	if reply, ok := f.Server.Mode.ReplyTuple(*f); ok {
		if ago, ok := t.offload.Seen(&reply); ok {
			do(ago)
		}
	}
}
