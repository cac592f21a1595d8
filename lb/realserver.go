package lb

import (
	"math"
	"sync/atomic"

	"github.com/uvs-project/uvs/packet"
)

// A RealServer is one destination of one service as one configuration has it.
// It never changes; a reload builds a new one that shares the counters and the
// id of the old.
type RealServer struct {
	Endpoint packet.Endpoint // RIP and port; port 0 keeps the client's
	Weight   int
	Mode     Mode
	MaxFlows int // upper threshold, see thresholds; 0: none
	MinFlows int // lower threshold; 0: three quarters of MaxFlows

	// LastWeight is Weight or, where that is 0, the latest that was not, as far
	// back as the configurations have the real server without a gap.
	LastWeight int

	service *service
	*record
}

// A record is what lives on of a real server over reloads: flows name it by
// its id. It is freed when the real server has been removed and its last flow
// is gone.
type record struct {
	id       uint32
	oneSided bool // the mode's real servers answer the client directly

	flows     atomic.Int64 // flows that name the id; freed: below 0
	active    atomic.Int64 // of them those that count as active connections
	limits    thresholds
	templates atomic.Int64  // of persistent clients, with or without flows; they hold the id too
	pathMTU   atomic.Int32  // bytes; 0 unknown
	opened    atomic.Uint64 // flows ever
	traffic   traffic
	meter     meter

	offload       Offload // nil: none
	carriedBefore Traffic // what its accounts had when the record was made
}

// freed is the value of flows from which no acquire can climb out.
const freed = math.MinInt64 / 2

// Same says whether r and o are one real server in two configurations.
func (r *RealServer) Same(o *RealServer) bool { return r.record == o.record }

// acquire counts one more flow. It is false when the record has been freed
// meanwhile: the caller has an old snapshot and picks again from the new one.
func (r *record) acquire() bool {
	if n := r.flows.Add(1); n > 0 {
		r.grown(n)
		return true
	}
	r.flows.Add(-1)
	return false
}

// counted is what the record has counted since it was made.
func (r *record) counted() Traffic {
	t := r.traffic.sum()
	t.Flows = r.opened.Load()
	t.add(r.carried().since(r.carriedBefore))
	return t
}

// carried is what the Offload has counted on the accounts of r's id.
func (r *record) carried() (t Traffic) {
	if r.offload != nil {
		t.RequestPackets, t.RequestBytes = r.offload.Count(r.accountOf(Request))
		t.ReplyPackets, t.ReplyBytes = r.offload.Count(r.accountOf(Reply))
	}
	return t
}

func (r *record) release() { r.shrunk(r.flows.Add(-1)) }

// free makes every later acquire fail. It is false while there are flows or
// templates.
func (r *record) free() bool {
	if !r.flows.CompareAndSwap(0, freed) {
		return false
	}
	// Who makes a template has acquired a flow before, so there come no more.
	if r.templates.Load() != 0 {
		r.flows.Add(-freed)
		return false
	}
	return true
}

// Templates is the number of clients that are persistent to the real server.
func (r *record) Templates() int64 { return r.templates.Load() }

// ActiveFlows is the number of flows that count as active, as IPVS counts
// them: TCP and SCTP that is established or on the way there.
func (r *record) ActiveFlows() int64 { return r.active.Load() }

// InactiveFlows is the number of flows that do not count as active.
func (r *record) InactiveFlows() int64 { return max(0, r.flows.Load()-r.active.Load()) }

// PathMTU is the largest packet in bytes that the path to the real server
// carries, 0 where that is not known.
func (r *record) PathMTU() int { return int(r.pathMTU.Load()) }

// DestinationPort is the port of the real server for a client that asked for
// port.
func (r *RealServer) DestinationPort(port uint16) uint16 {
	if r.Endpoint.Port != 0 {
		return r.Endpoint.Port
	}
	return port
}

// A registry finds real servers by id. Its slice is replaced whole by Apply
// and never changed.
//
// An id read from a flow is looked up while the lock that guards the flow is
// held: the flow holds its real server's record, so the id cannot have been
// given to another one.
type registry struct {
	byID atomic.Pointer[[]*RealServer]
}

func newRegistry() *registry {
	r := new(registry)
	r.byID.Store(new([]*RealServer))
	return r
}

func (r *registry) get(id uint32) *RealServer { return (*r.byID.Load())[id] }
