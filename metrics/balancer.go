package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uvs-project/uvs/health"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// balancer collects services, real servers and flows.
type balancer struct {
	stats  func() lb.Stats
	health func() []health.Status
}

var (
	openedDesc  = desc(FlowsOpened, "Flows opened, by service and mode.", "service", "mode")
	packetsDesc = desc(Packets, "Packets of flows as they are on the wire, by service, direction (in: from clients, out: from real servers) and mode.", "service", "direction", "mode")
	bytesDesc   = desc(Bytes, "Bytes of those packets, from the IP header on, before they are rewritten.", "service", "direction", "mode")

	realServerStateDesc      = desc(RealServerState, "1 for the state that the real server is in; removed: from the configuration, while it has flows.", "service", "real_server", "state")
	realServerWeightDesc     = desc(RealServerWeight, "Weight of the real server; 0 gets no new flows.", "service", "real_server")
	realServerFlowsDesc      = desc(RealServerFlows, "Flows of the real server, active or inactive as IPVS counts them.", "service", "real_server", "activity")
	realServerOpenedDesc     = desc(RealServerOpened, "Flows that the real server was given.", "service", "real_server")
	realServerClientsDesc    = desc(RealServerClients, "Clients that are bound to the real server by persistence.", "service", "real_server")
	realServerMaxFlowsDesc   = desc(RealServerMaxFlows, "Flows from which on the real server gets no new ones; 0: no bound.", "service", "real_server")
	realServerPathMTUDesc    = desc(RealServerPathMTU, "Largest packet that the path to the real server carries; 0: not known.", "service", "real_server")
	realServerOverloadedDesc = desc(RealServerOverloaded, "Whether the real server gets no new flows because of max_flows.", "service", "real_server")
	realServerPacketsDesc    = desc(RealServerPackets, "Packets of flows of the real server, as they are on the wire.", "service", "real_server", "direction")
	realServerBytesDesc      = desc(RealServerBytes, "Bytes of those packets.", "service", "real_server", "direction")
	realServerFailuresDesc   = desc(RealServerFailures, "TCP connections of clients that the real server refused or did not answer, as seen in nat and fullnat.", "service", "real_server", "cause")

	flowsDesc        = desc(Flows, "Flows in the table.")
	flowsInLaneDesc  = desc(FlowsInLane, "Of those flows, the ones that the fast lane may carry.")
	flowsLimitDesc   = desc(FlowsLimit, "Most flows that the table takes.")
	flowsCreatedDesc = desc(FlowsCreated, "Flows created.")
	flowsExpiredDesc = desc(FlowsExpired, "Flows ended: by timeout, evicted because the table was full, dropped by the defence drop_entry, or with their real server by policy.removed or policy.drain.", "reason")
	flowResetsDesc   = desc(FlowResets, "Resets that told an end of its connection's end, sent or lost because too many waited.", "result")
	defenceDesc      = desc(DefenceActive, "Whether a defence is on.", "defence")
	lookupsDesc      = desc(FlowLookups, "Packets to services by how they found their flow: miss_syn may open one, miss_nonsyn belongs to a flow that this director does not have.", "result")
	notesDesc        = desc(Notes, "Packets that the balancer noted something about, whether it dropped or answered them.", "reason")
)

func (*balancer) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, openedDesc, packetsDesc, bytesDesc,
		realServerStateDesc, healthChecksDesc, healthDurationDesc, healthTransitionsDesc, healthEjectionsDesc, realServerWeightDesc, realServerFlowsDesc, realServerClientsDesc, realServerMaxFlowsDesc, realServerOverloadedDesc, realServerPathMTUDesc,
		realServerOpenedDesc, realServerPacketsDesc, realServerBytesDesc, realServerFailuresDesc,
		flowsDesc, flowsInLaneDesc, flowsLimitDesc, flowsCreatedDesc, flowsExpiredDesc, flowResetsDesc, defenceDesc, lookupsDesc, notesDesc)
}

func (c *balancer) Collect(ch chan<- prometheus.Metric) {
	s := c.stats()
	known := c.known()
	for i := range s.Services {
		collectService(ch, &s.Services[i], known)
	}
	gauge(ch, flowsDesc, float64(s.Flows.Now))
	gauge(ch, flowsInLaneDesc, float64(s.Flows.Offered))
	gauge(ch, flowsLimitDesc, float64(s.Flows.Limit))
	counter(ch, flowsCreatedDesc, s.Flows.Created)
	counter(ch, flowsExpiredDesc, s.Flows.Expired, "timeout")
	counter(ch, flowsExpiredDesc, s.Flows.Evicted, "evicted")
	counter(ch, flowsExpiredDesc, s.Flows.Dropped, "dropped")
	counter(ch, flowsExpiredDesc, s.Flows.Ended, "server_left")
	counter(ch, flowResetsDesc, s.Flows.Resets, "sent")
	counter(ch, flowResetsDesc, s.Flows.ResetsLost, "lost")
	gauge(ch, defenceDesc, oneIf(s.Defence.DropEntry), "drop_entry")
	gauge(ch, defenceDesc, oneIf(s.Defence.DropRate > 0), "drop_packet")
	gauge(ch, defenceDesc, oneIf(s.Defence.SecureTCP), "secure_tcp")
	counter(ch, lookupsDesc, s.Lookups.Hit, "hit")
	counter(ch, lookupsDesc, s.Lookups.MissSYN, "miss_syn")
	counter(ch, lookupsDesc, s.Lookups.MissNonSYN, "miss_nonsyn")
	collectReasons(ch, notesDesc, s.Reasons)
}

func collectService(ch chan<- prometheus.Metric, s *lb.ServiceStats, known map[realServer]*health.Status) {
	for mode, t := range s.Modes {
		counter(ch, openedDesc, t.Flows, s.Name, mode)
		counter(ch, packetsDesc, t.RequestPackets, s.Name, "in", mode)
		counter(ch, packetsDesc, t.ReplyPackets, s.Name, "out", mode)
		counter(ch, bytesDesc, t.RequestBytes, s.Name, "in", mode)
		counter(ch, bytesDesc, t.ReplyBytes, s.Name, "out", mode)
	}
	for _, rs := range s.RealServers {
		name := Address(rs.Endpoint)
		collectHealth(ch, known[realServer{s.Name, rs.Endpoint}], s.Name, name)
		gauge(ch, realServerStateDesc, oneIf(rs.Removed), s.Name, name, "removed")
		gauge(ch, realServerWeightDesc, float64(rs.Weight), s.Name, name)
		gauge(ch, realServerFlowsDesc, float64(rs.ActiveFlows), s.Name, name, "active")
		gauge(ch, realServerFlowsDesc, float64(rs.InactiveFlows), s.Name, name, "inactive")
		gauge(ch, realServerClientsDesc, float64(rs.Templates), s.Name, name)
		gauge(ch, realServerMaxFlowsDesc, float64(rs.MaxFlows), s.Name, name)
		gauge(ch, realServerOverloadedDesc, oneIf(rs.Overloaded), s.Name, name)
		gauge(ch, realServerPathMTUDesc, float64(rs.PathMTU), s.Name, name)
		counter(ch, realServerOpenedDesc, rs.Flows, s.Name, name)
		counter(ch, realServerPacketsDesc, rs.RequestPackets, s.Name, name, "in")
		counter(ch, realServerPacketsDesc, rs.ReplyPackets, s.Name, name, "out")
		counter(ch, realServerBytesDesc, rs.RequestBytes, s.Name, name, "in")
		counter(ch, realServerBytesDesc, rs.ReplyBytes, s.Name, name, "out")
		counter(ch, realServerFailuresDesc, rs.Refused, s.Name, name, "refused")
		counter(ch, realServerFailuresDesc, rs.Unanswered, s.Name, name, "unanswered")
	}
}

// Address is a real server as the configuration writes it, and the value of
// the label real_server.
func Address(e packet.Endpoint) string {
	a := e.Addr.Netip(e.Family).String()
	switch {
	case e.Port == 0:
		return a
	case e.Family == packet.IPv6:
		a = "[" + a + "]"
	}
	return a + ":" + strconv.Itoa(int(e.Port))
}

// collectReasons shows how often each reason occurred; OK is none.
func collectReasons(ch chan<- prometheus.Metric, d *prometheus.Desc, counts [packet.NumReasons]uint64) {
	for r, n := range counts {
		if packet.Reason(r) != packet.OK {
			counter(ch, d, n, packet.Reason(r).String())
		}
	}
}
