package integration

// How soon a router's kernel follows what a check decides, in the topology of
// bgp_test.go: from the line of the log that says that the last real server is
// down, or the first one up, to the kernel's word that the route is gone, or
// there. How much of it is the router's own shows the UPDATE on the wire.

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
)

// A routeChange is one that a kernel told of.
type routeChange struct {
	at     time.Time
	prefix string
	there  bool
}

// watchRoutes follows the routes of a host's kernel until the test ends.
func watchRoutes(t *testing.T, h *lab.Host) <-chan routeChange {
	t.Helper()
	updates, done := make(chan netlink.RouteUpdate, 64), make(chan struct{})
	if err := h.Do(func() error { return netlink.RouteSubscribe(updates, done) }); err != nil {
		t.Fatal(err)
	}
	changes := make(chan routeChange, 1024) // more than a round has, so that none waits to be stamped
	go func() {
		defer close(changes)
		for u := range updates {
			if u.Dst != nil {
				changes <- routeChange{time.Now(), u.Dst.String(), u.Type == unix.RTM_NEWROUTE}
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		for range changes {
		}
	})
	return changes
}

// reached waits until the latest word about each prefix is that it is there,
// or that it is gone, and returns when the last of these came.
func reached(t *testing.T, changes <-chan routeChange, there bool, prefixes []string) (last time.Time) {
	t.Helper()
	limit := time.After(patience)
	missing := slices.Clone(prefixes)
	for len(missing) > 0 {
		select {
		case c := <-changes:
			if i := slices.Index(missing, c.prefix); i >= 0 && c.there == there {
				missing, last = slices.Delete(missing, i, i+1), c.at
			}
		case <-limit:
			t.Fatalf("not %s within %v: %v", map[bool]string{true: "there", false: "gone"}[there], patience, missing)
		}
	}
	return last
}

// decided waits until the log of a director says, after its first skip bytes,
// that n real servers came into a state, and returns when.
func decided(t *testing.T, d *director, skip int, state string, n int) (times []time.Time) {
	t.Helper()
	err := lab.Wait(within(t), "the log to say "+state, func() error {
		times = nil
		for line := range strings.Lines(d.process.Output()[skip:]) {
			if !strings.Contains(line, `msg="real server is `+state+`"`) {
				continue
			}
			stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
			at, err := time.Parse(time.RFC3339Nano, stamp)
			if err != nil {
				return err
			}
			times = append(times, at)
		}
		if len(times) != n {
			return fmt.Errorf("%d times, want %d", len(times), n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return times
}

// isUpdate says whether a frame that came in has a BGP UPDATE among its messages.
func isUpdate(f *lab.Frame) bool {
	p := f.Packet(false)
	tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ok || f.Out || tcp.DstPort != 179 && tcp.SrcPort != 179 {
		return false
	}
	const header = 19 // RFC 4271 section 4.1
	for m := tcp.Payload; len(m) >= header; {
		if m[header-1] == bgpUpdate {
			return true
		}
		m = m[min(len(m), max(header, int(binary.BigEndian.Uint16(m[header-3:])))):]
	}
	return false
}

// told is when the second UPDATE came in after a time: there is one a session.
func told(t *testing.T, c *lab.Capture, after time.Time) time.Time {
	t.Helper()
	n := 0
	f, err := c.Wait(within(t), "an UPDATE for each session", func(f *lab.Frame) bool {
		if f.Time.After(after) {
			n++
		}
		return n == 2
	})
	if err != nil {
		t.Fatal(err)
	}
	return f.Time
}

// A delays is what a test has measured of one kind of change.
type delays struct{ update, kernel []time.Duration }

func (d *delays) add(t *testing.T, decided, told, changed time.Time) {
	t.Helper()
	if changed.Before(decided) {
		t.Errorf("the router's kernel followed %v before the check had decided", decided.Sub(changed))
	}
	d.update, d.kernel = append(d.update, told.Sub(decided)), append(d.kernel, changed.Sub(decided))
}

// report prints them.
func (d *delays) report(t *testing.T, what string) {
	t.Helper()
	for _, m := range []struct {
		what string
		took []time.Duration
	}{{"the UPDATE was at the router", d.update}, {"the router's kernel had followed", d.kernel}} {
		slices.Sort(m.took)
		last := len(m.took) - 1
		t.Logf("%s: %s after median %v, worst %v of %d rounds", what, m.what,
			m.took[last/2].Round(100*time.Microsecond), m.took[last].Round(100*time.Microsecond), last+1)
	}
}

func TestTheRoutersKernelFollowsTheCheck(t *testing.T) {
	const rounds = 15
	prefixes := []string{"203.0.113.10/32", "2001:db8:a::10/128"}
	for _, tt := range []struct {
		name  string
		start func(t *testing.T, n *tor)
	}{
		{"BIRD", func(t *testing.T, n *tor) {
			need(t, "bird", "birdc")
			startBird(t, n.router, "192.0.2.1", "protocol bgp v4 from director { neighbor 192.0.2.11 as 65011; }\nprotocol bgp v6 from director { neighbor 2001:db8:1::11 as 65011; }\n")
		}},
		{"FRR", func(t *testing.T, n *tor) {
			needFRR(t)
			startFRR(t, n.router, "router bgp 65000\n bgp router-id 192.0.2.1\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n"+
				" neighbor 192.0.2.11 remote-as 65011\n neighbor 192.0.2.11 timers connect 1\n neighbor 2001:db8:1::11 remote-as 65011\n neighbor 2001:db8:1::11 timers connect 1\n"+
				" address-family ipv4 unicast\n  neighbor 192.0.2.11 activate\n exit-address-family\n"+
				" address-family ipv6 unicast\n  neighbor 2001:db8:1::11 activate\n exit-address-family\n")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			need(t, "nginx", "ip")
			n := newTor(t)
			changes := watchRoutes(t, n.router)
			wire, err := n.router.Capture("lan", isUpdate)
			if err != nil {
				t.Fatal(err)
			}
			tt.start(t, n)
			server, err := nginxIn(n.rs)
			if err != nil {
				t.Fatal(err)
			}
			config := n.config(0, "bgp:\n  as: 65011\n  router_id: 192.0.2.11\n  peers: [{address: 192.0.2.1, as: 65000}, {address: \"2001:db8:1::1\", as: 65000}]")
			d := startDirector(t, n.lb[0], config+"    health: {type: tcp, interval: 1s, fast_interval: 100ms, timeout: 1s, rise: 1}\n")
			reached(t, changes, true, prefixes)

			var gone, back delays
			for range rounds {
				skip := len(d.process.Output())
				server.Stop()
				at := reached(t, changes, false, prefixes)
				decision := decided(t, d, skip, "down", 2)[1]
				gone.add(t, decision, told(t, wire, decision), at)

				skip = len(d.process.Output())
				if server, err = nginxIn(n.rs); err != nil {
					t.Fatal(err)
				}
				at = reached(t, changes, true, prefixes)
				decision = decided(t, d, skip, "up", 2)[0]
				back.add(t, decision, told(t, wire, decision), at)
			}
			gone.report(t, "the last real server died")
			back.report(t, "the first one is back")
		})
	}
}
