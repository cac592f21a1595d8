package integration

// Connections that uvs ends by itself, between real sockets at both ends.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/uvs-project/uvs/integration/lab"
)

// quietPort is where the real servers of these tests accept.
const quietPort = 9000

// quietServices is the part of the configuration that lists the variants'
// services on quietPort, with the weights of their real servers.
func quietServices(list []variant, weights ...int) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for _, v := range list {
		fmt.Fprintf(&b, "  - name: %s\n    mode: %s\n    scheduler: rr\n", strings.ReplaceAll(v.name, " ", "-"), v.mode)
		fmt.Fprintf(&b, "    health: {type: none}\n    listen: [\"%s:%d/tcp\"]\n    real_servers:\n", literal(v.vip), quietPort)
		for i, weight := range weights {
			fmt.Fprintf(&b, "      - {address: %q, weight: %d}\n", literal(v.rip(i+1)), weight)
		}
	}
	return b.String()
}

// A quietPair is both ends of one connection through the director.
type quietPair struct {
	name           string
	server         int // the real server's number
	client, remote net.Conn
}

// connectQuietly makes two connections in each variant, one to each of its real
// servers, over which both ends have sent something.
func connectQuietly(t *testing.T, b *bed, list []variant) []quietPair {
	t.Helper()
	type accepted struct {
		conn net.Conn
		on   int
	}
	came := make(chan accepted)
	for n, rs := range b.groups["rs"] {
		ln, err := rs.Listen("tcp", fmt.Sprintf("[::]:%d", quietPort))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				came <- accepted{conn, n + 1}
			}
		}()
	}
	var pairs []quietPair
	for _, v := range list {
		for range 2 {
			conn, err := b.client.Dial(within(t), "tcp", netip.AddrPortFrom(v.vip, quietPort).String())
			if err != nil {
				t.Fatalf("%s: %v", v.name, err)
			}
			a := <-came
			p := quietPair{name: fmt.Sprintf("%s, real server %d", v.name, a.on), server: a.on, client: conn, remote: a.conn}
			t.Cleanup(func() { p.client.Close(); p.remote.Close() })
			exchangeOnce(t, p.name, p.client, p.remote, 1000)
			exchangeOnce(t, p.name, p.remote, p.client, 100_000)
			pairs = append(pairs, p)
		}
	}
	return pairs
}

// exchangeOnce sends so many bytes one way.
func exchangeOnce(t *testing.T, name string, from, to net.Conn, n int) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := from.Write(make([]byte, n))
		done <- err
	}()
	to.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.CopyN(io.Discard, to, int64(n)); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := <-done; err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// resetBy waits for both ends to be reset.
func (p *quietPair) resetBy(t *testing.T) {
	t.Helper()
	for end, conn := range map[string]net.Conn{"client": p.client, "real server": p.remote} {
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the %s's socket says %v, want a reset by the peer", p.name, end, err)
		}
	}
}

// resetVariants has each mode, and both families.
var resetVariants = some("dr IPv4", "dr IPv6", "nat IPv4", "nat IPv6", "tun ipip IPv4", "fullnat IPv4 to IPv6")

// quietBed is a bed whose real servers own the VIPs and serve nothing yet.
func quietBed(t *testing.T, list []variant) *bed {
	t.Helper()
	need(t, "ip")
	b := newBed(newLab(t), list)
	drawn(t, b.lab)
	if err := b.ownVIPs(uvsProgram(t), list); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestIdleConnectionsAreResetAtBothEnds(t *testing.T) {
	b := quietBed(t, resetVariants)
	startDirector(t, b.director, settings+"timeouts: {tcp: 10s}\npolicy: {reset_expired: true}\n"+quietServices(resetVariants, 1, 1))
	for _, p := range connectQuietly(t, b, resetVariants) {
		p.resetBy(t)
	}
}

func TestConnectionsOfARemovedRealServerAreReset(t *testing.T) {
	b := quietBed(t, resetVariants)
	config := settings + "policy: {removed: reset}\n"
	d := startDirector(t, b.director, config+quietServices(resetVariants, 1, 1))
	pairs := connectQuietly(t, b, resetVariants)
	if err := d.reload(config + quietServices(resetVariants, 1)); err != nil {
		t.Fatal(err)
	}
	for _, p := range pairs {
		if p.server == 2 {
			p.resetBy(t)
		} else {
			exchangeOnce(t, p.name, p.client, p.remote, 1000)
		}
	}
}

func TestADrainEnds(t *testing.T) {
	list := some("dr IPv4", "nat IPv6")
	b := quietBed(t, list)
	config := settings + "policy: {drain: 10s, reset_expired: true}\n"
	d := startDirector(t, b.director, config+quietServices(list, 1, 1))
	pairs := connectQuietly(t, b, list)
	if err := d.reload(config + quietServices(list, 1, 0)); err != nil {
		t.Fatal(err)
	}
	for _, p := range pairs {
		if p.server == 2 {
			exchangeOnce(t, p.name, p.client, p.remote, 1000) // for as long as the drain it goes on
		}
	}
	for _, p := range pairs {
		if p.server == 2 {
			p.resetBy(t)
		} else {
			exchangeOnce(t, p.name, p.client, p.remote, 1000)
		}
	}
	if err := lab.Wait(within(t), "the flows to be counted", func() error {
		out, err := d.get(within(t), "/metrics")
		if err == nil && !strings.Contains(out, "uvs_flows_expired_total{reason=\"server_left\"} 2\n") {
			err = errors.New(out)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// TestFlowsOutliveTheirService takes services out of the configuration and puts
// them back, with the policy of uvs and with the one of IPVS.
func TestFlowsOutliveTheirService(t *testing.T) {
	list := some("dr IPv4", "nat IPv4", "nat IPv6", "tun ipip IPv4", "fullnat IPv6")
	b := quietBed(t, list)
	d := startDirector(t, b.director, settings+quietServices(list, 1, 1))
	pairs := connectQuietly(t, b, list)
	reloads := 0
	reload := func(config string) {
		t.Helper()
		if err := d.reload(settings + config); err != nil {
			t.Fatal(err)
		}
		reloads++
		if err := lab.Wait(within(t), "the reload", func() error {
			if out := d.process.Output(); strings.Count(out, "configuration reloaded") < reloads {
				return errors.New(out)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	onlyFirst := quietServices(list[:1], 1, 1)
	reload(onlyFirst)
	for _, p := range pairs {
		exchangeOnce(t, p.name+" without its service", p.client, p.remote, 10_000)
		exchangeOnce(t, p.name+" without its service", p.remote, p.client, 10_000)
	}
	const keep = "policy: {removed: keep}\n"
	reload(keep + quietServices(list, 1, 1))
	for _, p := range pairs {
		exchangeOnce(t, p.name+" with its service again", p.client, p.remote, 10_000)
	}
	reload(keep + onlyFirst)
	for _, p := range pairs[2:] {
		if _, err := p.client.Write([]byte("?")); err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		p.remote.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if n, err := p.remote.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %d bytes came through without the service, %v", p.name, n, err)
		}
	}
	reload(keep + quietServices(list, 1, 1))
	for _, p := range pairs[2:] {
		p.remote.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(p.remote, make([]byte, 1)); err != nil {
			t.Errorf("%s: what was sent meanwhile did not come: %v", p.name, err)
		}
	}
}

// TestSteeringEndsWithTheLastFlow: what a service that was removed had of the
// host is given back without another reload.
func TestSteeringEndsWithTheLastFlow(t *testing.T) {
	list := some("nat IPv4", "tun ipip IPv4")
	b := quietBed(t, list)
	d := startDirector(t, b.director, settings+"timeouts: {tcp_close: 1s}\n"+quietServices(list, 1, 1))
	pairs := connectQuietly(t, b, list)
	steered := func() (left []string) {
		for _, v := range list {
			if run(t, b.director, "ip", "route", "show", "table", "9740", v.vip.String()) != "" {
				left = append(left, v.vip.String())
			}
		}
		if rules := run(t, b.director, "ip", "rule"); strings.Contains(rules, fmt.Sprintf("sport %d", quietPort)) {
			left = append(left, rules)
		}
		return left
	}
	if err := d.reload(settings); err != nil {
		t.Fatal(err)
	}
	if err := lab.Wait(within(t), "the reload", func() error {
		if out := d.process.Output(); !strings.Contains(out, "configuration reloaded") {
			return errors.New(out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if left := steered(); len(left) != 3 {
		t.Fatalf("with flows steered are %q", left)
	}
	for _, p := range pairs {
		p.client.(*net.TCPConn).SetLinger(0) // a reset ends the flow in a second
		p.client.Close()
	}
	if err := lab.Wait(within(t), "the end of the steering", func() error {
		if left := steered(); len(left) > 0 {
			return fmt.Errorf("%q", left)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
