package lb_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// The addresses of every test: one of each kind per family.
const (
	cip4, vip4, rip4, lip4, dip4 = "198.51.100.7", "203.0.113.10", "10.0.0.3", "192.0.2.128", "192.0.2.11"
	cip6, vip6, rip6, lip6, dip6 = "2001:db8:c::7", "2001:db8:a::10", "2001:db8:b::3", "2001:db8:f::", "2001:db8:d::11"
)

var locals = []netip.Prefix{netip.MustParsePrefix(lip4 + "/32"), netip.MustParsePrefix(lip6 + "/128")}

// A director is one service on the VIPs that it can serve, for TCP, UDP and SCTP, over the
// given real servers.
type director struct {
	mode        string
	tunnel      modes.Tunnel
	realServers []string // address and port; the first gets the flows
	port        uint16   // of the service; 0: 80
	onNoServer  lb.OnNoServer
	timeouts    lb.Timeouts
	policy      *lb.Policy // nil: the default
	persistence lb.Persistence
}

func (d director) config(tb testing.TB) lb.Config {
	tb.Helper()
	if d.port == 0 {
		d.port = 80
	}
	s := lb.ServiceConfig{Name: "web", OnNoServer: d.onNoServer, Timeouts: d.timeouts, Policy: lb.DefaultPolicy(), Persistence: d.persistence}
	if d.policy != nil {
		s.Policy = *d.policy
	}
	for _, proto := range []uint8{packet.TCP, packet.UDP, packet.SCTP} {
		for _, vip := range []string{vip4, vip6} {
			if !d.serves(vip) {
				continue
			}
			s.Listens = append(s.Listens, lb.Listen{VIP: netip.MustParseAddr(vip), FirstPort: d.port, Proto: proto})
		}
	}
	var err error
	if s.Scheduler, err = sched.New("rr", sched.Options{}); err != nil {
		tb.Fatal(err)
	}
	for _, rs := range d.realServers {
		a := netip.MustParseAddrPort(rs)
		o := modes.Options{Listens: s.Listens, RealServer: a, Tunnel: d.tunnel, Locals: locals}
		if d.mode == "tun" {
			o.Tunnel.Source = netip.MustParseAddr(dip4)
			if a.Addr().Is6() {
				o.Tunnel.Source = netip.MustParseAddr(dip6)
			}
		}
		m, err := modes.New(d.mode, o)
		if err != nil {
			tb.Fatal(err)
		}
		s.RealServers = append(s.RealServers, lb.RealServerConfig{Address: a, Weight: 1, Mode: m})
	}
	return lb.Config{Services: []lb.ServiceConfig{s}, Locals: locals}
}

// serves says whether d can have a listen on vip: dr and nat need a real
// server of its family.
func (d director) serves(vip string) bool {
	if d.mode == "tun" || d.mode == "fullnat" || len(d.realServers) == 0 {
		return true
	}
	return slices.ContainsFunc(d.realServers, func(rs string) bool {
		return netip.MustParseAddrPort(rs).Addr().Is4() == netip.MustParseAddr(vip).Is4()
	})
}

// start makes a Balancer of d alone.
func (d director) start(tb testing.TB) *lb.Balancer {
	tb.Helper()
	return startWith(tb, d.config(tb), lb.Options{Flows: 10_000})
}

func startWith(tb testing.TB, c lb.Config, o lb.Options) *lb.Balancer {
	tb.Helper()
	b, err := lb.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(b.Close)
	if err := b.Apply(c); err != nil {
		tb.Fatal(err)
	}
	return b
}

// A result is what became of a packet.
type result struct {
	verdict packet.Verdict
	reason  packet.Reason
	bytes   []byte
	p       *packet.Packet
}

// handle sends the bytes of a packet through the first queue of b and checks
// what comes out.
func handle(tb testing.TB, b *lb.Balancer, in []byte, now time.Duration) result {
	tb.Helper()
	return handlePacket(tb, b, packettest.Parsed(tb, in), now)
}

func handlePacket(tb testing.TB, b *lb.Balancer, p *packet.Packet, now time.Duration) result {
	tb.Helper()
	v, why := b.Queue(0).Handle(p, now)
	if v == packet.Send && p.Encap.Kind == packet.NoEncap {
		if err := checkSent(p); err != nil {
			tb.Errorf("sent a bad packet: %v\n%s", err, packettest.Dump(p.Bytes()))
		}
	}
	return result{v, why, p.Bytes(), p}
}

// mustMode is the mode of a real server without a port in a service without
// listens.
func mustMode(tb testing.TB, name, rip string) lb.Mode {
	tb.Helper()
	m, err := modes.New(name, modes.Options{
		RealServer: netip.AddrPortFrom(netip.MustParseAddr(rip), 0),
		Tunnel:     modes.Tunnel{Source: netip.MustParseAddr(dip4)},
		Locals:     locals,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// checkSent verifies a packet that is sent, which may be a GUE packet: alone
// among them it may do without a UDP checksum over IPv6 (RFC 6935).
func checkSent(p *packet.Packet) error {
	b := p.Bytes()
	if len(b) > 44 && b[0]>>4 == 6 && b[6] == packet.UDP && [16]byte(b[8:24]) == netip.MustParseAddr(dip6).As16() {
		return packettest.CheckGUE(b)
	}
	return packettest.CheckPacket(p)
}
