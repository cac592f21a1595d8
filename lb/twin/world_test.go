package twin

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
)

// The addresses of all worlds.
var (
	vips = []netip.Addr{
		netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.11"),
		netip.MustParseAddr("2001:db8:a::10"), netip.MustParseAddr("2001:db8:a::11"),
	}
	locals = []netip.Prefix{
		netip.MustParsePrefix("192.0.2.128/31"), netip.MustParsePrefix("192.0.2.200/32"), netip.MustParsePrefix("2001:db8:f::/127"),
	}
	tunnelSource = map[bool]netip.Addr{false: netip.MustParseAddr("192.0.2.11"), true: netip.MustParseAddr("2001:db8:d::11")}
)

func serverAddr(i int, v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 0xb, 15: byte(1 + i)})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)})
}

func clientAddr(i int, v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 0xc, 15: byte(1 + i)})
	}
	return netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i)})
}

const numServers = 6 // addresses of a family

// services draws a configuration. Services of the names that it has drawn
// before come and go with it.
func services(r *rand.Rand, ends lb.Removed) (all []*service) {
	taken := map[string]bool{}
	for i := range r.IntN(5) {
		s := &service{
			name:      fmt.Sprintf("s%d", i),
			scheduler: sched.Names()[r.IntN(len(sched.Names()))],
			onNo:      lb.OnNoServer(r.IntN(3)),
			policy:    policy(r, ends),
		}
		if r.IntN(3) == 0 {
			s.persistence = persistence(r)
		}
		if r.IntN(2) == 0 {
			s.timeouts = timeouts(r)
		}
		for range 1 + r.IntN(3) {
			l := lb.Listen{VIP: vips[r.IntN(len(vips))], Proto: protos[r.IntN(3)]}
			kind := r.IntN(4)
			switch kind {
			case 0: // every port
			case 1:
				l.FirstPort, l.LastPort = 8000, uint16(8001+r.IntN(20))
			default:
				l.FirstPort = uint16(80 + r.IntN(3))
			}
			if id := fmt.Sprint(l.VIP, l.Proto, l.FirstPort); !taken[id] {
				taken[id] = true
				s.listens = append(s.listens, l)
			}
		}
		if len(s.listens) == 0 {
			continue
		}
		mode := modes.Names()[r.IntN(len(modes.Names()))]
		for range r.IntN(5) {
			m := mode
			if r.IntN(4) == 0 {
				m = modes.Names()[r.IntN(len(modes.Names()))]
			}
			s.draw(r, m)
		}
		s.drop()
		all = append(all, s)
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

var protos = []uint8{packet.TCP, packet.UDP, packet.SCTP}

// timeouts draws some of them.
func timeouts(r *rand.Rand) (t lb.Timeouts) {
	for i := range t {
		if r.IntN(2) == 0 {
			t[i] = time.Duration(r.IntN(1000)) * time.Second
		}
	}
	return t
}

func persistence(r *rand.Rand) lb.Persistence {
	return lb.Persistence{
		Timeout:  time.Duration(1+r.IntN(400)) * time.Second,
		PrefixV4: []int{32, 32, 28, 0}[r.IntN(4)],
		PrefixV6: []int{128, 128, 124, 64}[r.IntN(4)],
	}
}

// policy draws one, half of the times IPVS's or the default. ends is the one way
// to end the flows of a removed real server that the world knows: from one to
// the other, what has happened to such flows would depend on what uvs still
// knows of other real servers.
func policy(r *rand.Rand, ends lb.Removed) lb.Policy {
	switch r.IntN(4) {
	case 0:
		return lb.DefaultPolicy()
	case 1:
		return lb.IPVSPolicy()
	}
	return lb.Policy{
		OnePacket: r.IntN(4) == 0,
		Sloppy:    r.IntN(3) == 0,
		SecureTCP: r.IntN(3) == 0,
		Reuse:     lb.Reuse(r.IntN(4)),
		Removed:   []lb.Removed{lb.RemovedServe, lb.RemovedKeep, ends, ends}[r.IntN(4)],

		ExpireQuiescedTemplates: r.IntN(2) == 0,

		ScheduleICMP:         r.IntN(3) == 0,
		AnswerUnknownReplies: r.IntN(3) == 0,
		ClampMSS:             []int{0, lb.ClampAuto, 600, 1300}[r.IntN(4)],
	}
}

// draw adds a real server that the mode can have.
func (s *service) draw(r *rand.Rand, mode string) {
	v6 := r.IntN(2) == 0
	c := &serverConfig{weight: max(0, r.IntN(5)-1), mode: mode}
	port := uint16(0)
	if mode == "nat" || mode == "fullnat" {
		port = []uint16{0, 8080, 80}[r.IntN(3)]
	}
	if r.IntN(4) == 0 {
		c.most = 1 + r.IntN(20)
		c.least = r.IntN(c.most + 1)
	}
	c.addr = netip.AddrPortFrom(serverAddr(r.IntN(numServers), v6), port)
	if mode == "tun" {
		c.tunnel = modes.Tunnel{Kind: []packet.EncapKind{packet.IPIP, packet.GUE, packet.GRE}[r.IntN(3)], Source: tunnelSource[v6]}
		c.tunnel.Checksum = c.tunnel.Kind != packet.IPIP && r.IntN(2) == 0
		c.tunnel.Fragment = r.IntN(4) == 0
	}
	s.servers = append(s.servers, c)
}

// drop leaves out real servers with the address of another one, those that no
// listen can use, and listens that no real server is left for.
func (s *service) drop() {
	seen := map[netip.Addr]bool{}
	s.servers = slices.DeleteFunc(s.servers, func(c *serverConfig) bool {
		ofFamily := slices.ContainsFunc(s.listens, func(l lb.Listen) bool { return l.VIP.Is6() == isV6(c.addr) })
		out := seen[c.addr.Addr()] || !ofFamily && (c.mode == "dr" || c.mode == "nat")
		seen[c.addr.Addr()] = true
		return out
	})
	if len(s.servers) == 0 {
		return
	}
	left := slices.DeleteFunc(slices.Clone(s.listens), func(l lb.Listen) bool {
		_, all := s.candidates(l.VIP.Is6())
		return len(all) == 0
	})
	if len(left) == 0 {
		s.servers = nil
		return
	}
	if len(left) < len(s.listens) {
		s.listens = left
		s.drop()
	}
}

// mutate draws a service that differs a little from s, with the same listens.
func (s *service) mutate(r *rand.Rand, ends lb.Removed) *service {
	n := *s
	n.servers = nil
	for _, c := range s.servers {
		if r.IntN(5) == 0 {
			continue
		}
		next := *c
		switch r.IntN(6) {
		case 0:
			next.weight = r.IntN(4)
		case 1:
			next.weight = 0
		}
		n.servers = append(n.servers, &next)
	}
	if r.IntN(3) == 0 {
		n.draw(r, modes.Names()[r.IntN(len(modes.Names()))])
	}
	if r.IntN(4) == 0 {
		n.timeouts = timeouts(r)
	}
	if r.IntN(4) == 0 {
		n.policy = policy(r, ends)
	}
	if r.IntN(6) == 0 {
		n.persistence = lb.Persistence{}
		if r.IntN(2) == 0 {
			n.persistence = persistence(r)
		}
	}
	n.drop()
	if len(n.listens) != len(s.listens) {
		return s
	}
	return &n
}

// config is s as a Balancer wants it.
func (s *service) config(tb testing.TB) lb.ServiceConfig {
	tb.Helper()
	c := lb.ServiceConfig{Name: s.name, Listens: s.listens, OnNoServer: s.onNo, Timeouts: s.timeouts, Policy: s.policy, Persistence: s.persistence}
	var err error
	if c.Scheduler, err = sched.New(s.scheduler, sched.Options{}); err != nil {
		tb.Fatal(err)
	}
	for _, rs := range s.servers {
		mode, err := modes.New(rs.mode, modes.Options{Listens: s.listens, RealServer: rs.addr, Tunnel: rs.tunnel, Locals: locals})
		if err != nil {
			tb.Fatal(err)
		}
		c.RealServers = append(c.RealServers, lb.RealServerConfig{Address: rs.addr, Weight: rs.weight, Mode: mode, MaxFlows: rs.most, MinFlows: rs.least})
	}
	return c
}

func config(tb testing.TB, all []*service) lb.Config {
	tb.Helper()
	c := lb.Config{Locals: locals}
	for _, s := range all {
		c.Services = append(c.Services, s.config(tb))
	}
	return c
}

// String is s for whoever reads about a failure.
func (s *service) String() string {
	t := fmt.Sprintf("%s %v %s on_no_server=%d %+v %+v timeouts=%v\n", s.name, s.listens, s.scheduler, s.onNo, s.policy, s.persistence, s.timeouts)
	for _, c := range s.servers {
		t += fmt.Sprintf("  %v weight %d flows %d-%d %s %+v\n", c.addr, c.weight, c.least, c.most, c.mode, c.tunnel)
	}
	return t
}
