package config

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// full sets every key, in YAML; the other formats say the same below.
const full = `
node: lb1
device: {name: lb0, queues: 4, egress: link, offload: off, offload_every: 8, table: 1000}
addresses:
  tunnel_source: [192.0.2.11, "2001:db8::11"]
  fullnat_pool: [198.51.100.0/29, "2001:db8:f::/124"]
lan: {announce: off, interfaces: [eth0, eth1]}
limits: {flows: 1000, answers: 500}
timeouts: {tcp: 10m, tcp_fin: 30s, udp: 1m, tcp_syn_recv: 5s, sctp_closed: 2s}
defence: {drop_entry: auto, drop_packet: always, secure_tcp: auto, drop_rate: 4, free_flows: 20, free_memory: 128}
policy:
  one_packet: true
  sloppy: true
  secure_tcp: true
  reuse: 3
  removed: keep
  down: serve
  drain: 30s
  expire_quiesced_templates: false
  schedule_icmp: true
  answer_unknown_replies: true
  reset_expired: true
  clamp_mss: 1400
admin: {socket: /tmp/uvs.sock, listen: "[::1]:9999"}
announcement: {vip_up: all, hold_down: 5s, med_span: 100, degraded_below: 40, self_probe: true}
drain: {deadline: 20s, flows: 5, quiet: 3s, prepend: 2}
bgp:
  as: 65011
  router_id: 192.0.2.1
  listen_port: 1179
  graceful_restart: off
  communities: [site, no-export]
  community_names: [{name: site, value: "65011:1:2"}]
  local_preference: 200
  med: 10
  prepend: 1
  prepend_degraded: 3
  prepend_backup: 4
  aggregates: [{prefix: 203.0.113.0/24, only: true}]
  peers:
    - {address: 192.0.2.9, as: 65000, local_address: 192.0.2.1, port: 1790, password: s3cret, passive: true, multihop: 3, ttl_security: true,
       hold_time: 30s, connect_retry: 10s, families: [ipv6, ipv4], next_hop_ipv4: 192.0.2.2, next_hop_ipv6: "2001:db8::2", add_path: true}
    - {interface: eth0, as: 65001, bfd: {enabled: true, interval: 100ms, multiplier: 5}}
services:
  - name: web
    listen: ["203.0.113.10:80/tcp", "[2001:db8:a::10]:8000-8010/udp", "203.0.113.11:0/sctp"]
    mode: tun
    scheduler: maglev
    scheduler_flags: [flag-3]
    slow_start: 30s
    maglev: {slots: 251, fields: [src, src_port], key: secret, max_load: 125}
    tunnel: {type: gue, port: 6081, checksum: true, pmtu_discovery: false}
    persistence: {timeout: 5m, prefix_v4: 24, prefix_v6: 56, engine: none}
    on_no_server: reset
    announce: false
    quorum: 1
    sorry_server: 192.0.2.99
    bgp: {communities: ["65011:9"], local_preference: 300, med: 20, prepend: 2, prepend_backup: 5, peers: [eth0]}
    health: {type: none}
    timeouts: {tcp: 5s}
    policy: {sloppy: false, reuse: 0, removed: reset, down: keep, drain: 0s, clamp_mss: auto}
    real_servers:
      - {address: 192.0.2.21, weight: 0, max_flows: 9, min_flows: 7}
      - {address: "2001:db8::22", mode: dr}
`

const fullTOML = `
node = "lb1"
device = {name = "lb0", queues = 4, egress = "link", offload = "off", offload_every = 8, table = 1000}
lan = {announce = "off", interfaces = ["eth0", "eth1"]}
limits = {flows = 1000, answers = 500}
timeouts = {tcp = "10m", tcp_fin = "30s", udp = "1m", tcp_syn_recv = "5s", sctp_closed = "2s"}
defence = {drop_entry = "auto", drop_packet = "always", secure_tcp = "auto", drop_rate = 4, free_flows = 20, free_memory = 128}
policy = {one_packet = true, sloppy = true, secure_tcp = true, reuse = 3, removed = "keep", down = "serve", drain = "30s", expire_quiesced_templates = false, schedule_icmp = true, answer_unknown_replies = true, reset_expired = true, clamp_mss = 1400}
admin = {socket = "/tmp/uvs.sock", listen = "[::1]:9999"}
announcement = {vip_up = "all", hold_down = "5s", med_span = 100, degraded_below = 40, self_probe = true}
drain = {deadline = "20s", flows = 5, quiet = "3s", prepend = 2}
[bgp]
as = 65011
router_id = "192.0.2.1"
listen_port = 1179
graceful_restart = "off"
communities = ["site", "no-export"]
community_names = [{name = "site", value = "65011:1:2"}]
local_preference = 200
med = 10
prepend = 1
prepend_degraded = 3
prepend_backup = 4
aggregates = [{prefix = "203.0.113.0/24", only = true}]
[[bgp.peers]]
address = "192.0.2.9"
as = 65000
local_address = "192.0.2.1"
port = 1790
password = "s3cret"
passive = true
multihop = 3
ttl_security = true
hold_time = "30s"
connect_retry = "10s"
families = ["ipv6", "ipv4"]
next_hop_ipv4 = "192.0.2.2"
next_hop_ipv6 = "2001:db8::2"
add_path = true
[[bgp.peers]]
interface = "eth0"
as = 65001
bfd = {enabled = true, interval = "100ms", multiplier = 5}
[addresses]
tunnel_source = ["192.0.2.11", "2001:db8::11"]
fullnat_pool = ["198.51.100.0/29", "2001:db8:f::/124"]
[[services]]
name = "web"
listen = ["203.0.113.10:80/tcp", "[2001:db8:a::10]:8000-8010/udp", "203.0.113.11:0/sctp"]
mode = "tun"
scheduler = "maglev"
scheduler_flags = ["flag-3"]
slow_start = "30s"
maglev = {slots = 251, fields = ["src", "src_port"], key = "secret", max_load = 125}
tunnel = {type = "gue", port = 6081, checksum = true, pmtu_discovery = false}
persistence = {timeout = "5m", prefix_v4 = 24, prefix_v6 = 56, engine = "none"}
on_no_server = "reset"
announce = false
quorum = 1
sorry_server = "192.0.2.99"
bgp = {communities = ["65011:9"], local_preference = 300, med = 20, prepend = 2, prepend_backup = 5, peers = ["eth0"]}
health = {type = "none"}
timeouts = {tcp = "5s"}
policy = {sloppy = false, reuse = 0, removed = "reset", down = "keep", drain = "0s", clamp_mss = "auto"}
real_servers = [{address = "192.0.2.21", weight = 0, max_flows = 9, min_flows = 7}, {address = "2001:db8::22", mode = "dr"}]
`

const fullJSON = `{
"node": "lb1",
"device": {"name": "lb0", "queues": 4, "egress": "link", "offload": "off", "offload_every": 8, "table": 1000},
"addresses": {"tunnel_source": ["192.0.2.11", "2001:db8::11"], "fullnat_pool": ["198.51.100.0/29", "2001:db8:f::/124"]},
"lan": {"announce": "off", "interfaces": ["eth0", "eth1"]},
"limits": {"flows": 1000, "answers": 500},
"timeouts": {"tcp": "10m", "tcp_fin": "30s", "udp": "1m", "tcp_syn_recv": "5s", "sctp_closed": "2s"},
"defence": {"drop_entry": "auto", "drop_packet": "always", "secure_tcp": "auto", "drop_rate": 4, "free_flows": 20, "free_memory": 128},
"policy": {"one_packet": true, "sloppy": true, "secure_tcp": true, "reuse": 3, "removed": "keep", "down": "serve", "drain": "30s",
  "expire_quiesced_templates": false, "schedule_icmp": true, "answer_unknown_replies": true, "reset_expired": true, "clamp_mss": 1400},
"admin": {"socket": "/tmp/uvs.sock", "listen": "[::1]:9999"},
"announcement": {"vip_up": "all", "hold_down": "5s", "med_span": 100, "degraded_below": 40, "self_probe": true},
"drain": {"deadline": "20s", "flows": 5, "quiet": "3s", "prepend": 2},
"bgp": {"as": 65011, "router_id": "192.0.2.1", "listen_port": 1179, "graceful_restart": "off",
  "communities": ["site", "no-export"], "community_names": [{"name": "site", "value": "65011:1:2"}],
  "local_preference": 200, "med": 10, "prepend": 1, "prepend_degraded": 3, "prepend_backup": 4, "aggregates": [{"prefix": "203.0.113.0/24", "only": true}],
  "peers": [{"address": "192.0.2.9", "as": 65000, "local_address": "192.0.2.1", "port": 1790, "password": "s3cret",
    "passive": true, "multihop": 3, "ttl_security": true, "hold_time": "30s", "connect_retry": "10s", "families": ["ipv6", "ipv4"],
    "next_hop_ipv4": "192.0.2.2", "next_hop_ipv6": "2001:db8::2", "add_path": true},
    {"interface": "eth0", "as": 65001, "bfd": {"enabled": true, "interval": "100ms", "multiplier": 5}}]},
"services": [{
  "name": "web",
  "listen": ["203.0.113.10:80/tcp", "[2001:db8:a::10]:8000-8010/udp", "203.0.113.11:0/sctp"],
  "mode": "tun", "scheduler": "maglev", "scheduler_flags": ["flag-3"], "slow_start": "30s",
  "maglev": {"slots": 251, "fields": ["src", "src_port"], "key": "secret", "max_load": 125},
  "tunnel": {"type": "gue", "port": 6081, "checksum": true, "pmtu_discovery": false},
  "persistence": {"timeout": "5m", "prefix_v4": 24, "prefix_v6": 56, "engine": "none"},
  "on_no_server": "reset", "announce": false, "quorum": 1, "sorry_server": "192.0.2.99",
  "bgp": {"communities": ["65011:9"], "local_preference": 300, "med": 20, "prepend": 2, "prepend_backup": 5, "peers": ["eth0"]}, "health": {"type": "none"},
  "timeouts": {"tcp": "5s"},
  "policy": {"sloppy": false, "reuse": 0, "removed": "reset", "down": "keep", "drain": "0s", "clamp_mss": "auto"},
  "real_servers": [{"address": "192.0.2.21", "weight": 0, "max_flows": 9, "min_flows": 7}, {"address": "2001:db8::22", "mode": "dr"}]
}]}`

var fullConfig = &Config{
	Node:   "lb1",
	Device: Device{Name: "lb0", Queues: 4, Egress: EgressLink, Offload: OffloadOff, OffloadEvery: 8, Table: 1000},
	Addresses: Addresses{
		TunnelSource: []netip.Addr{netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11")},
		FullNATPool:  []netip.Prefix{netip.MustParsePrefix("198.51.100.0/29"), netip.MustParsePrefix("2001:db8:f::/124")},
	},
	LAN:      LAN{Announce: AnnounceOff, Interfaces: []string{"eth0", "eth1"}},
	Limits:   Limits{Flows: 1000, Answers: 500},
	Timeouts: fullTimeouts(10 * time.Minute),
	Defence:  Defence{DropEntry: DefenceAuto, DropPacket: DefenceAlways, SecureTCP: DefenceAuto, DropRate: 4, FreeFlows: 20, FreeMemory: 128},
	Policy: Policy{
		OnePacket: new(true), Sloppy: new(true), SecureTCP: new(true), Reuse: new(3), Removed: new(RemovedKeep), Down: new(RemovedServe),
		Drain: new(30 * time.Second), ExpireQuiescedTemplates: new(false), ScheduleICMP: new(true),
		AnswerUnknownReplies: new(true), ResetExpired: new(true), ClampMSS: new(MSS(1400)),
	},
	Admin: Admin{Socket: "/tmp/uvs.sock", Listen: netip.MustParseAddrPort("[::1]:9999")},
	BGP: BGP{
		AS: 65011, RouterID: netip.MustParseAddr("192.0.2.1"), ListenPort: 1179,
		Communities: []string{"site", "no-export"}, CommunityNames: []CommunityName{{Name: "site", Value: "65011:1:2"}},
		LocalPreference: 200, MED: 10, Prepend: 1, PrependDegraded: 3, PrependBackup: 4,
		Aggregates: []Aggregate{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Only: true}},
		Peers: []Peer{{
			Address: netip.MustParseAddr("192.0.2.9"), AS: 65000, LocalAddress: netip.MustParseAddr("192.0.2.1"), Port: 1790,
			Password: "s3cret", Passive: true, Multihop: 3, TTLSecurity: true, HoldTime: 30 * time.Second, ConnectRetry: 10 * time.Second,
			Families: []Family{IPv6, IPv4}, NextHop4: netip.MustParseAddr("192.0.2.2"), NextHop6: netip.MustParseAddr("2001:db8::2"),
			AddPath: true,
		}, {
			Interface: "eth0", AS: 65001, Port: 179, HoldTime: 9 * time.Second, ConnectRetry: 5 * time.Second,
			Families: []Family{IPv4, IPv6}, BFD: BFD{Enabled: true, Interval: 100 * time.Millisecond, Multiplier: 5},
		}},
	},
	Announcement: Announcement{VIPUp: VIPUpAll, HoldDown: 5 * time.Second, MEDSpan: 100, DegradedBelow: 40, SelfProbe: true},
	Drain:        Drain{Deadline: 20 * time.Second, Flows: 5, Quiet: 3 * time.Second, Prepend: 2},
	Services: []Service{{
		Name: "web",
		Listen: []Listen{
			{Addr: netip.MustParseAddr("203.0.113.10"), First: 80, Last: 80, Protocol: TCP},
			{Addr: netip.MustParseAddr("2001:db8:a::10"), First: 8000, Last: 8010, Protocol: UDP},
			{Addr: netip.MustParseAddr("203.0.113.11"), First: 0, Last: 65535, Protocol: SCTP},
		},
		Mode: TUN, Scheduler: "maglev", SchedulerFlags: []string{"flag-3"}, SlowStart: 30 * time.Second,
		Maglev:      Maglev{Slots: 251, Fields: []string{"src", "src_port"}, Key: "secret", MaxLoad: 125},
		Tunnel:      Tunnel{Type: GUE, Port: 6081, Checksum: true, PMTUDiscovery: new(false)},
		Persistence: Persistence{Timeout: 5 * time.Minute, PrefixV4: 24, PrefixV6: 56, Engine: NoEngine},
		OnNoServer:  AnswerReset,
		BGP:         ServiceBGP{Communities: []string{"65011:9"}, LocalPreference: 300, MED: 20, Prepend: 2, PrependDegraded: 3, PrependBackup: 5, Peers: []string{"eth0"}}, Announce: false, Health: Health{Type: "none"}, Quorum: 1, SorryServer: netip.MustParseAddrPort("192.0.2.99:0"),
		Timeouts: fullTimeouts(5 * time.Second),
		Policy: Policy{
			OnePacket: new(true), Sloppy: new(false), SecureTCP: new(true), Reuse: new(0), Removed: new(RemovedReset), Down: new(RemovedKeep),
			Drain: new(time.Duration(0)), ExpireQuiescedTemplates: new(false), ScheduleICMP: new(true),
			AnswerUnknownReplies: new(true), ResetExpired: new(true), ClampMSS: new(AutoMSS),
		},
		RealServers: []RealServer{
			{Address: netip.MustParseAddrPort("192.0.2.21:0"), Weight: 0, MaxFlows: 9, MinFlows: 7, Mode: TUN, Tunnel: Tunnel{Type: GUE, Port: 6081, Checksum: true, PMTUDiscovery: new(false)}},
			{Address: netip.MustParseAddrPort("[2001:db8::22]:0"), Weight: 1, Mode: DR, Tunnel: Tunnel{Type: GUE, Port: 6081, Checksum: true, PMTUDiscovery: new(false)}},
		},
	}},
}

func fullTimeouts(tcp time.Duration) Timeouts {
	t := defaultTimeouts()
	t.TCP, t.TCPFIN, t.UDP, t.TCPSynRecv, t.SCTPClosed = tcp, 30*time.Second, time.Minute, 5*time.Second, 2*time.Second
	return t
}

var compareConfigs = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{})}

func TestParseEveryKeyInEveryFormat(t *testing.T) {
	for format, raw := range map[string]string{"yaml": full, "toml": fullTOML, "json": fullJSON} {
		t.Run(format, func(t *testing.T) {
			got, err := Parse([]byte(raw), format, Options{Schedulers: []string{"maglev"}, SchedulerFlags: func(string) []string { return []string{"flag-3"} }})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fullConfig, got, compareConfigs); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseDefaults(t *testing.T) {
	const raw = `
services:
  - name: web
    listen: ["203.0.113.10:80/tcp"]
    mode: nat
    real_servers: [{address: "192.0.2.21:8080"}]
`
	got, err := Parse([]byte(raw), "yaml", Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Policy.ScheduleICMP = new(false)
	want.Services = []Service{{
		Name:       "web",
		Listen:     []Listen{{Addr: netip.MustParseAddr("203.0.113.10"), First: 80, Last: 80, Protocol: TCP}},
		Mode:       NAT,
		Scheduler:  "wlc",
		Tunnel:     Tunnel{Type: IPIP},
		OnNoServer: AnswerICMP,
		Announce:   true,
		Health:     Health{Type: "none"},
		Quorum:     1,
		Timeouts:   want.Timeouts,
		Policy:     want.Policy,
		RealServers: []RealServer{
			{Address: netip.MustParseAddrPort("192.0.2.21:8080"), Weight: 1, Mode: NAT, Tunnel: Tunnel{Type: IPIP}},
		},
	}}
	if diff := cmp.Diff(&want, got, compareConfigs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if want.Node == "" {
		t.Error("the default node is empty, want the host's name")
	}
}

func TestParseAccepts(t *testing.T) {
	tests := []struct{ name, raw string }{
		{"a file without services", `node: lb1`},
		{"an admin without a TCP port", `admin: {listen: ""}`},
		{"one document with its marker", "---\nnode: lb1\n"},
		{"a section without a value, which keeps its defaults", "device:\nnode: lb1\n"},
		{"an empty list of real servers", service("mode: dr")},
		{"the same VIP on other ports, protocols and, behind them, on every port",
			service(`listen: ["203.0.113.10:80/tcp", "203.0.113.10:80/udp", "203.0.113.10:81-90/tcp", "203.0.113.10:0/tcp"]`)},
		{"both families in nat, each with a real server of its own",
			service(`listen: ["203.0.113.10:80/tcp", "[2001:db8:a::10]:80/tcp"]`, "mode: nat", `real_servers: [{address: "192.0.2.1:80"}, {address: "[2001:db8::1]:80"}]`)},
		{"a real server of the other family in tun",
			service("mode: tun", `real_servers: [{address: "2001:db8::1"}]`)},
		{"a family that only a real server with a mode of its own can serve",
			service(`listen: ["[2001:db8:a::10]:80/tcp"]`, "mode: dr", `real_servers: [{address: "2001:db8::1"}, {address: 192.0.2.1, mode: tun}]`)},
		{"a port of its own in nat on a range of ports",
			service(`listen: ["203.0.113.10:8000-8010/tcp"]`, "mode: nat", `real_servers: [{address: "192.0.2.1:80"}]`)},
		{"a gue tunnel of one real server",
			service("mode: tun", `real_servers: [{address: 192.0.2.1, tunnel: {type: gue}}]`)},
		{"fullnat with a LIP of the real server's family only",
			"addresses: {fullnat_pool: [\"2001:db8:f::1\"]}\n" + service("mode: fullnat", `real_servers: [{address: "[2001:db8::1]:80"}]`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse([]byte(tt.raw), "yaml", Options{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// service is a file with one service; keys replace those of its base.
func service(keys ...string) string {
	lines := []string{"name: web", `listen: ["203.0.113.10:80/tcp"]`, "mode: dr"}
	for _, key := range keys {
		name, _, _ := strings.Cut(key, ":")
		for i, line := range lines {
			if strings.HasPrefix(line, name+":") {
				lines[i] = key
				key = ""
			}
		}
		if key != "" {
			lines = append(lines, key)
		}
	}
	return "services:\n  - " + strings.Join(lines, "\n    ") + "\n"
}

func TestSchedulingOfErrorsFollowsSloppy(t *testing.T) {
	const web = "\nservices: [{name: web, mode: nat, listen: [\"203.0.113.10:80/tcp\"], policy: {%s}}]"
	tests := []struct {
		name, file, own string // the policies of the file and of a service
		inFile, inOwn   bool   // whether errors are scheduled
	}{
		{"nobody is sloppy", "", "", false, false},
		{"the file is, and with it the service", "sloppy: true", "", true, true},
		{"the service alone is", "", "sloppy: true", false, true},
		{"the service alone is not", "sloppy: true", "sloppy: false", true, false},
		{"the file says no", "sloppy: true, schedule_icmp: false", "sloppy: true", false, false},
		{"the service says no", "sloppy: true", "schedule_icmp: false", true, false},
		{"the service says yes without being sloppy", "", "schedule_icmp: true", false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := Parse(fmt.Appendf(nil, "policy: {%s}"+web, tt.file, tt.own), "yaml", Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got := *cfg.Policy.ScheduleICMP; got != tt.inFile {
				t.Errorf("the file's policy: %v, want %v", got, tt.inFile)
			}
			if got := *cfg.Services[0].Policy.ScheduleICMP; got != tt.inOwn {
				t.Errorf("the service's policy: %v, want %v", got, tt.inOwn)
			}
		})
	}
}
