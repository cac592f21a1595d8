package stack

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
	"github.com/uvs-project/uvs/packet"
)

// needRoot skips where the kernel will not let the test work; not in CI,
// where that would be a hole.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("network namespaces and TUN devices need root")
	}
	t.Skip("network namespaces and TUN devices need root")
}

// A scene is a director with a TUN device between a client and a server. All
// that the client sends to a VIP, and all that the server's address sends back,
// goes through the device.
//
//	client ──192.0.2.0/24──── director ──198.51.100.0/24──── server
//	.2       2001:db8:1::/64  .1  │ .1   2001:db8:2::/64     .2
//	                             uvs0: 203.0.113.10, 2001:db8:a::10
type scene struct {
	client, director, server *lab.Host
	tun                      *DeviceTUN
}

var (
	sceneVIPs = []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:a::10")}
	sceneRIPs = []netip.Addr{netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:2::2")}
	sceneCIPs = []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8:1::2")}
)

func newScene(t *testing.T, queues int, offload bool) *scene {
	t.Helper()
	needRoot(t)
	l, err := lab.New("stacktest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	s := &scene{client: l.Host("client"), director: l.Host("director").Forward(), server: l.Host("server")}
	s.client.Link(s.director, "192.0.2.2/24 2001:db8:1::2/64", "192.0.2.1/24 2001:db8:1::1/64").Route("default", "192.0.2.1").Route("default", "2001:db8:1::1")
	s.director.Link(s.server, "198.51.100.1/24 2001:db8:2::1/64", "198.51.100.2/24 2001:db8:2::2/64")
	s.server.Route("default", "198.51.100.1").Route("default", "2001:db8:2::1")
	if !offload {
		s.client.Offload("director", false)
		s.server.Offload("director", false)
		s.director.Offload("client", false).Offload("server", false)
	}
	s.director.Sysctl("net.ipv4.conf.all.rp_filter", "0").Sysctl("net.ipv4.conf.default.rp_filter", "0")
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.director.Do(func() (err error) {
		s.tun, err = OpenTUN(TUNOptions{Queues: queues})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.tun.Close(); err != nil {
			t.Error(err)
		}
	})
	s.steer(t)
	return s
}

// steer routes the VIPs, and what the server's addresses send back, into the
// TUN device; what comes out of it takes the main table.
func (s *scene) steer(t *testing.T) {
	t.Helper()
	nl := s.director.Netlink()
	link, err := nl.LinkByName(s.tun.Name())
	if err != nil {
		t.Fatal(err)
	}
	steps := []error{nl.LinkSetMTU(link, 65535), nl.LinkSetUp(link)}
	for i, vip := range sceneVIPs {
		bits := vip.BitLen()
		family := []int{netlink.FAMILY_V4, netlink.FAMILY_V6}[i]
		mask := net.CIDRMask(bits, bits)
		all := &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
		replies := netlink.NewRule()
		replies.Family, replies.Priority, replies.Table = family, 101, 100
		replies.Src = &net.IPNet{IP: sceneRIPs[i].AsSlice(), Mask: mask}
		out := netlink.NewRule()
		out.Family, out.Priority, out.Table, out.IifName = family, 100, unix.RT_TABLE_MAIN, s.tun.Name()
		steps = append(steps,
			nl.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: vip.AsSlice(), Mask: mask}}),
			nl.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: all, Table: 100}),
			nl.RuleAdd(out), nl.RuleAdd(replies))
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
}

// routes knows the way to the client and the server. Their neighbours are
// unknown until Resolve is called.
func (s *scene) routes(t *testing.T) *sceneRoutes {
	t.Helper()
	r := &sceneRoutes{hops: map[packet.Addr]*Hop{}, macs: map[*Neighbour]MAC{}}
	for _, to := range []struct {
		host  *lab.Host
		addrs []netip.Addr
	}{{s.client, sceneCIPs}, {s.server, sceneRIPs}} {
		dev, err := s.director.Netlink().LinkByName(to.host.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range to.addrs {
			n := NewNeighbour(a)
			r.macs[n] = MAC(to.host.MAC("director"))
			addr, _ := packet.AddrFrom(a)
			r.hops[addr] = &Hop{Device: to.host.Name, IfIndex: dev.Attrs().Index, MTU: dev.Attrs().MTU, Source: MAC(dev.Attrs().HardwareAddr), Neighbour: n}
		}
	}
	return r
}

type sceneRoutes struct {
	hops map[packet.Addr]*Hop
	macs map[*Neighbour]MAC
}

func (r *sceneRoutes) Lookup(dst packet.Endpoint, _ uint32) *Hop { return r.hops[dst.Addr] }
func (r *sceneRoutes) Resolve(h *Hop)                            { go h.Neighbour.Set(r.macs[h.Neighbour]) }

func (r *sceneRoutes) resolveAll() {
	for n, mac := range r.macs {
		n.Set(mac)
	}
}

// sceneNAT translates between the VIPs and the server.
func sceneNAT(p *packet.Packet, _ time.Duration) (packet.Verdict, packet.Reason) {
	var rw packet.Rewrite
	for i := range sceneVIPs {
		vip, family := packet.AddrFrom(sceneVIPs[i])
		rip, _ := packet.AddrFrom(sceneRIPs[i])
		switch {
		case p.Tuple.Dst == vip:
			rw.Dst = packet.Endpoint{Addr: rip, Port: p.Tuple.DstPort, Family: family}
		case p.Tuple.Src == rip:
			rw.Src = packet.Endpoint{Addr: vip, Port: p.Tuple.SrcPort, Family: family}
		}
	}
	if rw == (packet.Rewrite{}) {
		return packet.Return, packet.OK
	}
	if why := rw.Apply(p); why != packet.OK {
		return packet.Drop, why
	}
	return packet.Send, packet.OK
}

// sceneDR hands what is for a VIP to the server as it is.
func sceneDR(p *packet.Packet, _ time.Duration) (packet.Verdict, packet.Reason) {
	for i := range sceneVIPs {
		if vip, family := packet.AddrFrom(sceneVIPs[i]); p.Tuple.Dst == vip {
			rip, _ := packet.AddrFrom(sceneRIPs[i])
			rw := packet.Rewrite{NextHop: packet.Endpoint{Addr: rip, Family: family}}
			return packet.Send, rw.Apply(p)
		}
	}
	return packet.Return, packet.OK
}
