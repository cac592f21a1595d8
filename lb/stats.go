package lb

import (
	"maps"
	"slices"
	"strings"

	"github.com/uvs-project/uvs/packet"
)

// Stats is what a Balancer has counted since it was made, summed over its
// queues at the moment of asking.
type Stats struct {
	Services []ServiceStats
	Gone     []ServiceStats // that are not in the configuration any more and have flows, by name
	Total    Measured       // of all services, those that were removed too
	Flows    FlowStats
	Defence  DefenceState
	Lookups  Lookups
	Reasons  [packet.NumReasons]uint64 // packets by what happened to them, dropped or not; OK is not counted
}

// FlowStats is the state of the flow table.
type FlowStats struct {
	Now, Limit int
	Offered    int // of Now, flows that the Offload may carry
	Created    uint64
	Expired    uint64 // ended by time or by a new connection in their place
	Evicted    uint64 // given up because the table was full
	Dropped    uint64 // ended by Defence.DropEntry
	Ended      uint64 // ended by Policy.Removed or Policy.Drain; who was reset counts as expired too, once it is forgotten

	// Packets that reset a connection, sent by Options.Emit or refused by it.
	Resets, ResetsLost uint64
}

// Measured is what was counted, and how fast it grows.
type Measured struct {
	Traffic           // since the start
	SinceZero Traffic // since the last Balancer.Zero
	Rates     Rates   // per second
}

func (m *meter) measured(now Traffic) Measured {
	return Measured{Traffic: now, SinceZero: now.since(m.base), Rates: m.rates()}
}

func (m *Measured) add(o Measured) {
	m.Traffic.add(o.Traffic)
	m.SinceZero.add(o.SinceZero)
	m.Rates.add(o.Rates)
}

// ServiceStats is one service of the configuration in force.
type ServiceStats struct {
	Name        string
	Listens     []Listen
	Measured                       // of all modes
	Modes       map[string]Traffic // by the name of the mode
	RealServers []RealServerStats  // in list order, the newest first, then the removed ones that have flows; none twice
}

// RealServerStats is one real server of one service. It counts what went to it
// in every mode that it had.
type RealServerStats struct {
	Endpoint      packet.Endpoint
	Mode          string
	Weight        int
	Removed       bool // not in the configuration any more
	ActiveFlows   int64
	InactiveFlows int64
	Templates     int64 // clients that are persistent to it
	MaxFlows      int   // thresholds; 0: none
	MinFlows      int
	Overloaded    bool // gets no new flows because of them
	PathMTU       int  // bytes; 0 unknown
	Failures
	Measured
}

// Stats sums the counters.
func (b *Balancer) Stats() Stats {
	var s Stats
	for _, q := range b.queues {
		s.Lookups.Hit += q.hit.value()
		s.Lookups.MissSYN += q.missSYN.value()
		s.Lookups.MissNonSYN += q.missNonSYN.value()
		for r := range s.Reasons {
			s.Reasons[r] += q.reasons[r].value()
		}
	}
	s.Flows = b.table.stats()
	b.defence.mu.Lock()
	s.Defence = b.defence.state
	b.defence.mu.Unlock()

	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.state.Load().services {
		svc := p.Load()
		s.Services = append(s.Services, b.accounts[svc.name].stats(svc, svc.set))
	}
	for name, a := range b.accounts {
		if b.byName[name] != nil || len(a.servers) == 0 {
			continue
		}
		if gone := a.stats(a.servers[0].service, nil); len(gone.RealServers) > 0 {
			s.Gone = append(s.Gone, gone)
		}
	}
	slices.SortFunc(s.Gone, func(x, y ServiceStats) int { return strings.Compare(x.Name, y.Name) })
	all := b.gone
	for _, a := range b.accounts {
		all.add(a.counted())
	}
	s.Total = b.all.measured(all)
	return s
}

// stats are those of the service that a is of, whose latest form is s and whose
// real servers are set.
func (a *account) stats(s *service, set []*RealServer) ServiceStats {
	st := ServiceStats{Name: s.name, Listens: slices.Clone(s.listens), Modes: maps.Clone(a.retired)}
	sum := a.former()
	place := map[packet.Endpoint]int{}
	add := func(rs *RealServer) {
		m := rs.meter.measured(rs.counted())
		sum.add(m.Traffic)
		ofMode := st.Modes[rs.Mode.String()]
		ofMode.add(m.Traffic)
		st.Modes[rs.Mode.String()] = ofMode
		if i, ok := place[rs.Endpoint]; ok {
			st.RealServers[i].Measured.add(m)
			return
		}
		if rs.removed && rs.flows.Load() <= 0 {
			return
		}
		place[rs.Endpoint] = len(st.RealServers)
		st.RealServers = append(st.RealServers, RealServerStats{
			Endpoint:      rs.Endpoint,
			Mode:          rs.Mode.String(),
			Weight:        rs.Weight,
			Removed:       rs.removed,
			ActiveFlows:   rs.ActiveFlows(),
			InactiveFlows: rs.InactiveFlows(),
			Templates:     rs.Templates(),
			MaxFlows:      rs.MaxFlows,
			MinFlows:      rs.MinFlows,
			Overloaded:    rs.Overloaded(),
			PathMTU:       rs.PathMTU(),
			Failures:      rs.failures.counted(),
			Measured:      m,
		})
	}
	for _, rs := range set {
		add(rs)
	}
	if len(a.servers) == len(set) {
		st.Measured = a.meter.measured(sum)
		return st
	}
	for _, rs := range a.servers {
		if rs.removed || rs.replaced {
			add(rs)
		}
	}
	st.Measured = a.meter.measured(sum)
	return st
}

func (t *Table) stats() FlowStats {
	st := FlowStats{
		Now: t.Len(), Limit: t.Limit(), Offered: int(t.offered.Load()),
		Resets: t.resets.sent.Load(), ResetsLost: t.resets.lost.Load(),
	}
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		st.Created += s.created
		st.Expired += s.expired
		st.Evicted += s.evicted
		st.Dropped += s.dropped
		st.Ended += s.ended
		s.mu.Unlock()
	}
	return st
}
