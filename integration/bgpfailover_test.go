package integration

// Directors that go, in the topology of bgp_test.go: what the router does, and
// how soon. Times are printed; they are held only against what they would be
// without what they show, which a busy machine does not reach.

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
)

// nextHops are those of a route in a host's kernel; none without a route.
func nextHops(t *testing.T, h *lab.Host, vip string) (hops []string) {
	t.Helper()
	routes, err := h.Netlink().RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: netlink.NewIPNet(net.ParseIP(vip).To4())}, netlink.RT_FILTER_DST)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if len(r.MultiPath) == 0 {
			hops = append(hops, r.Gw.String())
		}
		for _, p := range r.MultiPath {
			hops = append(hops, p.Gw.String())
		}
	}
	return hops
}

// hopsBecome waits until a route has just the wanted next hops, and returns
// how long that took.
func hopsBecome(t *testing.T, h *lab.Host, vip string, wanted ...string) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		got := nextHops(t, h, vip)
		if strings.Join(got, " ") == strings.Join(wanted, " ") {
			return time.Since(start)
		}
		if time.Since(start) > patience {
			t.Fatalf("next hops of %s: %v, want %v", vip, got, wanted)
		}
		<-tick.C
	}
}

// cut has a bridge forward nothing from or to one of its ports, whose carrier
// stays; join mends it.
func (n *tor) cut(t *testing.T, host string) {
	run(t, n.lan, "bridge", "link", "set", "dev", host, "state", "0")
}

func (n *tor) join(t *testing.T, host string) {
	run(t, n.lan, "bridge", "link", "set", "dev", host, "state", "3")
}

// pair starts both directors, with BIRD on the router.
func (n *tor) pair(t *testing.T, birdPeer, uvsPeer string) (*bird, [2]*director) {
	t.Helper()
	b := startBird(t, n.router, "192.0.2.1", "protocol bfd { interface \"lan\" { interval 300 ms; }; }\n"+
		"protocol bgp lb1 from director { neighbor 192.0.2.11 as 65011; "+birdPeer+" }\n"+
		"protocol bgp lb2 from director { neighbor 192.0.2.12 as 65011; "+birdPeer+" }\n")
	var d [2]*director
	for i := range d {
		d[i] = startDirector(t, n.lb[i], n.config(i, fmt.Sprintf("bgp:\n  as: 65011\n  router_id: 192.0.2.%d\n  peers: [{address: 192.0.2.1, as: 65000, %s}]", 11+i, uvsPeer)))
	}
	b.established(t, "lb1", "lb2")
	return b, d
}

// shortOfHoldTime is less than a router waits for a director of which it hears
// nothing more, by a hold time of nine seconds: that, less the three seconds
// between two messages.
const shortOfHoldTime = 5 * time.Second

func TestBGPFailover(t *testing.T) {
	need(t, "bird", "birdc", "nginx", "curl", "ip", "bridge")
	const vip, lb1, lb2 = "203.0.113.10", "192.0.2.11", "192.0.2.12"
	n := newTor(t)
	if err := nginx(n.rs); err != nil {
		t.Fatal(err)
	}
	b, d := n.pair(t, "bfd on;", "bfd: {enabled: true}")
	hopsBecome(t, n.router, vip, lb1, lb2)
	for _, name := range []string{lb1, lb2} {
		if err := lab.Wait(within(t), "BFD to "+name, func() error {
			out := b.ask(t, "show", "bfd", "sessions")
			for line := range strings.Lines(out) {
				if f := strings.Fields(line); len(f) > 2 && f[0] == name && f[2] == "Up" {
					return nil
				}
			}
			return errors.New(out)
		}); err != nil {
			t.Fatal(err)
		}
	}
	answers := func(t *testing.T) {
		t.Helper()
		for range 8 { // by other ports, so over both directors while there are two
			if got := run(t, n.client, "curl", "-sS", "--fail", "--max-time", "60", "http://"+vip+"/who"); !strings.HasPrefix(got, "rs ") {
				t.Errorf("answer %q", got)
			}
		}
	}
	answers(t)

	t.Run("a director that is killed", func(t *testing.T) {
		if err := d[0].process.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		took := hopsBecome(t, n.router, vip, lb2)
		t.Logf("the router used the other director after %v", took)
		if took > shortOfHoldTime {
			t.Errorf("took %v; the kernel closes the connection at once", took)
		}
		answers(t)
		<-d[0].process.Exited()
		if err := d[0].start(); err != nil {
			t.Fatal(err)
		}
		hopsBecome(t, n.router, vip, lb1, lb2)
		answers(t)
	})
	t.Run("a director that is stopped", func(t *testing.T) {
		if err := d[0].process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		took := hopsBecome(t, n.router, vip, lb2)
		t.Logf("the router used the other director after %v", took)
		if err := d[0].process.Wait(within(t)); err != nil {
			t.Error(err)
		}
		answers(t)
		if err := d[0].start(); err != nil {
			t.Fatal(err)
		}
		hopsBecome(t, n.router, vip, lb1, lb2)
		b.established(t, "lb1")
	})
	t.Run("a host that is cut off", func(t *testing.T) {
		err := lab.Wait(within(t), "BFD", func() error {
			if total(n.metrics(t, 0), "uvs_bfd_session_up") != 1 {
				return errors.New("down")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		err = lab.Wait(within(t), "both to agree on their speed", func() error {
			out := b.ask(t, "show", "bfd", "sessions")
			for line := range strings.Lines(out) {
				// IP address, interface, state, since, interval, timeout
				if f := strings.Fields(line); len(f) == 6 && f[0] == lb1 && f[4] == "0.300" && f[5] == "0.900" {
					return nil
				}
			}
			return errors.New(out)
		})
		if err != nil {
			t.Fatal(err)
		}
		n.cut(t, "lb1")
		took := hopsBecome(t, n.router, vip, lb2)
		t.Logf("the router used the other director after %v", took)
		if took > shortOfHoldTime {
			t.Errorf("took %v, want 0.9 s", took)
		}
		answers(t)
		err = lab.Wait(within(t), "uvs to tell of it", func() error {
			if out := d[0].process.Output(); !strings.Contains(out, "control detection time expired") {
				return errors.New(out)
			}
			m := n.metrics(t, 0)
			if total(m, "uvs_bgp_session_up") != 0 || total(m, "uvs_bgp_session_flaps_total") == 0 || total(m, "uvs_bfd_session_flaps_total") == 0 {
				return errors.New("the metrics do not show it")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		n.join(t, "lb1")
		hopsBecome(t, n.router, vip, lb1, lb2)
		answers(t)
	})
}

// TestBGPHoldTime is the negative of BFD's test: without it a host that is cut
// off keeps its routes for the hold time.
func TestBGPHoldTime(t *testing.T) {
	need(t, "bird", "birdc", "ip", "bridge")
	const vip, lb1, lb2 = "203.0.113.10", "192.0.2.11", "192.0.2.12"
	n := newTor(t)
	n.pair(t, "hold time 9;", "hold_time: 9s")
	hopsBecome(t, n.router, vip, lb1, lb2)
	n.cut(t, "lb1")
	took := hopsBecome(t, n.router, vip, lb2)
	t.Logf("the router used the other director after %v", took)
	if took < 3*time.Second {
		t.Errorf("took %v, want the hold time of 9s, less the time since the last message", took)
	}
}

// TestBGPGracefulRestart: where it is asked for, the router keeps the routes
// of a process that died, and not those of one that was stopped.
func TestBGPGracefulRestart(t *testing.T) {
	need(t, "bird", "birdc", "ip")
	const vip, lb1 = "203.0.113.10", "192.0.2.11"
	n := newTor(t)
	b := startBird(t, n.router, "192.0.2.1", "protocol bgp lb1 from director { neighbor 192.0.2.11 as 65011; graceful restart on; }\n")
	d := startDirector(t, n.lb[0], n.config(0, "bgp:\n  as: 65011\n  router_id: 192.0.2.11\n  graceful_restart: 60s\n  peers: [{address: 192.0.2.1, as: 65000}]"))
	b.established(t, "lb1")
	hopsBecome(t, n.router, vip, lb1)
	if err := d.process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-d.process.Exited()
	err := lab.Wait(within(t), "BIRD to notice", func() error {
		if out := b.ask(t, "show", "protocols", "lb1"); strings.Contains(out, "Established") {
			return errors.New(out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := nextHops(t, n.router, vip); len(got) != 1 {
		t.Errorf("next hops %v after the process died", got)
	}
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	b.established(t, "lb1")
	hopsBecome(t, n.router, vip, lb1)
	d.process.Stop()
	hopsBecome(t, n.router, vip)
}

// metrics are those of director i.
func (n *tor) metrics(t *testing.T, i int) map[string]float64 {
	t.Helper()
	return metrics(t, &bed{director: n.lb[i]})
}

// TestBGPThousandVIPs measures from the first route in the router's kernel to
// the last, when a session comes up and when they are added by a reload.
func TestBGPThousandVIPs(t *testing.T) {
	need(t, "bird", "birdc", "ip")
	const count = 1000
	// A tenth of a second is usual. What this tells is a message, or a wait, for
	// each of the routes.
	const soon = 10 * time.Second
	n := newTor(t)
	startBird(t, n.router, "192.0.2.1", "protocol bgp lb1 from director { neighbor 192.0.2.11 as 65011; }\n")
	var listens []string
	vip := netip.MustParseAddr("10.200.0.1")
	for range count {
		listens = append(listens, fmt.Sprintf("%q", vip.String()+":80/tcp"))
		vip = vip.Next()
	}
	config := "addresses: {fullnat_pool: [198.51.100.11/32]}\nbgp: {as: 65011, router_id: 192.0.2.11, peers: [{address: 192.0.2.1, as: 65000}]}\n" +
		"services:\n  - {name: one, mode: fullnat, listen: [\"203.0.113.10:80/tcp\"], real_servers: [{address: 192.0.2.21}]}\n"
	many := config + "  - {name: many, mode: fullnat, listen: [" + strings.Join(listens, ", ") + "], real_servers: [{address: 192.0.2.21}]}\n"

	installed := func() (n1 int) {
		routes, err := n.router.Netlink().RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: unix.RTPROT_BIRD}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			t.Fatal(err)
		}
		return len(routes)
	}
	reach := func(least, most int) time.Time {
		t.Helper()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
			if got := installed(); got >= least && got <= most {
				return time.Now()
			}
		}
		t.Fatalf("%d routes, want %d to %d", installed(), least, most)
		return time.Time{}
	}
	d := startDirector(t, n.lb[0], many)
	first := reach(1, count+1)
	took := reach(count+1, count+1).Sub(first)
	t.Logf("%d routes were in the router's kernel %v after the first", count, took)
	if took > soon {
		t.Errorf("took %v, want %v at most", took, soon)
	}
	if err := d.reload(config); err != nil {
		t.Fatal(err)
	}
	first = reach(0, count)
	took = reach(0, 1).Sub(first)
	t.Logf("%d routes were gone from the router's kernel %v after the first", count, took)
	if took > soon {
		t.Errorf("took %v, want %v at most", took, soon)
	}
	start := time.Now()
	if err := d.reload(many); err != nil {
		t.Fatal(err)
	}
	first = reach(2, count+1)
	last := reach(count+1, count+1)
	t.Logf("%d routes were there again %v after the first, %v after SIGHUP", count, last.Sub(first), last.Sub(start))
	if took := last.Sub(first); took > soon {
		t.Errorf("took %v, want %v at most", took, soon)
	}
	if err := lab.Wait(within(t), "the metrics", func() error {
		if m := n.metrics(t, 0); total(m, "uvs_bgp_prefixes_sent") != count+1 || total(m, "uvs_bgp_route_peers") != count+1 {
			return fmt.Errorf("they say %v prefixes, to %v peers", total(m, "uvs_bgp_prefixes_sent"), total(m, "uvs_bgp_route_peers"))
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
