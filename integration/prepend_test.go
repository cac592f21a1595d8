package integration

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

// TestThePathFollowsTheStateOfTheVIP: the router sees a longer path the less
// is behind the VIP, in the topology of bgp_test.go. The real servers are three
// ports of rs.
func TestThePathFollowsTheStateOfTheVIP(t *testing.T) {
	need(t, "bird", "birdc", "socat", "ip")
	n := newTor(t)
	b := startBird(t, n.router, "192.0.2.1", "protocol bgp v4 from director { neighbor 192.0.2.11 as 65011; }\n")
	serve := func(port int) *lab.Process {
		t.Helper()
		p, err := startServer(n.rs, []string{fmt.Sprintf("tcp/%d", port)}, "socat", fmt.Sprintf("TCP-LISTEN:%d,fork,reuseaddr", port), "PIPE")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	servers := []*lab.Process{serve(81), serve(82), serve(83)}
	d := startDirector(t, n.lb[0], `
addresses: {fullnat_pool: [198.51.100.11/32]}
announcement: {degraded_below: 60}
bgp:
  as: 65011
  router_id: 192.0.2.11
  prepend_degraded: 1
  prepend_backup: 9
  peers: [{address: 192.0.2.1, as: 65000}]
services:
  - name: web
    mode: fullnat
    listen: ["203.0.113.10:80/tcp"]
    bgp: {prepend_backup: 2}
    sorry_server: "192.0.2.21:99"
    health: {type: tcp, interval: 200ms, timeout: 200ms}
    real_servers: [{address: "192.0.2.21:81"}, {address: "192.0.2.21:82"}, {address: "192.0.2.21:83"}]
`)
	path := func(times int) {
		t.Helper()
		want := "BGP.as_path: " + strings.TrimSpace(strings.Repeat("65011 ", times)) + "\n"
		if err := lab.Wait(within(t), "the router to have "+want, func() error {
			if out := b.ask(t, "show", "route", "all", "for", "203.0.113.10"); !strings.Contains(out, want) {
				return errors.New(out)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	path(1)
	servers[0].Stop() // two of three are more than 60 %
	says(t, d, "192.0.2.21:81 before=up")
	path(1)
	servers[1].Stop()
	path(2)
	servers[2].Stop()
	path(3) // of the service, not of the section bgp
	if out := run(t, n.lb[0], d.bin, "status", "--socket", d.socket); !strings.Contains(out, "VIP backup") {
		t.Errorf("status does not say so:\n%s", out)
	}
	for _, port := range []int{81, 82, 83} {
		serve(port)
	}
	path(1)
}
