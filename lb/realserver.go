package lb

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// A RealServer is one destination of one service as one configuration has it.
// It never changes; a reload builds a new one that shares the counters and the
// id of the old.
type RealServer struct {
	Endpoint packet.Endpoint // RIP and port; port 0 keeps the client's
	Weight   int
	Down     bool // see RealServerConfig
	Mode     Mode
	MaxFlows int // upper threshold, see thresholds; 0: none
	MinFlows int // lower threshold; 0: three quarters of MaxFlows

	// LastWeight is Weight or, where that is 0, the latest that was not, as far
	// back as the configurations have the real server without a gap.
	LastWeight int

	// mapped are the listens whose ports become the real server's; nil: every
	// port does. It lasts as long as the record, since flows are found by it.
	mapped []Listen

	// Of one that is not in its service's set: removed from it, or there in
	// another mode and replaced by that for new flows.
	removed, replaced bool

	judged bool    // its flows have the fates below: it is removed, or down
	fates  [2]fate // of flows with IPv4 and IPv6 clients

	answerFrom packet.Addr // see RealServerConfig.AnswerFrom

	service *service // the service as it is, or as it was when it was removed
	*record
	*load
}

// A record is what lives on over reloads of a real server in one mode: flows
// name it by its id. It is freed when the real server has been removed and its
// last flow is gone.
type record struct {
	id       uint32
	oneSided bool // the mode's real servers answer the client directly

	pathMTU atomic.Int32  // bytes; 0 unknown
	opened  atomic.Uint64 // flows ever
	traffic traffic
	meter   meter

	offload       Offload     // nil: none
	offered       atomic.Bool // a flow was, once: else it is not worth asking what was carried, two system calls
	carriedBefore Traffic     // what its accounts had when the record was made
}

// A load is the flows that a real server has now, of all modes that it has had:
// a scheduler sees one real server.
type load struct {
	flows  atomic.Int64 // freed: below 0
	active atomic.Int64 // of them those that count as active connections
	limits thresholds
	failures

	ending atomic.Bool   // flows are to end, see leave.go
	leftAt time.Duration // when the real server was seen to have left, 0 if it has not; guarded by Balancer.mu

	templates atomic.Int64 // of persistent clients, with or without flows; they hold the records too
}

// freed is the value of flows from which no acquire can climb out.
const freed = math.MinInt64 / 2

// Same says whether r and o are one real server in two configurations.
func (r *RealServer) Same(o *RealServer) bool { return r.load == o.load }

// Service is the name of the service that r is of, or was.
func (r *RealServer) Service() string { return r.service.name }

// Removed says whether r is not in its service any more.
func (r *RealServer) Removed() bool { return r.removed }

// counted is what the record has counted since it was made.
func (r *record) counted() Traffic {
	t := r.traffic.sum()
	t.Flows = r.opened.Load()
	if r.offered.Load() {
		t.add(r.carried().since(r.carriedBefore))
	}
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

// acquire counts one more flow. It is false when the real server's records
// have been freed meanwhile: the caller has an old snapshot and picks again
// from the new one.
func (l *load) acquire() bool {
	if n := l.flows.Add(1); n > 0 {
		l.grown(n)
		return true
	}
	l.flows.Add(-1)
	return false
}

func (l *load) release() { l.shrunk(l.flows.Add(-1)) }

// free makes every later acquire fail. It is false while there are flows or
// templates.
func (l *load) free() bool {
	if l.flows.Load() < freed/2 {
		return true
	}
	if !l.flows.CompareAndSwap(0, freed) {
		return false
	}
	// Who makes a template has acquired a flow before, so there come no more.
	if l.templates.Load() != 0 {
		l.flows.Add(-freed)
		return false
	}
	return true
}

// Templates is the number of clients that are persistent to the real server.
func (l *load) Templates() int64 { return l.templates.Load() }

// ActiveFlows is the number of flows that count as active, as IPVS counts
// them: TCP and SCTP that is established or on the way there.
func (l *load) ActiveFlows() int64 { return l.active.Load() }

// InactiveFlows is the number of flows that do not count as active.
func (l *load) InactiveFlows() int64 { return max(0, l.flows.Load()-l.active.Load()) }

// PathMTU is the largest packet in bytes that the path to the real server
// carries, 0 where that is not known.
func (r *record) PathMTU() int { return int(r.pathMTU.Load()) }

// DestinationPort is the port of the real server for a client that asked for
// port. With persistence a real server's port stands for those that its
// service names; those that it takes besides stay (ip_vs_sched_persist).
func (r *RealServer) DestinationPort(port uint16) uint16 {
	if r.Endpoint.Port == 0 {
		return port
	}
	if r.mapped == nil {
		return r.Endpoint.Port
	}
	for _, l := range r.mapped {
		if first, last := l.ports(); first <= port && port <= last {
			return r.Endpoint.Port
		}
	}
	return port
}

// mapped is what RealServer.mapped is for the real servers of s: only a
// persistent service on every port, or on FTP's, takes ports that it does not
// name.
func (s *service) mapped() []Listen {
	if s.persistent == nil || !slices.ContainsFunc(s.listens, func(l Listen) bool { return l.FirstPort == 0 || l.isFTP() }) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.listens), func(l Listen) bool { return l.FirstPort == 0 })
}

// mapsAs says whether a record whose real server has mapped may go on with m.
func (r *RealServer) mapsAs(m []Listen) bool {
	return (r.mapped == nil) == (m == nil) && slices.Equal(r.mapped, m)
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
