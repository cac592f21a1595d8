package integration

// Directors that announce the same VIP come and go, and clients notice nothing,
// in this topology. The real servers answer by the router (dr, tun).
//
//	  client            router (BIRD)
//	198.18.0.2 ───── 198.18.0.1  192.0.2.1 ──── lan ──┬── lb1 192.0.2.11, lb2 192.0.2.12
//	                                                  └── rs1, rs2, rs3: 192.0.2.21, .22, .23

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
)

const anycastVIP = "203.0.113.10"

// An anycast is the topology above.
type anycast struct {
	client, router, lan *lab.Host
	lb                  [2]*lab.Host
	rs                  [3]*lab.Host
	bird                *bird
	directors           [2]*director
}

// startAnycast draws it and starts everything: both directors announce the VIP
// and the router spreads clients over them.
func startAnycast(t *testing.T, mode, scheduler string) *anycast {
	t.Helper()
	l := newLab(t)
	n := &anycast{client: l.Host("client"), router: l.Host("router").Forward(), lan: l.Host("lan").Bridge("br0", "")}
	n.client.Link(n.router, "198.18.0.2/24", "198.18.0.1/24").Route("default", "198.18.0.1")
	n.router.Link(n.lan, "192.0.2.1/24", "").Sysctl("net.ipv4.fib_multipath_hash_policy", "1")
	for i := range n.lb {
		n.lb[i] = l.Host(fmt.Sprintf("lb%d", i+1)).Forward()
		n.lb[i].Link(n.lan, fmt.Sprintf("192.0.2.%d/24", 11+i), "").Route("default", "192.0.2.1")
	}
	for i := range n.rs {
		n.rs[i] = l.Host(fmt.Sprintf("rs%d", i+1))
		n.rs[i].Link(n.lan, fmt.Sprintf("192.0.2.%d/24", 21+i), "").Route("default", "192.0.2.1")
	}
	drawn(t, l)
	for _, rs := range n.rs {
		if err := nginx(rs); err != nil {
			t.Fatal(err)
		}
		if err := setUp(rs, exec.Command(uvsProgram(t), "realserver", "setup", "--foreground", "--mode", mode, "--vip", anycastVIP)); err != nil {
			t.Fatal(err)
		}
	}
	n.bird = startBird(t, n.router, "192.0.2.1", `
protocol bgp lb1 from director { neighbor 192.0.2.11 as 65011; }
protocol bgp lb2 from director { neighbor 192.0.2.12 as 65011; }
`)
	for i := range n.lb {
		n.directors[i] = startDirector(t, n.lb[i], fmt.Sprintf(`
bgp: {as: 65011, router_id: 192.0.2.%d, peers: [{address: 192.0.2.1, as: 65000}]}
policy: {sloppy: true}
services:
  - name: web
    mode: %s
    %s
    listen: ["%s:80/tcp"]
    health: {type: tcp, interval: 10s, timeout: 10s}
    real_servers: [{address: "192.0.2.21:80"}, {address: "192.0.2.22:80"}, {address: "192.0.2.23:80"}]
`, 11+i, mode, scheduler, anycastVIP))
	}
	fib(t, n.router, anycastVIP, "via 192.0.2.11", "via 192.0.2.12")
	return n
}

// Clients are connections under way through an anycast.
type clients struct {
	idle      []net.Conn
	transfers sync.WaitGroup
	begun     atomic.Int64
	enough    chan struct{} // closed: the transfers may end
	broken    atomic.Int64
	first     atomic.Value // the first error, as text
}

func (c *clients) breaks(err error) {
	c.broken.Add(1)
	c.first.CompareAndSwap(nil, err.Error())
}

// connect opens the connections: so many that transfer, and so many idle ones.
func (n *anycast) connect(t *testing.T, transfers, idle int) *clients {
	t.Helper()
	c := &clients{enough: make(chan struct{})}
	for range idle {
		conn, err := n.client.Dial(within(t), "tcp", anycastVIP+":80")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		c.idle = append(c.idle, conn)
	}
	for range transfers {
		c.transfers.Go(func() {
			if err := n.transfer(t.Context(), c); err != nil {
				c.breaks(err)
			}
		})
	}
	if err := lab.Wait(within(t), "all transfers to begin", func() error {
		if got := c.begun.Load(); got < int64(transfers) {
			return fmt.Errorf("%d of %d; the first error is %v", got, transfers, c.first.Load())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

// transfer downloads the big file at nginx's pace, by which it takes a quarter of
// an hour, until there is enough and a little more.
func (n *anycast) transfer(ctx context.Context, c *clients) error {
	web := http.Client{Transport: &http.Transport{DialContext: n.client.Dial, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+anycastVIP+"/slow/big", nil)
	if err != nil {
		return err
	}
	answer, err := web.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	c.begun.Add(1)
	for {
		last := false
		select {
		case <-c.enough:
			last = true
		default:
		}
		if _, err := io.CopyN(io.Discard, answer.Body, slowRate); err != nil || last {
			return err
		}
	}
}

// finish ends the transfers, then asks something on each idle connection,
// and gives the number of connections that broke.
func (c *clients) finish(t *testing.T) int64 {
	t.Helper()
	close(c.enough)
	c.transfers.Wait()
	for _, conn := range c.idle {
		if err := ask(within(t), conn); err != nil {
			c.breaks(fmt.Errorf("idle connection: %w", err))
		}
	}
	return c.broken.Load()
}

// ask makes a request on a connection that was idle.
func ask(ctx context.Context, conn net.Conn) error {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

// comeAndGo drains lb1, kills it, and brings it back, each seen in the
// router's FIB.
func (n *anycast) comeAndGo(t *testing.T) {
	t.Helper()
	lb1 := n.directors[0]
	out := run(t, n.lb[0], lb1.bin, "drain", "node", "--quiet", "1s", "--deadline", "10s", "--socket", lb1.socket)
	if !strings.Contains(out, "node: gone") {
		t.Errorf("uvs drain said:\n%s", out)
	}
	onlyVia(t, n.router, anycastVIP, "192.0.2.12")
	if err := lb1.process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := lb1.process.Wait(within(t)); err == nil {
		t.Error("a killed director ended well")
	}
	if err := lb1.start(); err != nil {
		t.Fatal(err)
	}
	fib(t, n.router, anycastVIP, "via 192.0.2.11", "via 192.0.2.12")
}

// onlyVia waits until the router has one way to the prefix, by the neighbour.
func onlyVia(t *testing.T, router *lab.Host, prefix, neighbour string) {
	t.Helper()
	if err := lab.Wait(within(t), "one way to "+prefix, func() error {
		got := run(t, router, "ip", "route", "show", prefix)
		if strings.Count(got, "via ") != 1 || !strings.Contains(got, "via "+neighbour+" ") {
			return errors.New(got)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestDirectorsComeAndGo is the promise of anycast: any director sends a
// packet in mid-stream to the real server that has the connection.
func TestDirectorsComeAndGo(t *testing.T) {
	need(t, "bird", "birdc", "nginx", "ip")
	for _, row := range []struct{ name, mode, scheduler string }{
		{"mh in dr", "dr", "scheduler: mh\n    scheduler_flags: [mh-port]"},
		{"maglev in dr", "dr", "scheduler: maglev"},
		{"mh in tun", "tun", "scheduler: mh\n    scheduler_flags: [mh-port]"},
		{"maglev in tun", "tun", "scheduler: maglev"},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := startAnycast(t, row.mode, row.scheduler)
			c := n.connect(t, 200, 2000)
			n.comeAndGo(t)
			if broken := c.finish(t); broken > 0 {
				t.Errorf("%d of 2200 connections broke; the first: %v", broken, c.first.Load())
			}
		})
	}
}

// TestDirectorsThatDisagreeBreakConnections is the same with a scheduler that
// knows nothing of the tuple: the test above must be able to fail.
func TestDirectorsThatDisagreeBreakConnections(t *testing.T) {
	need(t, "bird", "birdc", "nginx", "ip")
	n := startAnycast(t, "dr", "scheduler: rr")
	c := n.connect(t, 50, 100)
	n.comeAndGo(t)
	broken := c.finish(t)
	t.Logf("%d of 150 connections broke; the first: %v", broken, c.first.Load())
	if broken == 0 {
		t.Error("no connection broke, though the directors choose without a look at the connection")
	}
}
