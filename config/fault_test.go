package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRefuses(t *testing.T) {
	web := `services[0] "web": `
	tests := []struct {
		name   string
		raw    string
		format string // default yaml
		want   []string
	}{
		// Reading.
		{name: "an empty file", raw: " \n",
			want: []string{"the configuration is empty (a file caught while it is being written?)"}},
		{name: "a second document", raw: "node: a\n---\nnode: b\n",
			want: []string{"the configuration holds more than one YAML document; only one is read"}},

		// Keys.
		{name: "unknown keys at every depth",
			raw: "nod: x\ndevice: {nam: x}\n" + service("mod: nat", "real_servers: [{addres: x}]"),
			want: []string{
				"device.nam: unknown key",
				"nod: unknown key",
				web + "mod: unknown key",
				web + "real_servers[0].addres: unknown key",
				web + "real_servers[0].address: missing",
			}},
		{name: "an unknown key beside a value that does not parse", raw: service("colour: red", "listen: [\"203.0.113.10:80\"]"),
			want: []string{
				web + `listen[0]: "203.0.113.10:80" lacks the protocol: write 203.0.113.10:80/tcp, /udp or /sctp`,
				web + "colour: unknown key",
			}},
		{name: "an unknown section without a value", raw: "node: a\nbgpp:\n",
			want: []string{"bgpp: unknown key"}},
		{name: "a section written with points", raw: "device.name: a\n",
			want: []string{"device.name: unknown key"}},

		// Types.
		{name: "numbers and texts in each other's place",
			raw: "node: 5\nlimits: {flows: \"80\"}\ndevice: {queues: \"4\"}\ntimeouts: {udp: 5}\nservices: {}\nlan: {interfaces: eth0}\n",
			want: []string{
				"node: must be a text, is 5",
				`device.queues: must be "auto" or a number of queues, is the text "4"`,
				"lan.interfaces: must be a list, is the text \"eth0\"",
				`limits.flows: must be a whole number, is the text "80"`,
				"timeouts.udp: must be a duration with its unit, such as 30s, is 5",
			}},
		{name: "a map where the services belong", raw: "services: {web: {mode: nat}}\n",
			want: []string{"services: must be a list, is a section"}},
		{name: "a text where a section belongs", raw: "device: uvs0\n",
			want: []string{`device: must be a section with keys, is the text "uvs0"`}},
		{name: "a fraction", format: "json", raw: `{"limits": {"flows": 1.5}}`,
			want: []string{"limits.flows: must be a whole number, is 1.5"}},
		{name: "numbers that a smaller type would wrap",
			raw: "limits: {flows: 18446744073709551615}\n" + service("real_servers: [{address: 192.0.2.1, weight: 65537}]", `listen: ["203.0.113.10:65616/tcp"]`),
			want: []string{
				"limits.flows: must be a whole number, is 18446744073709551615",
				web + `listen[0]: "203.0.113.10:65616/tcp": "65616" is not a port (0-65535)`,
				web + "real_servers[0].weight: 65537 is out of range, 0 to 65535",
			}},
		{name: "a word for a boolean", raw: service("announce: off"),
			want: []string{web + `announce: must be true or false, is the text "off"`}},
		{name: "values that are not there in lists", raw: service("listen: [null]", "real_servers: [null]"),
			want: []string{web + "listen[0]: missing", web + "real_servers[0].address: missing"}},

		// Sections.
		{name: "values out of range",
			raw: "device: {queues: 65, egress: both, offload: on, table: 254}\nlan: {announce: on}\nlimits: {flows: 0, answers: -1}\ntimeouts: {tcp: 1ms, udp: -5s}\n",
			want: []string{
				"device.queues: 65 is out of range, 1 to 64",
				`device.egress: "both" is none of auto, kernel, link`,
				`device.offload: "on" is none of auto, off, required`,
				"device.table: 254 is out of range, 256 to 32756",
				`lan.announce: "on" is none of auto, off`,
				"limits.flows: 0 is out of range, 1 to 268435456",
				"limits.answers: -1 is out of range, 0 to 1000000",
				"timeouts.tcp: 1ms is out of range, 1s to 744h0m0s",
				"timeouts.udp: -5s is out of range, 1s to 744h0m0s",
			}},
		{name: "policies out of range, each said once",
			raw: "policy: {reuse: 4, removed: gone, down: gone, sloppy: 1, clamp_mss: 100}\n" + service("policy: {drain: -1s, reuse: 5, forget: true}"),
			want: []string{
				"policy.sloppy: must be true or false, is 1",
				web + "policy.forget: unknown key",
				"policy.reuse: 4 is out of range, 0 to 3",
				`policy.removed: "gone" is none of serve, keep, reschedule, reset`,
				`policy.down: "gone" is none of serve, keep, reschedule, reset`,
				"policy.clamp_mss: 100 is out of range, 536 to 65535, or auto, or 0 for off",
				web + "policy.reuse: 5 is out of range, 0 to 3",
				web + "policy.drain: -1s is out of range, 0s to 744h0m0s",
			}},
		{name: "defences out of range",
			raw: "defence: {drop_entry: 1, drop_packet: sometimes, drop_rate: 0, free_flows: 100, free_memory: -1, amemthresh: 3}",
			want: []string{
				"defence.drop_entry: must be a text, is 1",
				"defence.amemthresh: unknown key",
				`defence.drop_packet: "sometimes" is none of off, auto, always`,
				"defence.drop_rate: 0 is out of range, 1 to 1048576",
				"defence.free_flows: 100 is out of range, 1 to 99",
				"defence.free_memory: -1 is out of range, 1 to 1048576",
			}},
		{name: "persistence out of range",
			raw: service("mode: nat", `listen: ["203.0.113.10:0/tcp", "203.0.113.10:5060/udp"]`, "persistence: {timeout: 745h, prefix_v4: 33, prefix_v6: -1, engine: sip, mask: 1}",
				`real_servers: [{address: "10.0.0.1:80"}, {address: 10.0.0.2}]`),
			want: []string{
				web + "persistence.mask: unknown key",
				web + "persistence.timeout: 745h0m0s is out of range, 1s to 744h0m0s",
				web + "persistence.prefix_v4: 33 is out of range, 0 to 32",
				web + "persistence.prefix_v6: -1 is out of range, 0 to 128",
				web + "persistence.engine: sip reads UDP only, and the service listens on 203.0.113.10:0/tcp",
				web + "real_servers[0].address: the service is persistent over every port, so the client's port stays; write the address without a port",
			}},
		{name: "no persistence and no such engine", raw: service("persistence: {timeout: 0s, engine: http}"),
			want: []string{
				web + "persistence.timeout: 0s is out of range, 1s to 744h0m0s",
				web + `persistence.engine: "http" is none of none, sip`,
			}},
		{name: "thresholds that cannot be",
			raw: service("real_servers: [{address: 10.0.0.1, max_flows: -1}, {address: 10.0.0.2, min_flows: 1}, {address: 10.0.0.3, max_flows: 2, min_flows: 3}, {address: 10.0.0.4, max_flows: 2147483648}]"),
			want: []string{
				web + "real_servers[0].max_flows: -1 is out of range, 0 to 2147483647",
				web + "real_servers[1].min_flows: it says when a real server at its max_flows gets new flows again, and there is no max_flows",
				web + "real_servers[2].min_flows: 3 is above max_flows, 2",
				web + "real_servers[3].max_flows: 2147483648 is out of range, 0 to 2147483647",
			}},
		{name: "names that no device can have",
			raw: "node: \"\"\ndevice: {name: a-very-long-name}\nlan: {interfaces: [a/b, eth0, eth0]}\n",
			want: []string{
				`device.name: "a-very-long-name": the name of a device has 1 to 15 letters`,
				`node: "" is not a name: it must not be empty and not hold spaces`,
				`lan.interfaces[0]: "a/b" is not a name for a device: no space, slash, colon or percent sign`,
				`lan.interfaces[2]: "eth0" is listed twice`,
			}},
		{name: "an announcement on uvs's own device", raw: "lan: {interfaces: [uvs0]}\n",
			want: []string{`lan.interfaces[0]: "uvs0" is uvs's own device`}},
		{name: "addresses that cannot be the director's",
			raw: `addresses: {tunnel_source: [127.0.0.1, "fe80::1", "::ffff:192.0.2.1", 192.0.2.1, 192.0.2.2, x], fullnat_pool: [198.51.100.1/29, 10.0.0.0/8, 198.51.100.128/25, 198.51.100.200/30, 192.0.2.0/24]}`,
			want: []string{
				`addresses.tunnel_source[5]: "x" is not an IP address`,
				"addresses.tunnel_source[0]: 127.0.0.1 is not a unicast address that routers forward to",
				"addresses.tunnel_source[1]: fe80::1 is not a unicast address that routers forward to",
				"addresses.tunnel_source[2]: ::ffff:192.0.2.1: write the IPv4 address 192.0.2.1",
				"addresses.tunnel_source[4]: 192.0.2.2: 192.0.2.1 is the source of that family already",
				"addresses.fullnat_pool[0]: 198.51.100.1/29 has bits after its length; write 198.51.100.0/29",
				"addresses.fullnat_pool[1]: 10.0.0.0/8 is too large: at most 2^16 addresses",
				"addresses.fullnat_pool[3]: 198.51.100.200/30 overlaps fullnat_pool[2], 198.51.100.128/25",
				"addresses.fullnat_pool[4]: 192.0.2.0/24 holds the tunnel_source 192.0.2.1, which is the host's own address; LIPs belong to uvs alone",
			}},
		{name: "an admin that cannot be reached",
			raw: "admin: {socket: uvs.sock, listen: 203.0.113.10:9740}\n" + service(),
			want: []string{
				`admin.socket: "uvs.sock" must be an absolute path`,
				`admin.listen: 203.0.113.10 is a VIP of service "web"; the kernel never gets its packets`,
			}},
		{name: "an admin without a port", raw: "admin: {listen: 127.0.0.1}\n",
			want: []string{"admin.listen: 127.0.0.1 lacks a port"}},

		// Services.
		{name: "a service without anything", raw: "services: [{}]\n",
			want: []string{
				"services[0].name: missing",
				"services[0].mode: missing; one of dr, nat, tun, fullnat",
				`services[0].listen: missing; a list such as ["203.0.113.10:80/tcp"]`,
			}},
		{name: "names that are not, or not its own", raw: service("name: a b") + "  - {name: x, mode: dr, listen: [\"203.0.113.11:80/tcp\"]}\n  - {name: x, mode: dr, listen: [\"203.0.113.12:80/tcp\"]}\n",
			want: []string{
				`services[0] "a b": name: "a b": a name has up to 63 letters, digits, points, hyphens and underscores`,
				`services[2] "x": name: "x" is the name of services[1] already`,
			}},
		{name: "names that nobody knows", raw: service("mode: bridge", "scheduler: best", "on_no_server: cry"),
			want: []string{
				web + `mode: "bridge" is none of dr, nat, tun, fullnat`,
				web + `scheduler: "best" is none of maglev, rr, wlc, wrr`,
				web + `on_no_server: "cry" is none of icmp, reset, drop`,
			}},
		{name: "a flag of another scheduler", raw: service("scheduler: wrr", "scheduler_flags: [flag-1, sh-port]"),
			want: []string{web + `scheduler_flags[1]: "sh-port" is no flag of wrr, which has flag-1, flag-2`}},
		{name: "a timeout of 0, which is none", raw: "timeouts: {tcp: 0s}\n" + service("timeouts: {udp: 0ms}"),
			want: []string{"timeouts.tcp: 0s is out of range, 1s to 744h0m0s", web + "timeouts.udp: 0s is out of range, 1s to 744h0m0s"}},
		{name: "faults of a section maglev", raw: service("scheduler: maglev", "maglev: {slots: 10, max_load: 50}"),
			want: []string{web + "maglev.max_load: 50 is bad", web + "maglev.slots: 10 is bad"}},
		{name: "settings of maglev for another scheduler", raw: service("scheduler: rr", "maglev: {key: secret}"),
			want: []string{web + "maglev: the scheduler is rr"}},
		{name: "a slow start that does not end", raw: service("slow_start: 2h"),
			want: []string{web + "slow_start: 2h0m0s is out of range, 0s to 1h0m0s"}},
		{name: "the mode of a later version", raw: service("mode: proxy"),
			want: []string{web + "mode: proxy is not in this version of uvs"}},
		{name: "listens that do not parse",
			raw: service(`listen: ["203.0.113.10:80", "203.0.113.10/tcp", "2001:db8::1:80/tcp", "[203.0.113.10]:80/tcp", "203.0.113.10:80/icmp", "203.0.113.10:90-80/tcp", "203.0.113.10:0-5/tcp", "[2001:db8::1]/udp"]`),
			want: []string{
				web + `listen[0]: "203.0.113.10:80" lacks the protocol: write 203.0.113.10:80/tcp, /udp or /sctp`,
				web + `listen[1]: "203.0.113.10/tcp" lacks the port: write address:port/tcp; port 0 is every port`,
				web + `listen[2]: "2001:db8::1:80/tcp": "2001:db8::1": an IPv6 address, and no other, stands in brackets before a port`,
				web + `listen[3]: "[203.0.113.10]:80/tcp": "[203.0.113.10]": an IPv6 address, and no other, stands in brackets before a port`,
				web + `listen[4]: "203.0.113.10:80/icmp": protocol "icmp" is not tcp, udp or sctp`,
				web + `listen[5]: "203.0.113.10:90-80/tcp": a range of ports goes upwards from 1; port 0 alone is every port`,
				web + `listen[6]: "203.0.113.10:0-5/tcp": a range of ports goes upwards from 1; port 0 alone is every port`,
				web + `listen[7]: "[2001:db8::1]/udp" lacks the port: write address:port/udp; port 0 is every port`,
			}},
		{name: "VIPs that are somebody else's",
			raw: "addresses: {tunnel_source: [203.0.113.10], fullnat_pool: [203.0.113.16/29]}\n" + service(`listen: ["203.0.113.10:80/tcp", "203.0.113.17:80/tcp", "224.0.0.1:80/tcp"]`),
			want: []string{
				web + "listen[0]: 203.0.113.10 is the tunnel_source; a VIP belongs to uvs alone",
				web + "listen[1]: 203.0.113.17 lies in the fullnat_pool 203.0.113.16/29",
				web + "listen[2]: 224.0.0.1 is not a unicast address that routers forward to",
			}},
		{name: "listens that overlap",
			raw: service(`listen: ["203.0.113.10:80-90/tcp", "203.0.113.10:85/tcp"]`) + "  - {name: b, mode: dr, listen: [\"203.0.113.10:90-99/tcp\"]}\n",
			want: []string{
				web + `listen[1]: 203.0.113.10:85/tcp is taken by 203.0.113.10:80-90/tcp of service "web"`,
				`services[1] "b": listen[0]: 203.0.113.10:90-99/tcp is taken by 203.0.113.10:80-90/tcp of service "web"`,
			}},
		{name: "another port in dr and tun",
			raw: service(`listen: ["203.0.113.10:80/tcp"]`, `real_servers: [{address: "192.0.2.1:80"}, {address: "192.0.2.2:8080"}, {address: "192.0.2.3:8080", mode: tun}]`),
			want: []string{
				web + "real_servers[1].address: dr keeps port 80 of 203.0.113.10:80/tcp; write port 80, or none",
				web + "real_servers[2].address: tun keeps port 80 of 203.0.113.10:80/tcp; write port 80, or none",
			}},
		{name: "a port in dr for a range", raw: service(`listen: ["203.0.113.10:80-90/tcp"]`, `real_servers: [{address: "192.0.2.1:80"}]`),
			want: []string{web + "real_servers[0].address: dr keeps the client's port and 203.0.113.10:80-90/tcp has more than one; write the address without a port"}},
		{name: "families that the mode does not cross",
			raw: service(`listen: ["203.0.113.10:80/tcp", "[2001:db8:a::10]:80/tcp"]`, "mode: nat", `real_servers: [{address: "192.0.2.1:80"}]`) +
				"  - {name: b, mode: dr, listen: [\"203.0.113.11:80/tcp\"], real_servers: [{address: 192.0.2.1}, {address: \"2001:db8::1\"}]}\n",
			want: []string{
				web + "listen[1]: [2001:db8:a::10]:80/tcp has no real server of its family, IPv6, and mode nat does not cross families",
				`services[1] "b": real_servers[1].address: 2001:db8::1 is IPv6, no listen of the service is, and mode dr does not cross families`,
			}},
		{name: "fullnat without a LIP of the real server's family, or with SCTP",
			raw: "addresses: {fullnat_pool: [198.51.100.0/29]}\n" + service(`listen: ["203.0.113.10:80/tcp", "203.0.113.10:80/sctp"]`, "mode: fullnat", `real_servers: [{address: "192.0.2.1:80"}, {address: "[2001:db8::1]:80", weight: 2}]`),
			want: []string{
				web + "real_servers[0].address: fullnat does not carry SCTP (203.0.113.10:80/sctp); use nat, dr or tun",
				web + "real_servers[1].address: fullnat does not carry SCTP (203.0.113.10:80/sctp); use nat, dr or tun",
			}},
		{name: "fullnat without a pool", raw: service("mode: fullnat", `real_servers: [{address: "192.0.2.1:80"}]`),
			want: []string{web + "real_servers[0].address: fullnat needs an IPv4 address in addresses.fullnat_pool to reach 192.0.2.1"}},
		{name: "real servers that are VIPs, LIPs or there twice",
			raw: "addresses: {fullnat_pool: [198.51.100.0/29]}\n" + service("mode: nat", `real_servers: [{address: "203.0.113.10:81"}, {address: "198.51.100.1:80"}, {address: "192.0.2.1:80"}, {address: "192.0.2.1:80"}]`),
			want: []string{
				web + `real_servers[0].address: 203.0.113.10 is a VIP, of service "web"; its packets would come back to uvs`,
				web + "real_servers[1].address: 198.51.100.1 lies in the fullnat_pool 198.51.100.0/29",
				web + "real_servers[3].address: 192.0.2.1:80 is real_servers[2] already",
			}},
		{name: "tunnels that are not",
			raw: service("mode: tun", "tunnel: {type: ipip, port: 5, checksum: true}", `real_servers: [{address: 192.0.2.1, mode: nat, tunnel: {type: gue}}, {address: 192.0.2.2, tunnel: {port: 70000}}]`),
			want: []string{
				web + "tunnel.port: only gue has a port",
				web + "tunnel.checksum: ipip has no checksum",
				web + "real_servers[0].tunnel: the real server is in mode nat, which has no tunnel",
				web + "real_servers[1].tunnel.type: missing; one of ipip, gue, gre",
				web + "real_servers[1].tunnel.port: only gue has a port",
			}},
		{name: "a tunnel that no real server uses", raw: service("mode: dr", "tunnel: {type: gre}"),
			want: []string{web + "tunnel: no real server of the service is in mode tun"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.format == "" {
				tt.format = "yaml"
			}
			cfg, err := Parse([]byte(tt.raw), tt.format, Options{
				MaglevFaults: func(m Maglev) map[string]string {
					return map[string]string{"slots": fmt.Sprint(m.Slots, " is bad"), "max_load": fmt.Sprint(m.MaxLoad, " is bad")}
				},
				Schedulers:     []string{"maglev", "rr", "wlc", "wrr"},
				SchedulerFlags: func(string) []string { return []string{"flag-1", "flag-2"} },
			})
			if err == nil {
				t.Fatal("accepted")
			}
			if cfg != nil {
				t.Error("a Config beside the error")
			}
			if diff := cmp.Diff(tt.want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseBrokenSyntaxNamesTheFormat(t *testing.T) {
	for format, raw := range map[string]string{"yaml": "a: [", "toml": "a = [", "json": "{", "ini": "a=b"} {
		_, err := Parse([]byte(raw), format, Options{})
		if err == nil || !strings.HasPrefix(err.Error(), format+": ") {
			t.Errorf("%s: error %v", format, err)
		}
	}
}

func TestOverrides(t *testing.T) {
	env := func(values map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) { v, ok := values[name]; return v, ok }
	}
	raw := []byte("node: file\nlimits: {flows: 1}\ndevice: {queues: 2}\n")

	cfg, err := Parse(raw, "yaml", Options{
		LookupEnv: env(map[string]string{
			"UVS_NODE": "env", "UVS_LIMITS_FLOWS": "7", "UVS_TIMEOUTS_TCP_FIN": "9s", "UVS_DEVICE_QUEUES": "auto",
			"UVS_ADDRESSES_TUNNEL_SOURCE": "192.0.2.1, 2001:db8::1", "UVS_ADMIN_LISTEN": "",
			"UVS_POLICY_SLOPPY": "true", "UVS_POLICY_REUSE": "0", "UVS_POLICY_CLAMP_MSS": "auto",
		}),
		Set: []string{"node=flag", "limits.flows=8"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Node != "flag" || cfg.Limits.Flows != 8 || cfg.Timeouts.TCPFIN.String() != "9s" || cfg.Device.Queues != 0 ||
		!*cfg.Policy.Sloppy || *cfg.Policy.Reuse != 0 || *cfg.Policy.ClampMSS != AutoMSS || len(cfg.Addresses.TunnelSource) != 2 || cfg.Admin.Listen.IsValid() {
		t.Errorf("got %+v", cfg)
	}

	_, err = Parse(raw, "yaml", Options{
		LookupEnv: env(map[string]string{"UVS_LIMITS_FLOWS": "many", "UVS_DEVICE_QUEUES": "0", "UVS_POLICY_SLOPPY": "yes"}),
		Set:       []string{"nonsense", "services=x", "device.egress=up"},
	})
	want := []string{
		`environment variable UVS_LIMITS_FLOWS: "many" is not a whole number`,
		`environment variable UVS_POLICY_SLOPPY: "yes" is neither true nor false`,
		"--set nonsense: must be key=value",
	}
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w+"\n") {
			t.Errorf("no %q in %v", w, err)
		}
	}
	for _, w := range []string{"--set services: cannot be set; known are", "device.queues: must be", `device.egress: "up" is none of`} {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("no %q in %v", w, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.yaml", "a.yml", "a.toml", "a.json"} {
		raw := map[string]string{".toml": `node = "x"`, ".json": `{"node": "x"}`}[filepath.Ext(name)]
		if raw == "" {
			raw = "node: x"
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		if cfg, err := Load(path, Options{}); err != nil || cfg.Node != "x" {
			t.Errorf("%s: %v, %v", name, cfg, err)
		}
	}
	if _, err := Load(filepath.Join(dir, "a.conf"), Options{}); err == nil {
		t.Error("a file whose format is unknown was read")
	}
	if _, err := Load(filepath.Join(dir, "none.yaml"), Options{}); err == nil {
		t.Error("a file that is not there was read")
	}
}
