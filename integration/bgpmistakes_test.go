package integration

// Routers that are away, and the commonest mistakes in setting up a session, in
// the topology of bgp_test.go.

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

// TestBGPRouterComesBack: nothing is lost but the session while the router is
// away.
func TestBGPRouterComesBack(t *testing.T) {
	need(t, "bird", "birdc", "ip", "ping")
	n := newTor(t)
	n.rs.Route("203.0.113.10/32", "192.0.2.11") // a way to the VIP without the router
	drawn(t, n.client.Lab())
	b := startBird(t, n.router, "192.0.2.1", "protocol bgp lb1 from director { neighbor 192.0.2.11 as 65011; }\n")
	d := startDirector(t, n.lb[0], n.config(0, "bgp:\n  as: 65011\n  router_id: 192.0.2.11\n  peers: [{address: 192.0.2.1, as: 65000}]"))
	b.established(t, "lb1")
	fib(t, n.router, "203.0.113.10", "192.0.2.11")
	b.process.Stop()
	says(t, d, "BGP session lost")
	run(t, n.rs, "ping", "-n", "-c", "1", "-W", "60", "203.0.113.10")
	if err := lab.Wait(within(t), "the metrics", func() error {
		if m := n.metrics(t, 0); total(m, "uvs_bgp_session_up") != 0 || total(m, "uvs_bgp_session_flaps_total") != 1 || total(m, "uvs_bgp_route_peers") != 0 {
			return errors.New("they do not show it")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if out := run(t, n.lb[0], d.bin, "status", "--socket", d.socket); !strings.Contains(out, "192.0.2.1: ") {
		t.Errorf("uvs status does not say why:\n%s", out)
	}
	b.start(t)
	b.established(t, "lb1")
	fib(t, n.router, "203.0.113.10", "192.0.2.11")
	if err := lab.Wait(within(t), "uvs status", func() error {
		if out := run(t, n.lb[0], d.bin, "status", "--socket", d.socket); !strings.Contains(out, "established") {
			return errors.New(out)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// says waits until a director has logged something.
func says(t *testing.T, d *director, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		err := lab.Wait(within(t), "the log to say "+w, func() error {
			if out := d.process.Output(); !strings.Contains(out, w) {
				return errors.New(out)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestBGPMistakes: what is configured wrongly on one side is said, tried
// again, and works once it is put right on the router.
func TestBGPMistakes(t *testing.T) {
	need(t, "bird", "birdc", "ip", "ping")
	n := newTor(t)
	n.rs.Route("203.0.113.10/32", "192.0.2.11")
	drawn(t, n.client.Lab())
	const right = "protocol bgp lb1 from director { neighbor 192.0.2.11 as 65011; password \"s3cret\"; }\n"
	tests := []struct {
		name string
		bird string
		says string
	}{
		{name: "the router expects another AS of us", bird: strings.Replace(right, "65011", "65012", 1), says: "the peer closed the session: code 2(open) subcode 2(bad peer as)"},
		{name: "the router is of another AS", bird: strings.Replace(right, "neighbor", "local as 65001; neighbor", 1), says: "as number mismatch expected 65000, received 65001"},
		{name: "another password", bird: strings.Replace(right, "s3cret", "secret", 1), says: "a peer with another password"},
		{name: "no password", bird: strings.Replace(right, "password \"s3cret\";", "", 1), says: "a peer with another password"},
		{name: "a router that is not there", bird: strings.Replace(right, "192.0.2.11", "192.0.2.99", 1), says: "no BGP session"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := startBird(t, n.router, "192.0.2.1", tt.bird)
			d := startDirector(t, n.lb[0], n.config(0, "bgp:\n  as: 65011\n  router_id: 192.0.2.11\n  peers: [{address: 192.0.2.1, as: 65000, password: s3cret, connect_retry: 1s}]"))
			says(t, d, "no BGP session", tt.says)
			run(t, n.rs, "ping", "-n", "-c", "1", "-W", "60", "203.0.113.10")
			if up := total(n.metrics(t, 0), "uvs_bgp_session_up"); up != 0 {
				t.Errorf("uvs_bgp_session_up %v", up)
			}
			if err := os.WriteFile(b.config, []byte(fmt.Sprintf(birdBase, "192.0.2.1")+right), 0o644); err != nil {
				t.Fatal(err)
			}
			b.ask(t, "configure")
			b.established(t, "lb1")
			if strings.Contains(d.process.Output(), "s3cret") {
				t.Error("the log has the password")
			}
			d.process.Stop()
			b.process.Stop()
		})
	}
}
