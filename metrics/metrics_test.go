package metrics

import (
	"io"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/uvs-project/uvs/announce"
	"github.com/uvs-project/uvs/bgp"
	"github.com/uvs-project/uvs/bgp/bfd"
	"github.com/uvs-project/uvs/drain"
	"github.com/uvs-project/uvs/health"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

func endpoint(s string) packet.Endpoint { return packet.EndpointFrom(netip.MustParseAddrPort(s)) }

// busy is a director that has counted everything. Its numbers differ, so that
// two that were mixed up show.
func busy() Source {
	traffic := func(n uint64) lb.Traffic {
		return lb.Traffic{Flows: n + 4, RequestPackets: n, RequestBytes: n + 1, ReplyPackets: n + 2, ReplyBytes: n + 3}
	}
	balancer := lb.Stats{
		Services: []lb.ServiceStats{{
			Name:  "web",
			Modes: map[string]lb.Traffic{"nat": traffic(10), "dr": traffic(20)},
			RealServers: []lb.RealServerStats{
				{Endpoint: endpoint("192.0.2.1:80"), Mode: "dr", Weight: 3, ActiveFlows: 6, InactiveFlows: 8, Failures: lb.Failures{Refused: 85, Unanswered: 86}, Measured: lb.Measured{Traffic: lb.Traffic{Flows: 32, RequestPackets: 24, RequestBytes: 26, ReplyPackets: 28, ReplyBytes: 30}}},
				{Endpoint: endpoint("[2001:db8::1]:80"), Mode: "nat", Weight: 4, Measured: lb.Measured{Traffic: traffic(6)}},
				{Endpoint: endpoint("192.0.2.2:0"), Mode: "nat", Removed: true, Weight: 7},
			},
		}},
		Flows:   lb.FlowStats{Offered: 46, Now: 31, Limit: 32, Created: 33, Expired: 34, Evicted: 35, Dropped: 36, Ended: 37, Resets: 38, ResetsLost: 39},
		Defence: lb.DefenceState{DropRate: 2},
		Lookups: lb.Lookups{Hit: 41, MissSYN: 42, MissNonSYN: 43},
	}
	balancer.Reasons[packet.NotSYN] = 44
	queue := stack.QueueStats{
		Batches: 51, Waits: 52, Packets: 1000, Bytes: 53, Sent: 600, Passed: 200, Returned: 100,
		ByLink: 54, ByKernel: 55, Waited: 56,
	}
	queue.Dropped[packet.Truncated] = 60
	queue.Dropped[packet.TableFull] = 40
	queue.Lost[packet.NoNeighbour] = 57
	return Source{
		Version: "v1.2.3", Device: "uvs0", Offloads: "checksum tso uso",
		Balancer: func() lb.Stats { return balancer },
		Health: func() []health.Status {
			return []health.Status{
				{Service: "web", Server: netip.MustParseAddrPort("192.0.2.1:80"), State: health.Up, Good: 81, Bad: 82, Transitions: 83, Ejections: 87, Spared: 88, LastTook: 84 * time.Millisecond},
				{Service: "web", Server: netip.MustParseAddrPort("[2001:db8::1]:80"), State: health.Down},
			}
		},
		Road: func() stack.Stats { return stack.Stats{Queues: []stack.QueueStats{queue, {Packets: 7, Sent: 7}}} },
		Routers: func() bgp.Stats {
			return bgp.Stats{
				Peers: []bgp.PeerStats{{
					Peer: "192.0.2.254", AS: 65000, State: bgp.Established, Ups: 92, Downs: 91, Announced: 93, Refused: 94,
					Sent:     bgp.Messages{Open: 101, Update: 102, Notification: 103, Keepalive: 104, Refresh: 105},
					Received: bgp.Messages{Open: 111, Update: 112, Notification: 113, Keepalive: 114, Refresh: 115},
					BFD:      &bfd.PeerStats{State: bfd.Up, Ups: 95, Downs: 96, Sent: 97, Received: 98},
				}, {Peer: "eth0", AS: 65000, State: bgp.Active}},
				Routes:     []bgp.RouteStats{{Prefix: netip.MustParsePrefix("203.0.113.10/32"), Peers: 1}},
				BFDInvalid: 99,
			}
		},
		VIPs: func() []announce.Verdict {
			return []announce.Verdict{{VIP: netip.MustParseAddr("203.0.113.10"), Announce: true, Level: announce.Backup}, {VIP: netip.MustParseAddr("203.0.113.11")}}
		},
		Probes:   func() (good, bad uint64) { return 49, 50 },
		FastLane: func() bool { return true },
		Refused:  func() uint64 { return 48 },
		Drains: func() []drain.Status {
			return []drain.Status{{Target: drain.Target{Node: true}, Phase: drain.Leaving, Left: 47}}
		},
		Reload: func() Reload { return Reload{Loaded: time.Unix(1700000000, 0), Good: 71, Bad: 72, LastBad: true} },
	}
}

// scrape is what Prometheus gets, the lines of our own metrics only.
func scrape(t *testing.T, s Source) []string {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(s).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var lines []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "uvs_") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestScrape(t *testing.T) {
	lines := scrape(t, busy())
	for _, want := range []string{
		`uvs_config_last_reload_successful 0`,
		`uvs_vip_up{vip="203.0.113.10"} 1`,
		`uvs_vip_up{vip="203.0.113.11"} 0`,
		`uvs_vip_degraded{vip="203.0.113.10"} 1`,
		`uvs_vip_degraded{vip="203.0.113.11"} 0`,
		`uvs_self_probes_total{result="good"} 49`,
		`uvs_self_probes_total{result="bad"} 50`,
		`uvs_config_last_reload_timestamp_seconds 1.7e+09`,
		`uvs_config_reloads_total{result="failure"} 72`,
		`uvs_config_reloads_total{result="success"} 71`,
		`uvs_tun_info{device="uvs0",offloads="checksum tso uso"} 1`,
		`uvs_bgp_session_up{peer="192.0.2.254"} 1`,
		`uvs_bgp_session_up{peer="eth0"} 0`,
		`uvs_bgp_session_state{peer="192.0.2.254",state="established"} 1`,
		`uvs_bgp_session_state{peer="192.0.2.254",state="active"} 0`,
		`uvs_bgp_session_state{peer="eth0",state="active"} 1`,
		`uvs_bgp_session_flaps_total{peer="192.0.2.254"} 91`,
		`uvs_bgp_prefixes_sent{peer="192.0.2.254"} 93`,
		`uvs_bgp_prefixes_refused_total{peer="192.0.2.254"} 94`,
		`uvs_bgp_messages_total{direction="out",peer="192.0.2.254",type="update"} 102`,
		`uvs_bgp_messages_total{direction="in",peer="192.0.2.254",type="notification"} 113`,
		`uvs_bgp_route_peers{prefix="203.0.113.10/32"} 1`,
		`uvs_bfd_session_up{peer="192.0.2.254"} 1`,
		`uvs_bfd_session_flaps_total{peer="192.0.2.254"} 96`,
		`uvs_bfd_packets_total{direction="out",peer="192.0.2.254"} 97`,
		`uvs_bfd_packets_total{direction="in",peer="192.0.2.254"} 98`,
		`uvs_bfd_invalid_packets_total 99`,
		`uvs_fast_lane_up 1`,
		`uvs_fast_lane_refused_total 48`,
		`uvs_drain_phase{phase="leaving",target="node"} 1`,
		`uvs_drain_phase{phase="gone",target="node"} 0`,
		`uvs_drain_flows{target="node"} 47`,
		`uvs_flows_in_fast_lane 46`,
		`uvs_packets_total{direction="in",mode="nat",service="web"} 10`,
		`uvs_packets_total{direction="out",mode="dr",service="web"} 22`,
		`uvs_bytes_total{direction="in",mode="nat",service="web"} 11`,
		`uvs_bytes_total{direction="out",mode="dr",service="web"} 23`,
		`uvs_flows_opened_total{mode="nat",service="web"} 14`,
		`uvs_real_server_state{real_server="192.0.2.1:80",service="web",state="up"} 1`,
		`uvs_real_server_state{real_server="192.0.2.1:80",service="web",state="removed"} 0`,
		`uvs_real_server_state{real_server="192.0.2.2",service="web",state="removed"} 1`,
		`uvs_real_server_state{real_server="192.0.2.2",service="web",state="up"} 0`,
		`uvs_real_server_state{real_server="[2001:db8::1]:80",service="web",state="down"} 1`,
		`uvs_real_server_state{real_server="[2001:db8::1]:80",service="web",state="up"} 0`,
		`uvs_health_checks_total{real_server="192.0.2.1:80",result="success",service="web"} 81`,
		`uvs_health_checks_total{real_server="192.0.2.1:80",result="failure",service="web"} 82`,
		`uvs_health_transitions_total{real_server="192.0.2.1:80",service="web"} 83`,
		`uvs_health_ejections_total{real_server="192.0.2.1:80",result="ejected",service="web"} 87`,
		`uvs_health_ejections_total{real_server="192.0.2.1:80",result="spared",service="web"} 88`,
		`uvs_real_server_connections_failed_total{cause="refused",real_server="192.0.2.1:80",service="web"} 85`,
		`uvs_real_server_connections_failed_total{cause="unanswered",real_server="192.0.2.1:80",service="web"} 86`,
		`uvs_health_check_duration_seconds{real_server="192.0.2.1:80",service="web"} 0.084`,
		`uvs_real_server_weight{real_server="[2001:db8::1]:80",service="web"} 4`,
		`uvs_real_server_flows{activity="active",real_server="192.0.2.1:80",service="web"} 6`,
		`uvs_real_server_flows{activity="inactive",real_server="192.0.2.1:80",service="web"} 8`,
		`uvs_real_server_flows_opened_total{real_server="192.0.2.1:80",service="web"} 32`,
		`uvs_real_server_packets_total{direction="in",real_server="192.0.2.1:80",service="web"} 24`,
		`uvs_real_server_packets_total{direction="out",real_server="192.0.2.1:80",service="web"} 28`,
		`uvs_real_server_bytes_total{direction="in",real_server="192.0.2.1:80",service="web"} 26`,
		`uvs_real_server_bytes_total{direction="out",real_server="192.0.2.1:80",service="web"} 30`,
		`uvs_flows 31`,
		`uvs_flows_limit 32`,
		`uvs_flows_created_total 33`,
		`uvs_flows_expired_total{reason="timeout"} 34`,
		`uvs_flows_expired_total{reason="evicted"} 35`,
		`uvs_flows_expired_total{reason="dropped"} 36`,
		`uvs_flows_expired_total{reason="server_left"} 37`,
		`uvs_flow_resets_total{result="sent"} 38`, `uvs_flow_resets_total{result="lost"} 39`,
		`uvs_defence_active{defence="drop_entry"} 0`,
		`uvs_defence_active{defence="drop_packet"} 1`,
		`uvs_defence_active{defence="secure_tcp"} 0`,
		`uvs_flow_lookups_total{result="hit"} 41`,
		`uvs_flow_lookups_total{result="miss_syn"} 42`,
		`uvs_flow_lookups_total{result="miss_nonsyn"} 43`,
		`uvs_packet_notes_total{reason="not_syn"} 44`,
		`uvs_tun_queue_batches_total{queue="0"} 51`,
		`uvs_tun_queue_waits_total{queue="0"} 52`,
		`uvs_tun_queue_reads_total{queue="0"} 1000`,
		`uvs_tun_queue_reads_total{queue="1"} 7`,
		`uvs_tun_queue_read_bytes_total{queue="0"} 53`,
		`uvs_verdicts_total{verdict="send"} 607`,
		`uvs_verdicts_total{verdict="pass"} 200`,
		`uvs_verdicts_total{verdict="return"} 100`,
		`uvs_verdicts_total{verdict="drop"} 100`,
		`uvs_drops_total{reason="truncated"} 60`,
		`uvs_drops_total{reason="table_full"} 40`,
		`uvs_drops_total{reason="bad_vnet"} 0`,
		`uvs_egress_packets_total{way="link"} 54`,
		`uvs_egress_packets_total{way="kernel"} 55`,
		`uvs_egress_lost_total{reason="no_neighbour"} 57`,
		`uvs_egress_deferred_total 56`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %s", want)
		}
	}
	if t.Failed() {
		t.Logf("the scrape:\n%s", strings.Join(lines, "\n"))
	}
}

func TestMetricsAreConsistentAndNamedByConvention(t *testing.T) {
	families, err := register(prometheus.NewPedanticRegistry(), busy()).Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "uvs_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestEveryMetricIsDocumented(t *testing.T) {
	f, err := os.Open("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(uvs_[a-z_]+)`").FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(documented)

	var scraped []string
	for _, line := range scrape(t, busy()) {
		name, _, _ := strings.Cut(strings.FieldsFunc(line, func(r rune) bool { return r == '{' || r == ' ' })[0], "{")
		scraped = append(scraped, name)
	}
	slices.Sort(scraped)
	if diff := cmp.Diff(slices.Compact(scraped), documented); diff != "" {
		t.Errorf("docs/metrics.md and the scrape differ (-scraped +documented):\n%s", diff)
	}
}

func TestADirectorWithoutServicesCanBeScraped(t *testing.T) {
	s := busy()
	s.Balancer = func() lb.Stats { return lb.Stats{} }
	s.Health = func() []health.Status { return nil }
	s.Road = func() stack.Stats { return stack.Stats{} }
	if lines := scrape(t, s); len(lines) == 0 {
		t.Error("nothing was scraped")
	}
}
