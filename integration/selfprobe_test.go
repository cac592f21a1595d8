package integration

import (
	"strings"
	"testing"
)

// TestAVIPIsAnnouncedOnceItAnswers has a rule of somebody else take the
// packets to one VIP away, in the topology of bgp_test.go.
func TestAVIPIsAnnouncedOnceItAnswers(t *testing.T) {
	need(t, "bird", "birdc", "ip")
	n := newTor(t)
	startBird(t, n.router, "192.0.2.1", "protocol bgp v4 from director { neighbor 192.0.2.11 as 65011; }\n")
	thief := []string{"pref", "100", "to", "203.0.113.10", "lookup", "main"}
	run(t, n.lb[0], "ip", append([]string{"rule", "add"}, thief...)...)
	config := n.config(0, "announcement: {self_probe: true}\nbgp:\n  as: 65011\n  router_id: 192.0.2.11\n"+
		"  peers: [{address: 192.0.2.1, as: 65000, families: [ipv4, ipv6], next_hop_ipv6: \"2001:db8:1::11\"}]")
	d := startDirector(t, n.lb[0], config)
	fib(t, n.router, "2001:db8:a::10", "via 2001:db8:1::11")
	says(t, d, "VIP does not answer the self-probe")
	fib(t, n.router, "203.0.113.10")
	if status := run(t, n.lb[0], d.bin, "status", "--socket", d.socket); !strings.Contains(status, "203.0.113.10: self-probe: ") {
		t.Errorf("status does not say why:\n%s", status)
	}
	m := n.metrics(t, 0)
	if total(m, "uvs_vip_up") != 1 || m[`uvs_self_probes_total{result="good"}`] != 1 || m[`uvs_self_probes_total{result="bad"}`] == 0 {
		t.Error("the metrics do not show it")
	}
	run(t, n.lb[0], "ip", append([]string{"rule", "del"}, thief...)...)
	fib(t, n.router, "203.0.113.10", "via 192.0.2.11")

	// Once announced, it is not asked again.
	run(t, n.lb[0], "ip", append([]string{"rule", "add"}, thief...)...)
	if err := d.reload(strings.Replace(config, "203.0.113.10:80/tcp", "203.0.113.10:8080/tcp", 1)); err != nil {
		t.Fatal(err)
	}
	says(t, d, "configuration reloaded")
	fib(t, n.router, "203.0.113.10", "via 192.0.2.11")
}
