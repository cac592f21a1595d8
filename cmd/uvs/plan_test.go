package main

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack/host"
)

func parse(t *testing.T, raw string) *config.Config {
	t.Helper()
	cfg, err := config.Parse([]byte(raw), "yaml", config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

var compareAddrs = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func TestPlanSaysWhatTheHostMustHandOver(t *testing.T) {
	a, pre := netip.MustParseAddr, netip.MustParsePrefix
	const lan = "lan: {interfaces: [eth1]}\n"
	tests := []struct {
		name    string
		raw     string
		want    host.Desired
		servers []netip.Addr
		silent  []netip.Addr
	}{
		{name: "dr: VIPs, and real servers by their link address",
			raw: lan + `services: [{name: a, mode: dr, listen: ["203.0.113.10:80/tcp", "203.0.113.10:81/tcp"], real_servers: [{address: 192.0.2.1}]}]`,
			want: host.Desired{
				VIPs:   []netip.Addr{a("203.0.113.10")},
				OnLink: []netip.Addr{a("192.0.2.1")},
			},
			servers: []netip.Addr{a("192.0.2.1")}},
		{name: "nat: the replies of each port and protocol, in the real server's family",
			raw: lan + `services: [{name: a, mode: nat, listen: ["203.0.113.10:80/tcp", "203.0.113.10:53/udp", "[2001:db8:a::10]:80/tcp"],
			  real_servers: [{address: 192.0.2.1}, {address: "192.0.2.2:8080"}, {address: "2001:db8::1"}]}]`,
			want: host.Desired{
				VIPs: []netip.Addr{a("203.0.113.10"), a("2001:db8:a::10")},
				Replies: []host.Reply{
					{Addr: a("192.0.2.1"), Proto: packet.TCP, Port: 80}, {Addr: a("192.0.2.1"), Proto: packet.UDP, Port: 53},
					{Addr: a("192.0.2.2"), Proto: packet.TCP, Port: 8080}, {Addr: a("192.0.2.2"), Proto: packet.UDP, Port: 8080},
					{Addr: a("2001:db8::1"), Proto: packet.TCP, Port: 80},
				},
			},
			servers: []netip.Addr{a("192.0.2.1"), a("192.0.2.2"), a("2001:db8::1")}},
		{name: "nat: a short range port by port, a long one and every port as a whole",
			raw: lan + `services: [{name: a, mode: nat, listen: ["203.0.113.10:80-82/tcp", "203.0.113.10:1000-1032/udp", "203.0.113.10:0/sctp"], real_servers: [{address: 192.0.2.1}]}]`,
			want: host.Desired{
				VIPs: []netip.Addr{a("203.0.113.10")},
				Replies: []host.Reply{
					{Addr: a("192.0.2.1"), Proto: packet.TCP, Port: 80}, {Addr: a("192.0.2.1"), Proto: packet.TCP, Port: 81}, {Addr: a("192.0.2.1"), Proto: packet.TCP, Port: 82},
					{Addr: a("192.0.2.1"), Proto: packet.UDP}, {Addr: a("192.0.2.1"), Proto: packet.SCTP},
				},
			},
			servers: []netip.Addr{a("192.0.2.1")}},
		{name: "nat: persistent FTP, whose passive data connections come from any port",
			raw: lan + `services: [{name: a, mode: nat, listen: ["203.0.113.10:21/tcp"], persistence: {timeout: 60s}, real_servers: [{address: "192.0.2.1:21"}]}]`,
			want: host.Desired{
				VIPs:    []netip.Addr{a("203.0.113.10")},
				Replies: []host.Reply{{Addr: a("192.0.2.1"), Proto: packet.TCP}},
			},
			servers: []netip.Addr{a("192.0.2.1")}},
		{name: "nat: IPsec behind the exchange of its keys, unless that has another port",
			raw: lan + `services: [{name: a, mode: nat, listen: ["203.0.113.10:500/udp"], real_servers: [{address: 192.0.2.1}, {address: "192.0.2.2:4500"}]}]`,
			want: host.Desired{
				VIPs: []netip.Addr{a("203.0.113.10")},
				Replies: []host.Reply{
					{Addr: a("192.0.2.1"), Proto: packet.ESP}, {Addr: a("192.0.2.1"), Proto: packet.AH}, {Addr: a("192.0.2.1"), Proto: packet.UDP, Port: 500},
					{Addr: a("192.0.2.2"), Proto: packet.UDP, Port: 4500},
				},
			},
			servers: []netip.Addr{a("192.0.2.1"), a("192.0.2.2")}},
		{name: "a VIP that no service announces is silent",
			raw: lan + `services: [{name: a, mode: nat, listen: ["203.0.113.10:80/tcp", "203.0.113.11:80/tcp"], announce: false},
			  {name: b, mode: nat, listen: ["203.0.113.11:81/tcp"]}]`,
			want:   host.Desired{VIPs: []netip.Addr{a("203.0.113.10"), a("203.0.113.11")}},
			silent: []netip.Addr{a("203.0.113.10")}},
		{name: "fullnat and tun: LIPs, and no replies",
			raw: lan + `addresses: {fullnat_pool: [198.51.100.0/29]}
services: [{name: a, mode: fullnat, listen: ["203.0.113.10:80/tcp"], real_servers: [{address: 192.0.2.1}, {address: 192.0.2.2, mode: tun}]},
  {name: b, mode: fullnat, listen: ["203.0.113.10:81/tcp"], real_servers: [{address: 192.0.2.1}]}]`,
			want: host.Desired{
				VIPs: []netip.Addr{a("203.0.113.10")},
				LIPs: []netip.Prefix{pre("198.51.100.0/29")},
			},
			servers: []netip.Addr{a("192.0.2.1"), a("192.0.2.2")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := newPlan(parse(t, tt.raw), anyTunnelSource)
			if err != nil {
				t.Fatal(err)
			}
			tt.want.LAN = host.LAN{Announce: true, Interfaces: []string{"eth1"}, Silent: tt.silent}
			if diff := cmp.Diff(tt.want, p.host, compareAddrs); diff != "" {
				t.Errorf("host (-want +got):\n%s", diff)
			}
			if !slices.Equal(p.servers, tt.servers) {
				t.Errorf("real servers %v, want %v", p.servers, tt.servers)
			}
		})
	}
}

func TestPlanOfTheDefence(t *testing.T) {
	for raw, want := range map[string]lb.Defence{
		"limits: {flows: 1000}": {DropRate: 10, FreeFlows: 100, FreeMemory: 64 << 20},
		"limits: {flows: 5}\ndefence: {drop_entry: auto, drop_packet: always, secure_tcp: auto, drop_rate: 4, free_memory: 1}": {
			DropEntry: lb.DefenceAuto, DropPacket: lb.DefenceAlways, SecureTCP: lb.DefenceAuto, DropRate: 4, FreeFlows: 1, FreeMemory: 1 << 20},
	} {
		if got := defence(parse(t, raw)); got != want {
			t.Errorf("%s: %+v, want %+v", raw, got, want)
		}
	}
}

func TestPlanOfPersistenceAndThresholds(t *testing.T) {
	p, err := newPlan(parse(t, `services: [
  {name: web, mode: dr, listen: ["203.0.113.10:80/tcp"], persistence: {}, real_servers: [{address: 192.0.2.1, max_flows: 9, min_flows: 5}]},
  {name: sip, mode: dr, listen: ["203.0.113.10:5060/udp"], persistence: {timeout: 90s, prefix_v4: 24, prefix_v6: 64, engine: sip}},
  {name: dns, mode: dr, listen: ["203.0.113.10:53/udp"]}]`), anyTunnelSource)
	if err != nil {
		t.Fatal(err)
	}
	var got []lb.Persistence
	for i := range p.balance.Services {
		got = append(got, p.balance.Services[i].Persistence)
	}
	want := []lb.Persistence{
		{Timeout: 6 * time.Minute, PrefixV4: 32, PrefixV6: 128},
		{Timeout: 90 * time.Second, PrefixV4: 24, PrefixV6: 64, Engine: lb.SIPEngine},
		{},
	}
	if !slices.Equal(got, want) {
		t.Errorf("persistence %+v, want %+v", got, want)
	}
	if rs := p.balance.Services[0].RealServers[0]; rs.MaxFlows != 9 || rs.MinFlows != 5 {
		t.Errorf("thresholds %d and %d, want 9 and 5", rs.MaxFlows, rs.MinFlows)
	}
}

func TestPlanAsksForTheSourceThatIsNotSet(t *testing.T) {
	const services = `services: [{name: a, mode: tun, listen: ["203.0.113.10:80/tcp"], real_servers: [{address: 192.0.2.1}, {address: "2001:db8::1"}]}]`
	asked := func(raw string) (asked []netip.Addr, err error) {
		_, err = newPlan(parse(t, raw), func(rip netip.Addr) (netip.Addr, error) {
			asked = append(asked, rip)
			return netip.Addr{}, errors.New("no route")
		})
		return asked, err
	}
	got, err := asked(`addresses: {tunnel_source: [192.0.2.99]}` + "\n" + services)
	if want := netip.MustParseAddr("2001:db8::1"); len(got) != 1 || got[0] != want {
		t.Errorf("asked for %v, want only %v", got, want)
	}
	if err == nil || !strings.Contains(err.Error(), `services[0] "a": real_servers[1]: no route`) {
		t.Errorf("error %v", err)
	}
}

// TestCheckedConfigurationsCanBeBuilt: what package config accepts, the
// packages that it is built of accept too.
func TestCheckedConfigurationsCanBeBuilt(t *testing.T) {
	for _, mode := range []string{"dr", "nat", "tun", "fullnat"} {
		for _, listen := range []string{"203.0.113.10:80/tcp", "203.0.113.10:80-90/udp", "203.0.113.10:0/tcp", "[2001:db8:a::10]:80/tcp", "203.0.113.10:80/sctp"} {
			for _, server := range []string{"192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:8080"} {
				for _, tunnel := range []string{"ipip", "gue", "gre, checksum: true"} {
					raw := `addresses: {fullnat_pool: [198.51.100.0/29, "2001:db8:f::/124"]}
services: [{name: a, mode: ` + mode + `, listen: ["` + listen + `"], real_servers: [{address: "` + server + `"}]`
					if mode == "tun" {
						raw += ", tunnel: {type: " + tunnel + "}"
					}
					raw += "}]"
					cfg, err := config.Parse([]byte(raw), "yaml", config.Options{})
					if err != nil {
						continue
					}
					if _, err := newPlan(cfg, anyTunnelSource); err != nil {
						t.Errorf("accepted, but cannot be built: %v\n%s", err, raw)
					}
				}
			}
		}
	}
}

func TestUnchangeableKeys(t *testing.T) {
	old := parse(t, "node: a")
	for raw, want := range map[string]string{
		"node: a":                               "",
		"node: a\ntimeouts: {tcp: 5s}":          "",
		"node: b":                               "node: ",
		"node: a\ndevice: {queues: 3}":          "device: ",
		"node: a\nlimits: {flows: 1}":           "limits: ",
		"node: a\nadmin: {listen: \"\"}":        "admin: ",
		"node: a\nadmin: {socket: /run/b.sock}": "admin: ",
	} {
		err := unchangeable(old, parse(t, raw))
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%q: error %v, want %q", raw, err, want)
		}
	}
}

func TestSplitTellsWarningsFromErrors(t *testing.T) {
	missing := &host.MissingSetting{Name: "net.a", Value: 1, Err: errors.New("read-only")}
	broken := errors.New("broken")
	tests := []struct {
		name     string
		err      error
		warnings int
		rest     error
	}{
		{"nothing", nil, 0, nil},
		{"a setting", missing, 1, nil},
		{"settings within settings", errors.Join(missing, errors.Join(missing, nil)), 2, nil},
		{"an error beside a setting", errors.Join(missing, broken), 1, broken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			warnings, rest := split(tt.err)
			if len(warnings) != tt.warnings || !errors.Is(rest, tt.rest) || (rest == nil) != (tt.rest == nil) {
				t.Errorf("got %q, %v", warnings, rest)
			}
		})
	}
}

// TestDefaultsAreThoseOfTheBalancer: what a file without timeouts and policy asks
// for is what package lb calls the default.
func TestDefaultsAreThoseOfTheBalancer(t *testing.T) {
	cfg := parse(t, "node: lb1")
	defaults := lb.DefaultTimeouts()
	defaults[lb.UDPBrief] = 0 // is not to be set
	if diff := cmp.Diff(defaults, timeouts(&cfg.Timeouts)); diff != "" {
		t.Errorf("timeouts (-lb +config):\n%s", diff)
	}
	if diff := cmp.Diff(lb.DefaultPolicy(), policy(&cfg.Policy)); diff != "" {
		t.Errorf("policy (-lb +config):\n%s", diff)
	}
}

// TestFlowsThatOutliveTheConfiguration go on being steered, without an announcement.
func TestFlowsThatOutliveTheConfiguration(t *testing.T) {
	a := netip.MustParseAddr
	web, dns, rip := a("203.0.113.10"), a("203.0.113.53"), a("10.0.0.21")
	replies := []host.Reply{{Addr: rip, Proto: packet.TCP, Port: 80}, {Addr: a("10.0.0.22"), Proto: packet.TCP, Port: 0}}
	before := host.Desired{VIPs: []netip.Addr{web, dns}, Replies: replies}
	flow := func(mode string, vip netip.Addr, rip string) lb.FlowInfo {
		o := modes.Options{
			Listens: []lb.Listen{{VIP: vip, FirstPort: 80, Proto: packet.TCP}}, RealServer: netip.MustParseAddrPort(rip),
			Locals: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/29")},
		}
		m, err := modes.New(mode, o)
		if err != nil {
			t.Fatal(err)
		}
		f := lb.FlowInfo{Flow: lb.Flow{Server: &lb.RealServer{Endpoint: packet.EndpointFrom(o.RealServer), Mode: m}, State: lb.TCPEstablished}}
		f.Tuple = packet.Tuple{SrcPort: 40000, DstPort: 80, Proto: packet.TCP}
		f.Tuple.Src, f.Tuple.Family = packet.AddrFrom(a("198.18.0.2"))
		f.Tuple.Dst, _ = packet.AddrFrom(vip)
		f.Local, _ = m.Local(f.Flow, 0)
		return f
	}
	none := host.Desired{}
	tests := []struct {
		name   string
		wanted host.Desired
		flows  []lb.FlowInfo
		want   host.Desired
	}{
		{"there are none", none, nil, none},
		{"everything is wanted still", before, []lb.FlowInfo{flow("nat", web, "10.0.0.21:80")}, before},
		{"a VIP", none, []lb.FlowInfo{flow("dr", dns, "10.0.0.21:80")},
			host.Desired{VIPs: []netip.Addr{dns}, LAN: host.LAN{Silent: []netip.Addr{dns}}}},
		{"a real server of nat, or nat itself", host.Desired{VIPs: []netip.Addr{web}}, []lb.FlowInfo{flow("nat", web, "10.0.0.21:80")},
			host.Desired{VIPs: []netip.Addr{web}, Replies: replies[:1]}},
		{"a real server of nat that answers from every port", host.Desired{VIPs: []netip.Addr{web}}, []lb.FlowInfo{flow("nat", web, "10.0.0.22:8080")},
			host.Desired{VIPs: []netip.Addr{web}, Replies: replies[1:]}},
		{"a port of a real server of nat that has flows of another", host.Desired{VIPs: []netip.Addr{web}}, []lb.FlowInfo{flow("nat", web, "10.0.0.21:81")},
			host.Desired{VIPs: []netip.Addr{web}}},
		{"a real server that has flows of fullnat only", host.Desired{VIPs: []netip.Addr{web}}, []lb.FlowInfo{flow("fullnat", web, "10.0.0.21:80")},
			host.Desired{VIPs: []netip.Addr{web}}},
		{"everything", none, []lb.FlowInfo{flow("nat", web, "10.0.0.22:80"), flow("nat", dns, "10.0.0.21:80"), flow("nat", dns, "10.0.0.21:80")},
			host.Desired{VIPs: before.VIPs, Replies: replies, LAN: host.LAN{Silent: before.VIPs}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := withOutlived(tt.wanted, before, slices.Values(tt.flows))
			if diff := cmp.Diff(tt.want, got, compareAddrs, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
