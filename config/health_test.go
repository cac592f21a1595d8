package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// checked is a service whose real servers are checked by the given section.
func checked(health string, lines ...string) string {
	return service(append([]string{"health: " + health}, lines...)...)
}

func TestHealthDefaults(t *testing.T) {
	common := Health{Via: ViaServer, Interval: 2 * time.Second, FastInterval: 500 * time.Millisecond, Timeout: time.Second, Rise: 2, Fall: 3}
	with := func(change func(*Health)) Health {
		h := common
		change(&h)
		return h
	}
	tests := []struct {
		name, raw string
		want      Health
	}{
		{"no section", service(), Health{Type: "none"}},
		{"type none has no timing", checked("{type: none, interval: 5s}"), Health{Type: "none"}},
		{"tcp", checked("{type: tcp}"), with(func(h *Health) { h.Type = "tcp" })},
		{"tcp, more often than the timeout that checks have else", checked("{type: tcp, interval: 400ms}"), with(func(h *Health) {
			h.Type, h.Interval, h.FastInterval, h.Timeout = "tcp", 400*time.Millisecond, 100*time.Millisecond, 400*time.Millisecond
		})},
		{"an agent and no check", checked("{agent: {port: 9999}}"), Health{Type: "none", Agent: Agent{Port: 9999, Interval: 2 * time.Second, Timeout: time.Second}}},
		{"what clients' connections say, and no check", checked("{passive: {failures: 5}}", "mode: nat", "real_servers: [{address: 192.0.2.1}]"),
			Health{Type: "none", Passive: Passive{Failures: 5, Ejection: 10 * time.Second, Limit: 50}}},
		{"http, with a number for the status", checked("{type: http, expect: 204}"), with(func(h *Health) {
			h.Type, h.Method, h.Path, h.Expect = "http", "GET", "/", "204"
		})},
		{"https", checked("{type: https, interval: 1m}"), with(func(h *Health) {
			h.Type, h.Method, h.Path, h.Expect = "https", "GET", "/", "200-399"
			h.Interval, h.FastInterval = time.Minute, 15*time.Second
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := Parse([]byte(tt.raw), "yaml", Options{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, cfg.Services[0].Health); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckPort(t *testing.T) {
	tests := []struct {
		name, raw string
		want      uint16
	}{
		{"the real server's own", checked("{type: tcp}", "mode: nat", `real_servers: [{address: "192.0.2.1:8080"}]`), 8080},
		{"the section's before that", checked("{type: tcp, port: 81}", "mode: nat", `real_servers: [{address: "192.0.2.1:8080"}]`), 81},
		{"the listen's", checked("{type: tcp}", "mode: nat", `real_servers: [{address: 192.0.2.1}]`), 80},
		{"that of the listen with the protocol of the check", checked("{type: tcp}", `listen: ["203.0.113.10:53/udp", "203.0.113.10:54/tcp"]`, "mode: nat", `real_servers: [{address: 192.0.2.1}]`), 54},
		{"that which both listens share", checked("{type: tcp}", `listen: ["203.0.113.10:80/tcp", "[2001:db8:a::10]:80/tcp"]`, "mode: tun", `real_servers: [{address: 192.0.2.1}]`), 80},
		{"that of the UDP listen for dns", checked("{type: dns, name: a.}", `listen: ["203.0.113.10:53/udp", "203.0.113.10:54/tcp"]`, "mode: nat", `real_servers: [{address: 192.0.2.1}]`), 53},
		{"none for icmp", checked("{type: icmp}", "mode: nat", `real_servers: [{address: "192.0.2.1:8080"}]`), 0},
		{"none for a check that has none", checked("{type: none}", "mode: nat", `real_servers: [{address: "192.0.2.1:8080"}]`), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := Parse([]byte(tt.raw), "yaml", Options{})
			if err != nil {
				t.Fatal(err)
			}
			s := &cfg.Services[0]
			if got := s.CheckPort(&s.RealServers[0]); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}

func TestCheckVIP(t *testing.T) {
	tests := []struct{ name, raw, want string }{
		{"the listen", checked("{type: tcp, via: mode}", "real_servers: [{address: 192.0.2.1}]"), "203.0.113.10:80"},
		{"the listen of the real server's family", checked("{type: tcp, via: mode}", `listen: ["[2001:db8:a::10]:80/tcp", "203.0.113.10:81/tcp"]`, "mode: tun", "real_servers: [{address: 192.0.2.1}]"), "203.0.113.10:81"},
		{"the listen of the other family where there is no other", checked("{type: tcp, via: mode}", `listen: ["[2001:db8:a::10]:80/tcp"]`, "mode: tun", "real_servers: [{address: 192.0.2.1}]"), "[2001:db8:a::10]:80"},
		{"a port of a range", checked("{type: tcp, via: mode, port: 85}", `listen: ["203.0.113.10:80-90/tcp"]`, "real_servers: [{address: 192.0.2.1}]"), "203.0.113.10:85"},
		{"a port of all", checked("{type: tcp, via: mode, port: 85}", `listen: ["203.0.113.10:0/tcp"]`, "real_servers: [{address: 192.0.2.1}]"), "203.0.113.10:85"},
		{"the listen of the check's protocol", checked("{type: dns, name: a., via: mode}", `listen: ["203.0.113.10:54/tcp", "203.0.113.10:53/udp"]`, "real_servers: [{address: 192.0.2.1}]"), "203.0.113.10:53"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := Parse([]byte(tt.raw), "yaml", Options{})
			if err != nil {
				t.Fatal(err)
			}
			s := &cfg.Services[0]
			if got, ok := s.CheckVIP(&s.RealServers[0]); !ok || got.String() != tt.want {
				t.Errorf("%v, want %s", got, tt.want)
			}
		})
	}
}

func TestHealthFaults(t *testing.T) {
	const web = `services[0] "web": health`
	tests := []struct {
		name, raw string
		want      []string
	}{
		{"a check that there is not", checked("{type: guess}"), []string{`.type: "guess" is none of ` + strings.Join(checkNames(), ", ")}},
		{"keys of another check", checked("{type: tcp, path: /x, tls: {ca: system}}"), []string{
			".path: a check of type tcp has no path", ".tls: a check of type tcp has no tls"}},
		{"keys for no check", checked("{type: none, port: 80}"), []string{".port: a check of type none has no port"}},
		{"an unknown key", checked("{type: tcp, speed: 1}"), []string{".speed: unknown key"}},
		{"numbers out of range", checked("{type: tcp, interval: 1ms, timeout: 2s, rise: 0, fall: -1, port: 70000}"), []string{
			".interval: 1ms is out of range, 10ms to 1h0m0s", ".fast_interval: 250µs is out of range, 1ms to 1ms", ".timeout: 2s is out of range, 1ms to 1ms",
			".rise: 0 is out of range, 1 to 1000", ".fall: -1 is out of range, 1 to 1000", ".port: 70000 is out of range, 0 to 65535"}},
		{"a time limit beyond the interval", checked("{type: tcp, timeout: 3s}"), []string{".timeout: 3s is out of range, 1ms to 2s"}},
		{"status codes that are none, and a path", checked("{type: http, expect: fine, path: x}"), []string{
			`.expect: "fine" is not a list of status codes such as 200-299, 301`, `.path: "x" does not begin with /`}},
		{"checks without what they are about", checked("{type: udp}", `listen: ["203.0.113.10:53/udp"]`), []string{".send: missing, and a check of type udp is nothing without it"}},
		{"dns without a name", checked("{type: dns}", `listen: ["203.0.113.10:53/udp"]`), []string{".name: missing, and a check of type dns is nothing without it"}},
		{"a script without a command", checked("{type: script}"), []string{".command: missing, and a check of type script is nothing without it"}},
		{"a script that depends on where uvs was started", checked("{type: script, command: [check.sh, x]}"), []string{`.command[0]: "check.sh" must be an absolute path`}},
		{"dns for a service of TCP only", checked("{type: dns, name: a.}"), []string{".port: missing: a check of type dns goes over udp, and no listen of the service does"}},
		{"an agent without a port", checked("{type: none, agent: {send: x, interval: 1ms}}"), []string{
			".agent.port: 0 is out of range, 1 to 65535", ".agent.interval: 1ms is out of range, 10ms to 1h0m0s"}},
		{"passive without a number of failures", checked("{passive: {ejection: 1ms, limit: 101}}", "mode: nat", "real_servers: [{address: 192.0.2.1}]"), []string{
			".passive.failures: 0 is out of range, 1 to 1000", ".passive.ejection: 1ms is out of range, 100ms to 1h0m0s", ".passive.limit: 101 is out of range, 1 to 100"}},
		{"passive where nobody sees the answers", checked("{passive: {failures: 3}}", "mode: nat", "real_servers: [{address: 192.0.2.1}, {address: 192.0.2.2, mode: dr}]"), []string{
			".passive: real_servers[1] is in mode dr, in which it answers clients past uvs"}},
		{"passive without connections", checked("{passive: {failures: 3}}", `listen: ["203.0.113.10:53/udp"]`, "mode: nat", "real_servers: [{address: 192.0.2.1}]"), []string{
			".passive: no listen of the service is over tcp, which alone has connections"}},
		{"a way that there is not", checked("{type: tcp, via: moon}"), []string{`.via: "moon" is none of server, mode`}},
		{"a ping by way of the mode", checked("{type: icmp, via: mode}"), []string{".via: a check of type icmp does not go to a VIP"}},
		{"nat by way of the mode", checked("{type: tcp, via: mode}", "mode: nat", "real_servers: [{address: 192.0.2.1}]"), []string{
			".via: real_servers[0] is in mode nat, in which the replies to the director's own address do not cross uvs; check it by its own address"}},
		{"a port that the VIP does not have", checked("{type: tcp, via: mode, port: 81}", "real_servers: [{address: 192.0.2.1}]"), []string{
			".via: no listen over tcp on the port of the check takes it to real_servers[0], 192.0.2.1"}},
		{"half a certificate, relative", checked("{type: https, tls: {cert: x.pem, ca: ca.pem}}"), []string{
			`.tls.ca: "ca.pem" must be an absolute path`, `.tls.cert: "x.pem" must be an absolute path`, ".tls: cert and key belong together",
			".tls.server_name: missing: ca is given, so the name that the certificate must have is needed, here or as host"}},
		{"http for a service of UDP only", checked("{type: http}", `listen: ["203.0.113.10:53/udp"]`, "mode: nat", `real_servers: [{address: "192.0.2.1:53"}]`), []string{
			".port: missing: a check of type http goes over tcp, and no listen of the service does"}},
		{"a range of ports", checked("{type: tcp}", `listen: ["203.0.113.10:80-90/tcp"]`, "mode: nat", `real_servers: [{address: 192.0.2.1}]`), []string{
			".port: missing: real_servers[0], 192.0.2.1, has no port of its own, and the listens have more than one"}},
		{"every port", checked("{type: tcp}", `listen: ["203.0.113.10:0/tcp"]`, "mode: nat", `real_servers: [{address: 192.0.2.1}]`), []string{
			".port: missing: real_servers[0], 192.0.2.1, has no port of its own, and the listens have more than one"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var want []string
			for _, w := range tt.want {
				want = append(want, web+w)
			}
			_, err := Parse([]byte(tt.raw), "yaml", Options{})
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
