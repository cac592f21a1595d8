package integration

// Peers that come, go and change by a reload, in the topology of bgp_test.go.

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

func TestBGPIsReloaded(t *testing.T) {
	need(t, "bird", "birdc", "nginx", "curl", "socat", "ip")
	const v4, v6 = "203.0.113.10", "2001:db8:a::10"
	n := newTor(t)
	n.router.Route("203.0.113.0/24", "192.0.2.11") // clients get there whatever BGP does
	drawn(t, n.client.Lab())
	if err := nginx(n.rs); err != nil {
		t.Fatal(err)
	}
	b := startBird(t, n.router, "192.0.2.1",
		"protocol bgp v4 from director { neighbor 192.0.2.11 external; }\nprotocol bgp v6 from director { neighbor 2001:db8:1::11 external; }\n")
	config := func(as int, peers ...string) string {
		if as == 0 {
			return n.config(0, "")
		}
		return n.config(0, fmt.Sprintf("bgp:\n  as: %d\n  router_id: 192.0.2.11\n  peers: [%s]", as, strings.Join(peers, ", ")))
	}
	const peer4, peer6 = "{address: 192.0.2.1, as: 65000}", "{address: \"2001:db8:1::1\", as: 65000}"
	d := startDirector(t, n.lb[0], config(65011, peer4))
	fib(t, n.router, v4, "via 192.0.2.11")
	reloads := 0
	// A transfer outlasts every change: the packets go on.
	slow, err := n.client.Start(exec.Command("curl", "-sS", "--fail", "-o", "/dev/null", "http://"+v4+"/slow/big"))
	if err != nil {
		t.Fatal(err)
	}
	reload := func(config string) {
		t.Helper()
		if err := d.reload(config); err != nil {
			t.Fatal(err)
		}
		reloads++
		if err := lab.Wait(within(t), "the reload", func() error {
			if got := n.metrics(t, 0)[`uvs_config_reloads_total{result="success"}`]; int(got) != reloads {
				return fmt.Errorf("%v reloads, want %d", got, reloads)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}

	reload(config(65011, peer6, peer4))
	fib(t, n.router, v6, "via 2001:db8:1::11")
	b.established(t, "v6")

	reload(config(65011, strings.Replace(peer6, "as:", "hold_time: 30s, as:", 1), peer4)) // is changed
	b.established(t, "v6")
	if err := lab.Wait(within(t), "the hold time", func() error {
		if out := b.ask(t, "show", "protocols", "all", "v6"); !strings.Contains(out, "Established") || strings.Contains(out, "Hold timer: 0") {
			return errors.New(out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	fib(t, n.router, v6, "via 2001:db8:1::11")

	reload(config(65011, peer4)) // is removed
	fib(t, n.router, v6)
	if strings.Contains(b.process.Output(), "<RMT> v4:") {
		t.Error("the other session has ended too")
	}
	m := n.metrics(t, 0)
	if m[`uvs_bgp_session_flaps_total{peer="192.0.2.1"}`] != 0 || total(m, "uvs_bgp_session_up") != 1 {
		t.Error("the metrics show another session, or its end")
	}

	reload(config(65012, peer4)) // another AS, so all begins anew
	if err := lab.Wait(within(t), "the other AS", func() error {
		if out := b.ask(t, "show", "route", "all", "for", v4); !strings.Contains(out, "BGP.as_path: 65012") {
			return errors.New(out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	says(t, d, "BGP speaker begins anew")

	reload(config(0)) // BGP is taken out, and comes back
	if out := run(t, n.lb[0], d.bin, "status", "--socket", d.socket); strings.Contains(out, "BGP peer") {
		t.Errorf("status still has it:\n%s", out)
	}
	says(t, d, "BGP speaker ends")
	reload(config(65011, peer4, peer6))
	fib(t, n.router, v4, "via 192.0.2.11")
	fib(t, n.router, v6, "via 2001:db8:1::11")

	// A port that is taken: the configuration before it stays, VIPs and all.
	if _, err := startServer(n.lb[0], []string{"tcp/1790"}, "socat", "TCP-LISTEN:1790,fork,reuseaddr", "PIPE"); err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(config(65011, peer4, peer6), "  peers:", "  listen_port: 1790\n  peers:", 1)
	if err := d.reload(strings.Replace(bad, `, "[2001:db8:a::10]:80/tcp"`, "", 1)); err != nil {
		t.Fatal(err)
	}
	says(t, d, "configuration not reloaded", "listen_port 1790")
	b.established(t, "v4", "v6")
	fib(t, n.router, v4, "via 192.0.2.11")
	fib(t, n.router, v6, "via 2001:db8:1::11")

	select {
	case <-slow.Exited():
		t.Errorf("the transfer has ended:\n%s", slow.Output())
	default:
	}
}
