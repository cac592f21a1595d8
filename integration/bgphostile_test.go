package integration

// Peers that speak BGP wrongly, too much, or not at all, beside a router that
// does it right; and a director whose packet loops have all that they can do.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uvs-project/uvs/integration/lab"
)

// The types of BGP messages (RFC 4271 section 4.1).
const (
	bgpOpen      = 1
	bgpUpdate    = 2
	bgpKeepalive = 4
)

// bgpMessage frames a body.
func bgpMessage(kind byte, body ...byte) []byte {
	m := make([]byte, 16, 19+len(body))
	for i := range m {
		m[i] = 0xff
	}
	m = binary.BigEndian.AppendUint16(m, uint16(19+len(body)))
	return append(append(m, kind), body...)
}

// goodOpen is an OPEN of AS 65000 with both families.
var goodOpen = bgpMessage(bgpOpen, 4, 0xfd, 0xe8, 0, 9, 192, 0, 2, 99, 14,
	2, 12, 1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0xfd, 0xe8)

// goodUpdate announces n of the networks 10.x.y.0/24, beginning with the first.
func goodUpdate(first, n int) []byte {
	attributes := []byte{
		0x40, 1, 1, 0, // origin
		0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8, // AS path
		0x40, 3, 4, 192, 0, 2, 99, // next hop
		0xc0, 8, 4, 0, 1, 0, 2, // communities
	}
	body := []byte{0, 0, 0, byte(len(attributes))}
	body = append(body, attributes...)
	for i := first; i < first+n; i++ {
		body = append(body, 24, 10, byte(i>>8), byte(i))
	}
	return bgpMessage(bgpUpdate, body...)
}

// A hostile peer takes a connection of the director and does what it wants.
type hostile struct {
	name string
	talk func(c net.Conn, random *rand.Rand) error
	says string // the director's log, besides the end of the session
}

// hello is an honest start: OPEN and KEEPALIVE of both sides.
func hello(c net.Conn) error {
	if _, err := c.Write(append(goodOpen, bgpMessage(bgpKeepalive)...)); err != nil {
		return err
	}
	for range 2 {
		header := make([]byte, 19)
		if _, err := io.ReadFull(c, header); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint16(header[16:]))-19); err != nil {
			return err
		}
	}
	return nil
}

// mutated is a message with some bytes of its body changed, cut or added.
func mutated(m []byte, random *rand.Rand) []byte {
	body := append([]byte{}, m[19:]...)
	for range 1 + random.IntN(4) {
		switch i := random.IntN(len(body) + 1); {
		case i == len(body):
			body = append(body, byte(random.Uint32()))
		case random.IntN(4) == 0:
			body = append(body[:i], body[i+1:]...)
		default:
			body[i] = byte(random.Uint32())
		}
	}
	return bgpMessage(m[18], body...)
}

var hostiles = []hostile{
	{name: "says something else", says: "malformed message", talk: func(c net.Conn, _ *rand.Rand) error {
		_, err := io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		return err
	}},
	{name: "sends an OPEN of random bytes", says: "no BGP session", talk: func(c net.Conn, random *rand.Rand) error {
		_, err := c.Write(mutated(goodOpen, random))
		return err
	}},
	{name: "sends a header that is too long", says: "malformed message", talk: func(c net.Conn, _ *rand.Rand) error {
		m := append([]byte{}, goodOpen...)
		binary.BigEndian.PutUint16(m[16:], 65535)
		_, err := c.Write(m)
		return err
	}},
	{name: "closes at once", says: "no BGP session", talk: func(net.Conn, *rand.Rand) error { return nil }},
	{name: "says nothing", talk: func(c net.Conn, _ *rand.Rand) error {
		_, err := io.Copy(io.Discard, c)
		return err
	}},
	{name: "sends random updates in a session", says: "BGP session lost", talk: func(c net.Conn, random *rand.Rand) error {
		if err := hello(c); err != nil {
			return err
		}
		go io.Copy(io.Discard, c)
		for i := range 500 {
			if _, err := c.Write(mutated(goodUpdate(i, 3), random)); err != nil {
				return nil // it was thrown out
			}
		}
		_, err := c.Write([]byte(strings.Repeat("x", 100)))
		return err
	}},
	{name: "sends random messages in a session", says: "BGP session lost", talk: func(c net.Conn, random *rand.Rand) error {
		if err := hello(c); err != nil {
			return err
		}
		go io.Copy(io.Discard, c)
		for range 500 {
			body := make([]byte, random.IntN(200))
			for i := range body {
				body[i] = byte(random.Uint32())
			}
			if _, err := c.Write(bgpMessage(byte(random.IntN(7)), body...)); err != nil {
				return nil
			}
		}
		return nil
	}},
	{name: "sends a hundred thousand routes", talk: func(c net.Conn, _ *rand.Rand) error {
		if err := hello(c); err != nil {
			return err
		}
		go io.Copy(io.Discard, c)
		for i := 0; i < manyRoutes; i += 500 {
			if _, err := c.Write(goodUpdate(i, 500)); err != nil {
				return err
			}
		}
		for range time.Tick(time.Second) {
			if _, err := c.Write(bgpMessage(bgpKeepalive)); err != nil {
				return err
			}
		}
		return nil
	}},
}

const manyRoutes = 100_000

func TestBGPHostilePeers(t *testing.T) {
	need(t, "bird", "birdc", "ip", "ping", "curl")
	n := newTor(t)
	n.rs.Route("203.0.113.10/32", "192.0.2.11")
	var peers []string
	for i := range hostiles {
		addr := fmt.Sprintf("192.0.2.%d", 101+i)
		n.rs.Addr("lan", addr+"/24")
		peers = append(peers, fmt.Sprintf("{address: %s, as: 65000, connect_retry: 1s}", addr))
	}
	drawn(t, n.client.Lab())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var talks [8]atomic.Int64
	for i, h := range hostiles {
		l, err := n.rs.Listen("tcp4", fmt.Sprintf("192.0.2.%d:179", 101+i))
		if err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = h.talk(c, random) // it is the director's end that counts
				c.Close()
				talks[i].Add(1)
			}
		}()
	}
	b := startBird(t, n.router, "192.0.2.1", "protocol bgp lb1 from director { neighbor 192.0.2.11 as 65011; }\n")
	d := startDirector(t, n.lb[0], n.config(0, "bgp:\n  as: 65011\n  router_id: 192.0.2.11\n  peers: [{address: 192.0.2.1, as: 65000}, "+strings.Join(peers, ", ")+"]"))
	b.established(t, "lb1")
	fib(t, n.router, "203.0.113.10", "192.0.2.11")

	err := lab.Wait(within(t), "two talks of each", func() error {
		for i, h := range hostiles {
			if h.says != "" && talks[i].Load() < 2 {
				return fmt.Errorf("the peer that %s talked %d times", h.name, talks[i].Load())
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	// Loss of all is a failure: the packet loop goes on all the while.
	run(t, n.rs, "ping", "-n", "-q", "-c", "20", "-i", "0.1", "-W", "60", "203.0.113.10")
	for i, h := range hostiles {
		if h.says == "" {
			continue
		}
		t.Run("a peer that "+h.name, func(t *testing.T) {
			peer := fmt.Sprintf("peer=192.0.2.%d ", 101+i)
			err := lab.Wait(within(t), "the log to say "+h.says, func() error {
				for line := range strings.Lines(d.process.Output()) {
					if strings.Contains(line, peer) && strings.Contains(line, h.says) {
						return nil
					}
				}
				return errors.New(d.process.Output())
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	var m map[string]float64
	if err := lab.Wait(within(t), "the routes of others to be refused", func() error {
		m = n.metrics(t, 0)
		if got := total(m, "uvs_bgp_prefixes_refused_total", "192.0.2.108\""); got < manyRoutes {
			return fmt.Errorf("%v are, want %d", got, manyRoutes)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if up, flaps := total(m, "uvs_bgp_session_up", "192.0.2.1\""), total(m, "uvs_bgp_session_flaps_total", "192.0.2.1\""); up != 1 || flaps != 0 {
		t.Errorf("the good router's session: up %v, lost %v times", up, flaps)
	}
	if out := b.ask(t, "show", "route"); strings.Contains(out, "10.0.") {
		t.Errorf("the router has routes of others from us:\n%s", out)
	}
	if out := run(t, n.lb[0], "ip", "route"); strings.Contains(out, "10.0.") {
		t.Errorf("the host has routes of others:\n%s", out)
	}
}

// TestBFDHoldsWhilePacketLoopsAreSaturated: no processor has time left, and no
// session ends. A peer is given up after three seconds and the load lasts for
// eight: BFD that gets no processor at all does not survive it, BFD that shares
// it with the packets and with whatever else the machine does must.
func TestBFDHoldsWhilePacketLoopsAreSaturated(t *testing.T) {
	need(t, "bird", "birdc", "iperf3", "ip", "curl")
	n := newTor(t)
	if err := iperf(n.rs); err != nil {
		t.Fatal(err)
	}
	b := startBird(t, n.router, "192.0.2.1", "protocol bfd { interface \"lan\" { interval 300 ms; multiplier 10; }; }\nprotocol bgp lb1 from director { neighbor 192.0.2.11 as 65011; bfd on; }\n")
	d := startDirector(t, n.lb[0], `
device: {offload: off}
addresses: {fullnat_pool: [198.51.100.11/32]}
bgp: {as: 65011, router_id: 192.0.2.11, peers: [{address: 192.0.2.1, as: 65000, bfd: {enabled: true, multiplier: 10}}]}
services:
  - name: iperf
    mode: fullnat
    listen: ["203.0.113.10:5201/tcp", "203.0.113.10:5201/udp"]
    real_servers: [{address: 192.0.2.21}]
`)
	b.established(t, "lb1")
	b.bfdUp(t)
	fib(t, n.router, "203.0.113.10", "192.0.2.11")
	before := n.metrics(t, 0)
	start := time.Now()
	run(t, n.client, "iperf3", "-c", "203.0.113.10", "-u", "-b", "0", "-l", "64", "-P", "4", "-t", "8")
	took := time.Since(start)
	after := n.metrics(t, 0)
	packets := total(after, "uvs_tun_queue_reads_total") - total(before, "uvs_tun_queue_reads_total")
	t.Logf("%.0f packets/s for %v", packets/took.Seconds(), took.Round(time.Second))
	if packets < 10_000 {
		t.Errorf("%.0f packets are no load", packets)
	}
	for _, metric := range []string{"uvs_bfd_session_flaps_total", "uvs_bgp_session_flaps_total"} {
		if flaps := total(after, metric); flaps != 0 {
			t.Errorf("%s %v\n%s", metric, flaps, d.process.Output())
		}
	}
	b.bfdUp(t)
	if out := b.process.Output(); strings.Contains(out, "BFD") || strings.Contains(out, "Neighbor lost") {
		t.Errorf("BIRD lost the session:\n%s", out)
	}
}
