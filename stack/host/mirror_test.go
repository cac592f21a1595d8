package host

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

// patience bounds every wait: far more than any takes on a busy machine.
const patience = time.Minute

// eventually waits until the mirror has taken over what the kernel told.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

func TestHopsFollowTheHost(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	// sysfs shows the devices of the namespace that mounted it.
	mac := func() stack.MAC {
		fields := strings.Fields(d.runPeer("ip -o link show eth0"))
		for i, f := range fields {
			if f == "link/ether" {
				m, err := net.ParseMAC(fields[i+1])
				must(t, err)
				return stack.MAC(m)
			}
		}
		t.Fatal("no address")
		return stack.MAC{}
	}
	h := d.open(Options{})
	defer h.Close()
	routes := h.Routes()
	lookup := func(dst string) *stack.Hop { return routes.Lookup(endpoint(dst), 0) }

	if hop := lookup("192.0.2.1"); hop != nil {
		t.Errorf("a hop without a route: %+v", hop)
	}
	d.run("ip route add default via 10.9.0.2")
	d.run("ip -6 route add default via 2001:db8:9::2")
	eventually(t, "a hop of the new default routes", func() bool { return lookup("192.0.2.1") != nil && lookup("2001:db8:c::1") != nil })
	for _, dst := range []string{"192.0.2.1", "2001:db8:c::1"} {
		hop := lookup(dst)
		if hop.Device != "eth0" || hop.MTU != 1500 {
			t.Errorf("to %s: %+v", dst, hop)
		}
		routes.Resolve(hop)
		eventually(t, "the gateway's link address", func() bool { got, known := hop.Neighbour.Link(); return known && got == mac() })
	}

	gateway := lookup("192.0.2.1").Neighbour
	d.runPeer("ip link set eth0 address 02:00:00:00:09:09")
	d.run("ip neigh replace 10.9.0.2 lladdr 02:00:00:00:09:09 dev eth0 nud stale")
	eventually(t, "the gateway's new link address", func() bool { got, _ := gateway.Link(); return got == stack.MAC{2, 0, 0, 0, 9, 9} })

	d.run("ip link set eth0 mtu 1400")
	eventually(t, "the new MTU", func() bool { hop := lookup("192.0.2.1"); return hop != nil && hop.MTU == 1400 })
	if lookup("192.0.2.1").Neighbour != gateway {
		t.Error("another hop over the same gateway has another neighbour")
	}
	d.run("ip link set eth0 address 02:00:00:00:01:01")
	eventually(t, "the device's new address", func() bool {
		hop := lookup("192.0.2.1")
		return hop != nil && hop.Source == stack.MAC{2, 0, 0, 0, 1, 1}
	})

	// A host on the link gets a hop once a packet wanted one.
	eventually(t, "a hop of a host on the link", func() bool { return lookup("10.9.0.2") != nil })
	if lookup("10.9.0.2").Neighbour != gateway {
		t.Error("a gateway that is a destination too has two neighbours")
	}
	eventually(t, "the host's link address", func() bool { _, known := lookup("10.9.0.2").Neighbour.Link(); return known })

	d.run("ip neigh replace 10.9.0.2 dev eth0 nud failed")
	eventually(t, "the failed neighbour", func() bool { _, known := gateway.Link(); return !known })
	d.run("ip route replace blackhole default")
	eventually(t, "the blackhole", func() bool { return lookup("192.0.2.1") == nil })
	d.run("ip route replace default via 10.9.0.2")
	eventually(t, "the gateway again", func() bool { return lookup("192.0.2.1") != nil })

	d.run("ip rule add pref 100 fwmark 5 lookup 77")
	eventually(t, "the policy rule of somebody else", func() bool { return lookup("192.0.2.1") == nil })
	if lookup("10.9.0.2") == nil {
		t.Error("a host on the link has lost its hop")
	}
	d.run("ip rule del pref 100")
	eventually(t, "that it is gone", func() bool { return lookup("192.0.2.1") != nil })

	d.run("ip link set eth0 down")
	eventually(t, "that the device is down", func() bool { return lookup("10.9.0.2") == nil })
}

func TestARealServerOfDirectRoutingHasItsHopAtOnce(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	h := d.open(Options{})
	defer h.Close()
	rips := []netip.Addr{addr("10.9.0.2"), addr("2001:db8:9::2")}
	must(t, h.Apply(t.Context(), Desired{OnLink: rips}))
	for _, rip := range rips {
		hop := h.Routes().Lookup(packet.EndpointFrom(netip.AddrPortFrom(rip, 0)), 0)
		if hop == nil {
			t.Fatalf("no hop to %v", rip)
		}
		eventually(t, "its link address, unasked", func() bool { _, known := hop.Neighbour.Link(); return known })
	}
}

func TestNeighboursThatFailAndThatAreUnused(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	h := d.open(Options{})
	m := h.mirror
	eventually(t, "a hop", func() bool { return m.Lookup(endpoint("10.9.0.77"), 0) != nil })
	eventually(t, "that the kernel asks for it", func() bool {
		return strings.Contains(d.run("ip neigh show 10.9.0.77"), "INCOMPLETE") || strings.Contains(d.run("ip neigh show 10.9.0.77"), "FAILED")
	})
	must(t, h.Close())
	// run has ended, so its state is the test's. It may have counted a tick.
	for _, h := range m.hosts {
		h.idle = 0
	}
	for range idleTicks - 1 {
		m.age()
	}
	if m.Lookup(endpoint("10.9.0.77"), 0) == nil || len(m.neighbours) != 1 {
		t.Error("the hop was dropped before its time")
	}
	m.age()
	if m.Lookup(endpoint("10.9.0.77"), 0) != nil || len(m.neighbours) != 0 || len(m.hosts) != 0 {
		t.Errorf("an unused hop stays: %v", m.hosts)
	}
}

// TestHostsThatAreOnNoLinkAnyMore: they would take up the room of others.
func TestHostsThatAreOnNoLinkAnyMore(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	h := d.open(Options{})
	m := h.mirror
	eventually(t, "a hop", func() bool { return m.Lookup(endpoint("10.9.0.77"), 0) != nil })
	d.run("ip addr del 10.9.0.1/24 dev eth0")
	eventually(t, "that it is on no link", func() bool { return m.Lookup(endpoint("10.9.0.77"), 0) == nil })
	must(t, h.Close())
	for range idleTicks {
		m.age()
	}
	if len(m.hosts) != 0 {
		t.Errorf("they are kept for ever: %v", m.hosts)
	}
}

func TestPaths(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	h := d.open(Options{})
	defer h.Close()
	d.run("ip route add 10.3.0.0/24 via 10.9.0.2 mtu 1300")
	d.run("ip route add unreachable 10.4.0.0/24")
	d.run("ip -6 route add 2001:db8:3::/64 via 2001:db8:9::2")
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	for _, tt := range []struct {
		name   string
		rip    string
		direct bool
		want   string
	}{
		{name: "on the link", rip: "10.9.0.2", direct: true},
		{name: "on the link, IPv6", rip: "2001:db8:9::2", direct: true},
		{name: "behind a gateway", rip: "10.3.0.3"},
		{name: "behind a gateway, direct routing", rip: "10.3.0.3", direct: true,
			want: "real server 10.3.0.3: is behind the gateway 10.9.0.2, but direct routing needs it on the same link: use tun or fullnat for it, or ip route add 10.3.0.3/32 dev eth0"},
		{name: "no route", rip: "10.0.0.3", want: "no route to real server 10.0.0.3: add one with ip route add 10.0.0.3/32 via GATEWAY, or dev DEVICE"},
		{name: "no route, IPv6", rip: "2001:db8:4::3", want: "no route to real server 2001:db8:4::3: add one with ip route add 2001:db8:4::3/128 via GATEWAY, or dev DEVICE"},
		{name: "unreachable", rip: "10.4.0.3",
			want: "a route of this host refuses packets (no route to host) to real server 10.4.0.3: add one with ip route add 10.4.0.3/32 via GATEWAY, or dev DEVICE"},
		{name: "the host itself, direct routing", rip: "10.9.0.1", direct: true,
			want: "real server 10.9.0.1: is an address of this host, which direct routing cannot reach: use fullnat for it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, text(h.CheckRoute(addr(tt.rip), tt.direct))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	d.run("ip addr del fe80::1/64 dev eth0")
	if err := h.CheckRoute(addr("2001:db8:9::2"), true); err == nil || !strings.Contains(err.Error(), "ip addr add fe80::1/64 dev eth0") {
		t.Errorf("without a link-local address: %v", err)
	}
	for dst, want := range map[string]string{"10.3.0.3": "10.9.0.1", "2001:db8:3::3": "2001:db8:9::1"} {
		if src, err := h.SourceFor(addr(dst)); err != nil || src != addr(want) {
			t.Errorf("source for %s: %v, %v; want %s", dst, src, err, want)
		}
	}
	for dst, want := range map[string]int{"10.3.0.3": 1300, "10.9.0.2": 1500, "2001:db8:3::3": 1500} {
		if mtu, err := h.PathMTU(addr(dst)); err != nil || mtu != want {
			t.Errorf("path MTU to %s: %d, %v; want %d", dst, mtu, err, want)
		}
	}
	told := make(chan struct{}, 1)
	h.OnChange(func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	d.run("ip route change 10.3.0.0/24 via 10.9.0.2 mtu 1280")
	select {
	case <-told:
	case <-time.After(patience):
		t.Fatal("nobody told of the changed route")
	}
	if mtu, err := h.PathMTU(addr("10.3.0.3")); err != nil || mtu != 1280 {
		t.Errorf("path MTU %d, %v", mtu, err)
	}
}

func TestWhatOthersRemoveComesBack(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	h := d.open(Options{})
	must(t, h.Apply(t.Context(), everyKind))
	before := d.state()
	for _, c := range []string{
		"ip rule del pref 9741", "ip -6 rule del pref 9740", "ip route flush table 9740", "ip -6 route flush table 9741",
		"ip rule flush", // takes the kernel's rules of main and default too
	} {
		d.run(c)
		if c == "ip rule flush" {
			d.run("ip rule add pref 32766 lookup main protocol kernel")
			d.run("ip rule add pref 32767 lookup default protocol kernel")
		}
		eventually(t, "that all is back after "+c, func() bool { return d.state() == before })
	}
	d.run("ip link add eth1 type veth peer name eth2")
	eventually(t, "that a new device forwards", func() bool {
		return strings.TrimSpace(d.run("sysctl -n net.ipv4.conf.eth1.forwarding")) == "1"
	})
	d.run("nft flush ruleset")
	eventually(t, "our table of nftables", func() bool { return strings.Contains(d.run("nft list tables"), "uvs_uvs0") })
	d.run("ip link set uvs0 down")
	d.run("ip link set uvs0 up")
	eventually(t, "the routes of a device that was down", func() bool { return strings.Contains(d.run("ip route show table 9740"), "203.0.113.10") })
	must(t, h.Close())
}

func TestAFaultThatComesLaterIsKnownUntilItIsMended(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	h := d.open(Options{})
	must(t, h.Apply(t.Context(), everyKind))
	if err := h.Fault(); err != nil {
		t.Fatalf("nothing is wrong, and the fault is %v", err)
	}
	d.run("ip addr add 203.0.113.10/32 dev eth0")
	eventually(t, "the fault", func() bool {
		err := h.Fault()
		return err != nil && strings.Contains(err.Error(), "ip addr del 203.0.113.10/32 dev eth0")
	})
	d.run("ip addr del 203.0.113.10/32 dev eth0")
	eventually(t, "that it is mended", func() bool { return h.Fault() == nil })
	must(t, h.Close())
}

func TestANumberInUseIsRefused(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	for _, tt := range []struct{ name, do, undo, want string }{
		{"a rule of another program", "ip rule add pref 9745 lookup 7", "ip rule del pref 9745",
			`policy rule "pref 9745 lookup 7" of another program stands among the preferences 9740 to 9749 that uvs wants: set device.table to another number, or ip -4 rule del pref 9745 lookup 7`},
		{"a route of another program", "ip route add 192.0.2.0/24 via 10.9.0.2 table 9741", "ip route flush table 9741",
			"routing table 9741, which uvs wants for itself, has a route to 192.0.2.0/24 of another program: set device.table to another number"},
		{"another uvs", "ip rule add not iif eth0 pref 9740 lookup 9740 protocol 97", "ip rule del pref 9740",
			"the rule preferences 9740 to 9749 are in use by another uvs with device eth0: stop it, or run this one in a network namespace of its own"},
		{"a device that is no TUN", "ip link add uvs9 type veth peer name uvs8", "ip link del uvs9",
			"device uvs9 is not a TUN device but a veth: choose another name for uvs"},
	} {
		d.run(tt.do)
		opt := Options{}
		if strings.Contains(tt.do, "uvs9") {
			opt.Device = "uvs9"
		}
		h, err := Open(opt)
		if err == nil {
			t.Errorf("%s: accepted", tt.name)
			h.Close()
		} else if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		d.run(tt.undo)
	}
}
