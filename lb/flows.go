package lb

import (
	"iter"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// FlowInfo is what a listing shows of one flow, or of the template of a
// persistent client, which has a state of its own.
type FlowInfo struct {
	Flow // of a template: Tuple is from the client, port 0, to what Destination says too

	Left  time.Duration // until the flow ends, if no packet comes
	Flows int           // that a template has

	Offered    bool // the Offload was offered it: whether it has the flow just now, only the Offload knows
	Persistent bool // it has a template
	Direct     bool // the real server answers the client directly
	Pinned     bool // made by Pin
}

// IsTemplate says whether it is of a persistent client and no flow.
func (f *FlowInfo) IsTemplate() bool { return f.State.isTemplate() }

// LocalEndpoint is the director's address and port that the real server sees
// as the client, where the mode gives the flow one of its own; Family 0: it
// does not.
func (f *FlowInfo) LocalEndpoint() packet.Endpoint {
	if f.IsTemplate() {
		return packet.Endpoint{}
	}
	var rw packet.Rewrite
	f.Server.Mode.Rewrite(&f.Flow, Request, &rw)
	return rw.Src
}

// flagged is what the flags of the entry e say.
func (f *FlowInfo) flagged(e *entry) {
	f.Offered = e.flags&flagOffered != 0
	f.Persistent = e.flags&flagControlled != 0
	f.Direct = e.flags&flagOneSided != 0
	f.Pinned = e.flags&flagPinned != 0
	f.Flows = 0
}

// Destination is the real server with the port that packets of the flow get
// there. For a template the port is 0 where it stands for more than one, and
// 65535 where no client may use it any more, both as IPVS lists them.
func (f *FlowInfo) Destination() packet.Endpoint {
	e := f.Server.Endpoint
	if f.State.isTemplate() && (f.Tuple.DstPort == 0 || f.Tuple.DstPort == unusable) {
		e.Port = f.Tuple.DstPort
		return e
	}
	e.Port = f.Server.DestinationPort(f.Tuple.DstPort)
	return e
}

// Flows lists the flows at the time now, in no order. What it yields are
// copies; a flow that lasts as long as the listing is yielded once, one that
// comes or ends meanwhile once or not at all. Packets of other flows wait for
// it at most as long as it takes to copy one chunk, some 5 µs.
func (b *Balancer) Flows(now time.Duration) iter.Seq[FlowInfo] {
	return func(yield func(FlowInfo) bool) {
		t := b.table
		var found [chunkEntries]FlowInfo
		tick := tickOf(now)
		for chunk := range t.numChunks() {
			n := 0
			t.eachInChunk(chunk, func(_ *shard, _ uint32, e *entry) {
				f := &found[n]
				left := int32(e.deadline - tick)
				f.flagged(e)
				if t.copyFlow(&f.Flow, e); f.State.isTemplate() {
					f.Flows = int(f.Local)
					f.Local = 0
					f.Tuple = listed(&f.Flow)
					if left <= 0 && f.Flows > 0 {
						left += int32(ticks(rearmed)) // the wheel will find it soon
					}
				}
				if left > 0 || f.Offered {
					f.Left = time.Duration(left) << tickShift
					n++
				}
			})
			for _, f := range found[:n] {
				if f.Left <= 0 && !b.Refresh(&f) {
					continue
				}
				if !yield(f) {
					return
				}
			}
		}
	}
}

// Refresh brings f.Left up to date with what the Offload has carried, which
// Flows does not ask for flows that are not due, and says whether the flow
// lives.
func (b *Balancer) Refresh(f *FlowInfo) bool {
	if !f.Offered {
		return f.Left > 0
	}
	lifetime := time.Duration(f.Server.service.lifetimes[f.State]) << tickShift
	b.table.eachSeen(&f.Flow, func(ago time.Duration) bool {
		f.Left = max(f.Left, lifetime-ago)
		return true
	})
	return f.Left > 0
}

// numChunks is how many chunks of entries may have been handed out.
func (t *Table) numChunks() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries.raw / chunkEntries
}

// eachInChunk calls do for every flow of a chunk of entries, with the chunk's
// shard locked. Entries do not move, so who goes through all chunks meets
// every flow that lasts so long, once.
func (t *Table) eachInChunk(chunk int, do func(s *shard, n uint32, e *entry)) {
	owner := atomic.LoadUint32(&t.owners[chunk])
	if owner == 0 {
		return
	}
	s := &t.shards[owner-1]
	s.mu.Lock()
	defer s.mu.Unlock()
	first := uint32(chunk * chunkEntries)
	for n := first; n < first+chunkEntries; n++ {
		if e := &t.entries.all[n]; e.flags&flagLive != 0 {
			do(s, n, e)
		}
	}
}
