package integration

// Paths with a narrow link, where the transfer lives on an ICMP error that has
// to find its way through the director: "fragmentation needed" about a packet
// whose addresses the director has changed.
//
//	client ── r1 ─(near)─ r2 ── director ── g1 ─(far)─ g2 ── rs
//
//	near: 198.18.1.0/24 2001:db8:c1::/64   far: 10.2.0.0/24 2001:db8:e2::/64

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

const narrow = 1400 // bytes

// A path is the topology above, in IPv4 and IPv6, with one narrow link.
type path struct{ client, r1, r2, director, g1, g2, rs *lab.Host }

func newPath(t *testing.T, near, far int) *path {
	l := newLab(t)
	p := &path{}
	for name, h := range map[string]**lab.Host{"client": &p.client, "r1": &p.r1, "r2": &p.r2, "director": &p.director, "g1": &p.g1, "g2": &p.g2, "rs": &p.rs} {
		*h = l.Host(name)
	}
	// Network n of the chain is 10.n.0.0/24 and 2001:db8:n::/64; the host
	// nearer to the client is .1 in it, the other .2.
	chain := []*lab.Host{p.client, p.r1, p.r2, p.director, p.g1, p.g2, p.rs}
	for i, h := range chain[1:] {
		n := i + 1
		chain[i].Link(h, fmt.Sprintf("10.%d.0.1/24 2001:db8:%d::1/64", n, n), fmt.Sprintf("10.%d.0.2/24 2001:db8:%d::2/64", n, n))
	}
	for i, h := range chain {
		if i > 0 && i < len(chain)-1 {
			h.Forward()
		}
		if i < len(chain)-1 { // what lies farther, by way of the next
			for n := i + 2; n < len(chain); n++ {
				h.Route(fmt.Sprintf("10.%d.0.0/24", n), fmt.Sprintf("10.%d.0.2", i+1))
				h.Route(fmt.Sprintf("2001:db8:%d::/64", n), fmt.Sprintf("2001:db8:%d::2", i+1))
			}
		}
		if i > 0 {
			h.Route("default", fmt.Sprintf("10.%d.0.1", i)).Route("default", fmt.Sprintf("2001:db8:%d::1", i))
		}
	}
	for i, h := range chain[:3] {
		h.Route("203.0.113.0/24", fmt.Sprintf("10.%d.0.2", i+1)).Route("2001:db8:a::/64", fmt.Sprintf("2001:db8:%d::2", i+1))
	}
	for i, h := range chain[4:] {
		h.Route("198.51.100.0/24", fmt.Sprintf("10.%d.0.1", i+4)).Route("2001:db8:f::/64", fmt.Sprintf("2001:db8:%d::1", i+4))
	}
	p.r1.MTU("r2", near)
	p.r2.MTU("r1", near)
	p.g1.MTU("g2", far)
	p.g2.MTU("g1", far)
	drawn(t, l)
	return p
}

// pathVariants are the modes that reach a real server behind routers.
var pathVariants = some("nat IPv4", "nat IPv6", "tun ipip IPv4", "tun ipip IPv6", "tun ipip IPv4 in IPv6", "tun ipip IPv6 in IPv4",
	"fullnat IPv4", "fullnat IPv6", "fullnat IPv4 to IPv6", "fullnat IPv6 to IPv4")

// service of the variant on the path, with the chain's own real server.
func (p *path) service(v variant) string {
	rip := "10.6.0.2"
	if v.rs6 {
		rip = "[2001:db8:6::2]"
	}
	tunnel := ""
	if v.tunnel != "" {
		tunnel = "    tunnel: {type: " + v.tunnel + "}\n"
	}
	return fmt.Sprintf("  - name: %s\n    mode: %s\n%s    health: {type: none}\n    listen: [\"%s:80/tcp\", \"%[4]s:%d/udp\"]\n    real_servers: [{address: %q}]\n",
		strings.ReplaceAll(v.name, " ", "-"), v.mode, tunnel, literal(v.vip), echoPort, rip)
}

func TestNarrowPath(t *testing.T) {
	need(t, programs...)
	for _, test := range []struct {
		name      string
		near, far int
	}{
		{name: "to the real server", near: 1500, far: narrow},
		{name: "to the client", near: narrow, far: 1500},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPath(t, test.near, test.far)
			p.serve(t)
			config := settings[:strings.Index(settings, "  tunnel_source")] + settings[strings.Index(settings, "  fullnat_pool"):] + "services:\n"
			for _, v := range pathVariants {
				config += p.service(v)
			}
			startDirector(t, p.director, config)
			for _, v := range pathVariants {
				x := &target{&bed{client: p.client}, v}
				t.Run(v.name, func(t *testing.T) {
					t.Run("a file goes up whole", func(t *testing.T) { upload(t, x) })
					t.Run("a file comes down whole", func(t *testing.T) { download(t, x) })
					t.Run("datagrams that are fragmented both ways", func(t *testing.T) { datagrams(t, x, 3) })
				})
			}
		})
	}
}

// serve starts the real server's programs.
func (p *path) serve(t *testing.T) {
	t.Helper()
	args := []string{"realserver", "setup", "--foreground", "--mode", "tun"}
	var served []variant
	for _, v := range pathVariants {
		if v.mode == "tun" {
			args = append(args, "--vip", v.vip.String())
			served = append(served, v)
		}
	}
	if err := setUp(p.rs, exec.Command(uvsProgram(t), args...)); err != nil {
		t.Fatal(err)
	}
	if err := nginx(p.rs); err != nil {
		t.Fatal(err)
	}
	for _, v := range served {
		if err := socatUDP(p.rs, v.vip); err != nil {
			t.Fatal(err)
		}
	}
	for _, rip := range []string{"10.6.0.2", "2001:db8:6::2"} {
		if err := socatUDP(p.rs, netip.MustParseAddr(rip)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestClampedPath: where nobody hears of the narrow link, because something
// keeps its ICMP errors from the director, a clamped MSS keeps connections
// below it, and without it they hang.
func TestClampedPath(t *testing.T) {
	need(t, append(programs, "nft")...)
	p := newPath(t, 1500, narrow)
	p.serve(t)
	run(t, p.director, "nft", "add table inet deaf; add chain inet deaf prerouting { type filter hook prerouting priority -350; }; "+
		"add rule inet deaf prerouting icmp type destination-unreachable drop; add rule inet deaf prerouting icmpv6 type packet-too-big drop")
	clamped := some("nat IPv4", "nat IPv6", "fullnat IPv4", "fullnat IPv4 to IPv6", "fullnat IPv6 to IPv4")
	config := settings[:strings.Index(settings, "  tunnel_source")] + settings[strings.Index(settings, "  fullnat_pool"):] + "services:\n"
	for _, v := range clamped {
		config += p.service(v) + "    policy: {clamp_mss: 1300}\n"
	}
	bare := some("fullnat IPv6")[0]
	startDirector(t, p.director, config+p.service(bare))
	for _, v := range clamped {
		t.Run(v.name, func(t *testing.T) { upload(t, &target{&bed{client: p.client}, v}) })
	}
	t.Run("without", func(t *testing.T) {
		want, err := big()
		if err != nil {
			t.Fatal(err)
		}
		url := (&target{&bed{client: p.client}, bare}).url("/upload/bare")
		if out, err := p.client.Run(within(t), "curl", "-sS", "--max-time", "3", "-T", want.path, url); err == nil {
			t.Errorf("the file went up: the link is not narrow, or the errors are heard\n%s", out)
		}
	})
}
