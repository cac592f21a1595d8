package integration

// Start, reload, crash and end of the director, in the topology of
// bed_test.go with one variant of each mode.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
)

// some are the variants with the given names.
func some(names ...string) []variant {
	var list []variant
	for _, v := range variants {
		if slices.Contains(names, v.name) {
			list = append(list, v)
		}
	}
	return list
}

// oneEach has each mode and both families.
var oneEach = some("dr IPv4", "nat IPv4", "nat IPv6", "tun ipip IPv6", "fullnat IPv4")

// readyBed is a bed of its own with real servers, but no director yet.
func readyBed(t *testing.T, list []variant) *bed {
	t.Helper()
	b := newBed(newLab(t), list)
	drawn(t, b.lab)
	if err := b.ownVIPs(uvsProgram(t), list); err != nil {
		t.Fatal(err)
	}
	if err := b.serve(list); err != nil {
		t.Fatal(err)
	}
	return b
}

// settled waits until the kernel has made the routes of every address, which
// for IPv6 takes until nobody else on the link claims it.
func settled(t *testing.T, h *lab.Host) {
	t.Helper()
	err := lab.Wait(within(t), "addresses without doubt", func() error {
		if out := run(t, h, "ip", "-6", "address"); strings.Contains(out, "tentative") {
			return errors.New(out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// inventory is everything that a director could leave behind in a host, one
// fact a line.
func inventory(t *testing.T, h *lab.Host) []string {
	t.Helper()
	var facts []string
	for _, cmd := range []string{
		"ip -4 rule", "ip -6 rule",
		"ip -4 route show table all", "ip -6 route show table all",
		"ip -4 address", "ip -6 address", "ip -o link",
		"ip -4 neighbour show proxy", "ip -6 neighbour show proxy",
		"nft list ruleset",
	} {
		args := strings.Fields(cmd)
		for line := range strings.Lines(run(t, h, args[0], args[1:]...)) {
			facts = append(facts, cmd+": "+strings.TrimSpace(line))
		}
	}
	err := h.Do(func() error {
		return filepath.WalkDir("/proc/sys/net", func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, "/nf_conntrack_count") {
				return err
			}
			if value, err := os.ReadFile(path); err == nil { // some can only be written
				facts = append(facts, path+" = "+strings.TrimSpace(string(value)))
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return facts
}

// serving fails the test unless every variant answers a request.
func serving(t *testing.T, b *bed, list []variant) {
	t.Helper()
	for _, v := range list {
		run(t, b.client, "curl", "-sS", "--fail", "--max-time", "60", (&target{b, v}).url("/who"))
	}
}

func TestSIGTERMLeavesNothing(t *testing.T) {
	need(t, append(programs, "nft")...)
	b := readyBed(t, oneEach)
	// With connection tracking in use, uvs exempts what crosses it.
	run(t, b.director, "nft", "add table inet filter; add chain inet filter forward { type filter hook forward priority 0; }; "+
		"add rule inet filter forward ct state invalid drop")
	before := inventory(t, b.director)
	d := startDirector(t, b.director, settings+services(oneEach))
	serving(t, b, oneEach)
	if cmp.Equal(before, inventory(t, b.director)) {
		t.Fatal("the inventory does not show a running director")
	}
	if err := d.process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.process.Wait(within(t)); err != nil {
		t.Errorf("uvs ended with %v", err)
	}
	if diff := cmp.Diff(before, inventory(t, b.director)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

func TestRestartAfterAKillMends(t *testing.T) {
	need(t, append(programs, "nft")...)
	b := readyBed(t, oneEach)
	before := inventory(t, b.director)
	d := startDirector(t, b.director, settings+services(oneEach))
	serving(t, b, oneEach)
	running := inventory(t, b.director)
	for range 2 {
		d.process.Signal(unix.SIGKILL)
		d.process.Wait(within(t))
		if err := d.start(); err != nil {
			t.Fatal(err)
		}
		serving(t, b, oneEach)
	}
	if diff := cmp.Diff(withoutNumbers(running), withoutNumbers(inventory(t, b.director))); diff != "" {
		t.Errorf("a director that was killed twice differs (-first +third):\n%s", diff)
	}
	d.process.Signal(unix.SIGTERM)
	d.process.Wait(within(t))
	if diff := cmp.Diff(before, inventory(t, b.director)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// withoutNumbers drops the number that the kernel gives to each new device.
func withoutNumbers(facts []string) []string {
	out := slices.Clone(facts)
	for i, f := range out {
		if what, rest, ok := strings.Cut(f, ": "); ok && (strings.HasPrefix(what, "ip -o link") || strings.HasSuffix(what, "address")) {
			if number, name, ok := strings.Cut(rest, ": "); ok && strings.Trim(number, "0123456789") == "" {
				out[i] = what + ": " + name
			}
		}
	}
	return out
}

// TestReloadKeepsConnections holds connections busy while real servers and services come
// and go.
func TestReloadKeepsConnections(t *testing.T) {
	need(t, programs...)
	list := some("dr IPv4", "nat IPv4", "nat IPv6", "tun ipip IPv4", "fullnat IPv6", "fullnat IPv6 to IPv4")
	b := readyBed(t, list)
	whole := settings + services(list)
	d := startDirector(t, b.director, whole)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var busy []*exchange
	for _, v := range list {
		for range 2 { // one on each real server
			e := &exchange{name: v.name}
			conn, err := b.client.Dial(within(t), "tcp", netip.AddrPortFrom(v.vip, echoPort).String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			busy = append(busy, e)
			wg.Go(func() { e.err = e.run(ctx, conn) })
		}
	}
	moved := func(when string) {
		t.Helper()
		for _, e := range busy {
			seen := e.rounds.Load()
			if err := lab.Wait(within(t), e.name+" "+when, func() error {
				if e.rounds.Load() < seen+3 {
					return errors.New("stands still")
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
	}
	moved("before any reload")

	// A new service answers as soon as the reload is done.
	added := netip.MustParseAddr("203.0.113.200")
	answers := func(want bool) {
		t.Helper()
		if err := lab.Wait(within(t), "the reload", func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			conn, err := b.client.Dial(ctx, "tcp", netip.AddrPortFrom(added, 80).String())
			if err == nil {
				conn.Close()
			}
			if (err == nil) != want {
				return fmt.Errorf("new VIP: %v", err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	withNew := func(config string) string {
		return config + fmt.Sprintf("  - name: added\n    mode: nat\n    health: {type: none}\n    listen: [\"%v:80/tcp\"]\n"+
			"    real_servers: [{address: \"192.0.2.121:80\"}]\n", added)
	}
	// Every service loses its second real server, then gets it back.
	var fewer strings.Builder
	for line := range strings.Lines(whole) {
		if !strings.Contains(line, "address:") || strings.Contains(line, "21") || strings.Contains(line, "fullnat_pool") {
			fewer.WriteString(line)
		}
	}
	for round := range 3 {
		if err := d.reload(withNew(fewer.String())); err != nil {
			t.Fatal(err)
		}
		answers(true)
		moved(fmt.Sprintf("after losing a real server, round %d", round))
		if err := d.reload(whole); err != nil {
			t.Fatal(err)
		}
		answers(false)
		moved(fmt.Sprintf("after the real server's return, round %d", round))
	}

	// The services of nat become ones of fullnat, for new connections.
	if err := d.reload(withNew(strings.ReplaceAll(whole, "mode: nat", "mode: fullnat"))); err != nil {
		t.Fatal(err)
	}
	answers(true)
	moved("after another mode")
	if err := d.reload(whole); err != nil {
		t.Fatal(err)
	}
	answers(false)

	// A configuration that is wrong changes nothing.
	if err := d.reload("services: [{name: x, mode: sideways}]"); err != nil {
		t.Fatal(err)
	}
	if err := lab.Wait(within(t), "uvs to say what is wrong", func() error {
		if out := d.process.Output(); !strings.Contains(out, "sideways") {
			return errors.New(out)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	moved("after a reload that failed")
	serving(t, b, list)

	cancel()
	wg.Wait()
	for _, e := range busy {
		if e.err != nil {
			t.Errorf("%s: after %d rounds: %v", e.name, e.rounds.Load(), e.err)
		}
	}
}

// An exchange sends and gets back on one connection for as long as it is let.
type exchange struct {
	name   string
	rounds atomic.Int64
	err    error
}

func (e *exchange) run(ctx context.Context, conn interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}) error {
	buf := make([]byte, 4096)
	for n := 0; ctx.Err() == nil; n++ {
		conn.SetDeadline(time.Now().Add(patience))
		for i := range buf {
			buf[i] = byte(i + n)
		}
		sent := string(buf)
		if _, err := conn.Write(buf); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			return err
		}
		if string(buf) != sent {
			return errors.New("something else came back")
		}
		e.rounds.Add(1)
	}
	return nil
}
