package integration

// VIPs announced by BGP to routers that we did not write, in this topology.
// The router learns the VIPs from the directors, and has no other route to them.
//
//	  client               router (BIRD or FRR, AS 65000)
//	198.18.0.2 ──────── 198.18.0.1  192.0.2.1 ──── lan ──┬── lb1 192.0.2.11, 2001:db8:1::11 (AS 65011)
//	2001:db8:c::2    2001:db8:c::1  2001:db8:1::1        ├── lb2 192.0.2.12, 2001:db8:1::12 (AS 65011)
//	                                                     └── rs  192.0.2.21, 2001:db8:1::21
//
// The directors balance by fullnat: rs owns nothing and answers the director
// that asked.

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

// A tor is the topology above.
type tor struct {
	client, router, lan, rs *lab.Host
	lb                      [2]*lab.Host
}

func newTor(t *testing.T) *tor {
	t.Helper()
	l := newLab(t)
	n := &tor{client: l.Host("client"), router: l.Host("router").Forward(), lan: l.Host("lan").Bridge("br0", ""), rs: l.Host("rs")}
	n.client.Link(n.router, "198.18.0.2/24 2001:db8:c::2/64", "198.18.0.1/24 2001:db8:c::1/64")
	n.client.Route("default", "198.18.0.1").Route("default", "2001:db8:c::1")
	n.router.Link(n.lan, "192.0.2.1/24 2001:db8:1::1/64", "")
	n.router.Sysctl("net.ipv4.fib_multipath_hash_policy", "1").Sysctl("net.ipv6.fib_multipath_hash_policy", "1")
	n.rs.Link(n.lan, "192.0.2.21/24 2001:db8:1::21/64", "")
	n.rs.Route("default", "192.0.2.1").Route("default", "2001:db8:1::1")
	for i := range n.lb {
		n.lb[i] = l.Host(fmt.Sprintf("lb%d", i+1)).Forward()
		n.lb[i].Link(n.lan, fmt.Sprintf("192.0.2.%d/24 2001:db8:1::%d/64", 11+i, 11+i), "")
		n.lb[i].Route("default", "192.0.2.1").Route("default", "2001:db8:1::1")
		lip := fmt.Sprintf("198.51.100.%d/32", 11+i)
		n.rs.Route(lip, fmt.Sprintf("192.0.2.%d", 11+i))
		n.rs.Route(fmt.Sprintf("2001:db8:f::%d/128", 11+i), fmt.Sprintf("2001:db8:1::%d", 11+i))
	}
	drawn(t, l)
	return n
}

// config is the configuration of director i with a section bgp.
func (n *tor) config(i int, bgp string) string {
	return fmt.Sprintf(`
addresses:
  fullnat_pool: ["198.51.100.%[1]d/32", "2001:db8:f::%[1]d/128"]
%[2]s
services:
  - name: web
    mode: fullnat
    listen: ["203.0.113.10:80/tcp", "[2001:db8:a::10]:80/tcp"]
    real_servers: [{address: "192.0.2.21:80"}, {address: "[2001:db8:1::21]:80"}]
`, 11+i, bgp)
}

// fib waits until the router's kernel has a route that holds all of wanted.
func fib(t *testing.T, h *lab.Host, prefix string, wanted ...string) {
	t.Helper()
	family := "-4"
	if strings.Contains(prefix, ":") {
		family = "-6"
	}
	err := lab.Wait(within(t), h.Name+" to have the route to "+prefix, func() error {
		got := run(t, h, "ip", family, "route", "show", prefix)
		if got == "" && len(wanted) > 0 {
			return errors.New("no route")
		}
		if got != "" && len(wanted) == 0 {
			return errors.New(got)
		}
		for _, w := range wanted {
			if !strings.Contains(got, w) {
				return fmt.Errorf("%q, want %s in it", got, w)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBGPRoutesClientsToTheDirector(t *testing.T) {
	need(t, "bird", "birdc", "nginx", "curl", "ip")
	n := newTor(t)
	if err := nginx(n.rs); err != nil {
		t.Fatal(err)
	}
	b := startBird(t, n.router, "192.0.2.1", `
protocol bgp v4 from director { neighbor 192.0.2.11 as 65011; }
protocol bgp v6 from director { neighbor 2001:db8:1::11 as 65011; }
`)
	d := startDirector(t, n.lb[0], n.config(0, `
bgp:
  as: 65011
  router_id: 192.0.2.11
  peers:
    - {address: 192.0.2.1, as: 65000}
    - {address: "2001:db8:1::1", as: 65000}
`))
	b.established(t, "v4", "v6")
	fib(t, n.router, "203.0.113.10", "via 192.0.2.11")
	fib(t, n.router, "2001:db8:a::10", "via 2001:db8:1::11")
	for _, url := range []string{"http://203.0.113.10/who", "http://[2001:db8:a::10]/who"} {
		if got := run(t, n.client, "curl", "-sS", "--fail", "--max-time", "60", url); !strings.HasPrefix(got, "rs ") {
			t.Errorf("%s: answer %q", url, got)
		}
	}
	d.process.Stop()
	fib(t, n.router, "203.0.113.10")
	fib(t, n.router, "2001:db8:a::10")
}
