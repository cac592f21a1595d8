// Package metrics shows what a director counts to Prometheus.
//
// The counters live in the packages that count: while packets are handled
// nothing is looked up here. At each scrape the collectors read the Stats of
// the balancer and of the road, and turn them into the metrics whose names
// stand below. docs/metrics.md lists them; a test compares.
package metrics

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/uvs-project/uvs/announce"
	"github.com/uvs-project/uvs/bgp"
	"github.com/uvs-project/uvs/drain"
	"github.com/uvs-project/uvs/health"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/stack"
)

// The names of all metrics of our own. The unit and, for counters, _total
// stand at the end.
const (
	BuildInfo        = "uvs_build_info"
	ReloadSuccessful = "uvs_config_last_reload_successful"
	ReloadTimestamp  = "uvs_config_last_reload_timestamp_seconds"
	Reloads          = "uvs_config_reloads_total"

	FlowsOpened          = "uvs_flows_opened_total"
	Packets              = "uvs_packets_total"
	Bytes                = "uvs_bytes_total"
	RealServerState      = "uvs_real_server_state"
	RealServerWeight     = "uvs_real_server_weight"
	RealServerFlows      = "uvs_real_server_flows"
	RealServerOpened     = "uvs_real_server_flows_opened_total"
	RealServerClients    = "uvs_real_server_persistent_clients"
	RealServerMaxFlows   = "uvs_real_server_max_flows"
	RealServerOverloaded = "uvs_real_server_overloaded"
	RealServerPathMTU    = "uvs_real_server_path_mtu_bytes"
	RealServerPackets    = "uvs_real_server_packets_total"
	RealServerBytes      = "uvs_real_server_bytes_total"
	RealServerFailures   = "uvs_real_server_connections_failed_total"

	VIPUp       = "uvs_vip_up"
	VIPDegraded = "uvs_vip_degraded"
	SelfProbes  = "uvs_self_probes_total"

	HealthChecks      = "uvs_health_checks_total"
	HealthDuration    = "uvs_health_check_duration_seconds"
	HealthTransitions = "uvs_health_transitions_total"
	HealthEjections   = "uvs_health_ejections_total"

	Flows         = "uvs_flows"
	FlowsInLane   = "uvs_flows_in_fast_lane"
	FlowsLimit    = "uvs_flows_limit"
	FlowsCreated  = "uvs_flows_created_total"
	FlowsExpired  = "uvs_flows_expired_total"
	FlowResets    = "uvs_flow_resets_total"
	DefenceActive = "uvs_defence_active"
	FlowLookups   = "uvs_flow_lookups_total"
	Notes         = "uvs_packet_notes_total"

	TUNInfo       = "uvs_tun_info"
	BGPUp         = "uvs_bgp_session_up"
	BGPState      = "uvs_bgp_session_state"
	BGPFlaps      = "uvs_bgp_session_flaps_total"
	BGPSent       = "uvs_bgp_prefixes_sent"
	BGPRefused    = "uvs_bgp_prefixes_refused_total"
	BGPMessages   = "uvs_bgp_messages_total"
	BGPRoutePeers = "uvs_bgp_route_peers"
	BFDUp         = "uvs_bfd_session_up"
	BFDFlaps      = "uvs_bfd_session_flaps_total"
	BFDPackets    = "uvs_bfd_packets_total"
	BFDInvalid    = "uvs_bfd_invalid_packets_total"

	DrainPhase     = "uvs_drain_phase"
	DrainFlows     = "uvs_drain_flows"
	LaneRefused    = "uvs_fast_lane_refused_total"
	LaneUp         = "uvs_fast_lane_up"
	TUNReads       = "uvs_tun_queue_reads_total"
	TUNReadBytes   = "uvs_tun_queue_read_bytes_total"
	TUNBatches     = "uvs_tun_queue_batches_total"
	TUNWaits       = "uvs_tun_queue_waits_total"
	Verdicts       = "uvs_verdicts_total"
	Drops          = "uvs_drops_total"
	EgressPackets  = "uvs_egress_packets_total"
	EgressLost     = "uvs_egress_lost_total"
	EgressDeferred = "uvs_egress_deferred_total"
)

// A Source is a director as this package sees it. Its functions are called at
// each scrape, from any goroutine.
type Source struct {
	Version  string
	Device   string // name of the TUN device
	Offloads string // what the kernel granted it

	Balancer func() lb.Stats
	Road     func() stack.Stats
	Health   func() []health.Status
	VIPs     func() []announce.Verdict
	Probes   func() (good, bad uint64) // of VIPs by the director itself
	Reload   func() Reload
	Routers  func() bgp.Stats // nil: no BGP
	FastLane func() bool      // it is on, and nothing is in its way
	Refused  func() uint64    // offers that the fast lane did not take
	Drains   func() []drain.Status
}

// Reload says how the configuration was read.
type Reload struct {
	Loaded    time.Time // when the configuration in force was read
	Good, Bad uint64    // reloads that succeeded and that failed; the start is not one
	LastBad   bool      // the last one failed
}

// Handler answers scrapes from a registry of its own.
func Handler(s Source) http.Handler {
	return promhttp.HandlerFor(register(prometheus.NewRegistry(), s), promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
}

// maxScrapes bounds the scrapes at one time: two servers of Prometheus and a
// person each are fewer.
const maxScrapes = 4

func register(r *prometheus.Registry, s Source) *prometheus.Registry {
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&director{s},
		&balancer{s.Balancer, s.Health},
		&vips{s.VIPs, s.Probes},
		&road{s.Road},
		&routers{s.Routers},
	)
	return r
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

func describe(ch chan<- *prometheus.Desc, all ...*prometheus.Desc) {
	for _, d := range all {
		ch <- d
	}
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, n uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, n float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// director collects what belongs to the process as a whole.
type director struct{ source Source }

var (
	buildInfoDesc        = desc(BuildInfo, "1; the version is in the labels.", "version", "go_version")
	tunInfoDesc          = desc(TUNInfo, "1; the TUN device and the offloads that the kernel granted it are in the labels.", "device", "offloads")
	laneUpDesc           = desc(LaneUp, "Whether the fast lane is on and at every interface.")
	laneRefusedDesc      = desc(LaneRefused, "Offers of flows that the fast lane did not take, as it was full: they stay on the TUN road.")
	drainPhaseDesc       = desc(DrainPhase, "1 for the phase that the drain of the target is in: leaving or gone.", "target", "phase")
	drainFlowsDesc       = desc(DrainFlows, "Active flows that the target has left.", "target")
	reloadSuccessfulDesc = desc(ReloadSuccessful, "Whether the last reload of the configuration succeeded.")
	reloadTimestampDesc  = desc(ReloadTimestamp, "When the configuration in force was read.")
	reloadsDesc          = desc(Reloads, "Reloads of the configuration.", "result")
)

func (*director) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, buildInfoDesc, tunInfoDesc, laneUpDesc, laneRefusedDesc, drainPhaseDesc, drainFlowsDesc, reloadSuccessfulDesc, reloadTimestampDesc, reloadsDesc)
}

func (c *director) Collect(ch chan<- prometheus.Metric) {
	gauge(ch, buildInfoDesc, 1, c.source.Version, runtime.Version())
	gauge(ch, tunInfoDesc, 1, c.source.Device, c.source.Offloads)
	gauge(ch, laneUpDesc, oneIf(c.source.FastLane()))
	counter(ch, laneRefusedDesc, c.source.Refused())
	for _, s := range c.source.Drains() {
		gauge(ch, drainPhaseDesc, oneIf(s.Phase == drain.Leaving), s.Target.String(), string(drain.Leaving))
		gauge(ch, drainPhaseDesc, oneIf(s.Phase == drain.Gone), s.Target.String(), string(drain.Gone))
		gauge(ch, drainFlowsDesc, float64(s.Left), s.Target.String())
	}
	r := c.source.Reload()
	gauge(ch, reloadSuccessfulDesc, oneIf(!r.LastBad))
	gauge(ch, reloadTimestampDesc, float64(r.Loaded.UnixMilli())/1000)
	counter(ch, reloadsDesc, r.Good, "success")
	counter(ch, reloadsDesc, r.Bad, "failure")
}
