package lb

import (
	"time"

	"github.com/uvs-project/uvs/packet"
)

// Flows end because their real server left: it was removed, or is down, and
// Policy.Removed or Policy.Down says not to keep them, or Policy.Drain is over since its
// weight became 0 or it was removed.
//
// Whoever leaves is noted by Apply. Tick knows the time: it marks those whose
// flows are to end, and walks once through the table, chunk by chunk, for all
// that were marked since the last walk.

// flowsDo is what becomes of the flows of r.
func (r *RealServer) flowsDo() Removed {
	switch {
	case r.removed:
		return r.service.policy.Removed
	case r.Down:
		return r.service.policy.Down
	}
	return RemovedServe
}

// leaving says whether the flows of r are to end before their time.
func (r *RealServer) leaving() bool {
	p := &r.service.policy
	return r.flowsDo() >= RemovedReschedule || (r.removed || r.Weight == 0) && p.Drain > 0
}

// over says whether that time has come.
func (r *RealServer) over(now time.Duration) bool {
	p := &r.service.policy
	return r.flowsDo() >= RemovedReschedule || now-r.leftAt >= p.Drain
}

// refuses says whether the flow of entry e stays so that whoever of its ends
// sends is reset.
func (r *RealServer) refuses(e *entry) bool {
	return r.flowsDo() == RemovedReset && e.tuple.Proto == packet.TCP
}

// noteLeaving finds the real servers of a whose flows are to end, and takes
// back the marks of those that are in use. Balancer.mu is held.
func (b *Balancer) noteLeaving(a *account) {
	a.leaving = a.leaving[:0]
	for _, rs := range a.servers {
		switch {
		case rs.leaving():
			a.leaving = append(a.leaving, rs)
		case !rs.replaced:
			rs.leftAt = 0
			rs.ending.Store(false)
		}
	}
	if len(a.leaving) > 0 {
		b.left[a] = struct{}{}
	} else {
		delete(b.left, a)
	}
}

// A walk goes through the chunks of the table, around from where it stands, and
// once more for the templates that it has met before the last of their flows
// had ended. It is the sweeper's own.
type walk struct {
	next, left    int
	again, second bool // templates were left; this is for them
}

// walkChunks is how many chunks one Tick walks through, in about a millisecond: ten million
// flows take three seconds.
const walkChunks = 2048

// endFlows ends the flows of real servers that left.
func (b *Balancer) endFlows(now time.Duration) {
	b.mu.Lock()
	for a := range b.left {
		for _, rs := range a.leaving {
			if rs.leftAt == 0 {
				rs.leftAt = max(now, 1)
			}
			if rs.over(now) && !rs.ending.Swap(true) {
				b.walk.left, b.walk.second = b.table.numChunks(), false
			}
		}
	}
	b.mu.Unlock()
	w := &b.walk
	for range min(w.left, walkChunks) {
		w.again = b.table.endInChunk(w.next, tickOf(now)) || w.again
		w.left--
		w.next++
		if w.next >= b.table.numChunks() {
			w.next = 0
		}
	}
	if w.left == 0 && w.again && !w.second {
		w.left, w.second = b.table.numChunks(), true
	}
	w.again = w.again && w.left > 0
}

// endInChunk ends the flows in one chunk whose real server's are to end, and
// says whether it has left a template that is to end with its flows.
func (t *Table) endInChunk(chunk int, now uint32) (left bool) {
	for more := true; more; {
		var replies [burst]hint
		ended, removed := 0, 0
		t.eachInChunk(chunk, func(s *shard, n uint32, e *entry) {
			rs := t.servers.get(e.server)
			switch {
			case !rs.ending.Load() || e.flags&flagPinned != 0 || ended == burst:
				return
			case e.state.isTemplate() && (e.local > 0 || !rs.removed):
				left = left || rs.removed
				return // its flows end by themselves, or its clients may come back
			case e.resettable() && rs.service.keepTrails && int32(e.deadline-now) > 0:
				t.resetLocked(s, n, now)
			case rs.service.keepTrails && e.state == TCPClose || rs.refuses(e):
				return // it ends soon, or at its time
			default:
				replies[removed] = t.removeLocked(s, n)
				removed++
			}
			s.ended++
			ended++
		})
		t.sendResets()
		for _, r := range replies[:removed] {
			t.removeReply(r)
		}
		more = ended == burst
	}
	return left
}
