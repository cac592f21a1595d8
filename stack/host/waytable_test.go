package host

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

func endpoint(s string) packet.Endpoint {
	return packet.EndpointFrom(netip.AddrPortFrom(addr(s), 0))
}

// mainRoute is a route of the table main.
func mainRoute(dst string, metric uint32, hops ...kernelHop) kernelRoute {
	return kernelRoute{dst: netip.MustParsePrefix(dst), table: unix.RT_TABLE_MAIN, kind: unix.RTN_UNICAST, metric: metric, hops: hops}
}

func via(gw string, link int) kernelHop { return kernelHop{link: link, via: addr(gw), weight: 1} }
func onLink(link int) kernelHop         { return kernelHop{link: link, weight: 1} }

func testBuilder(routes ...kernelRoute) *wayBuilder {
	known := map[neighbourKey]*stack.Neighbour{}
	b := &wayBuilder{
		devices: map[int]*device{
			2: {index: 2, name: "eth0", mac: stack.MAC{2, 0, 0, 0, 0, 2}, mtu: 1500},
			3: {index: 3, name: "eth1", mac: stack.MAC{2, 0, 0, 0, 0, 3}, mtu: 9000},
		},
		neighbour: func(k neighbourKey) *stack.Neighbour {
			if known[k] == nil {
				known[k] = stack.NewNeighbour(k.addr)
			}
			return known[k]
		},
	}
	for _, r := range routes {
		b.add(r)
	}
	return b
}

func TestWayTable(t *testing.T) {
	local := kernelRoute{dst: netip.MustParsePrefix("10.0.0.1/32"), table: unix.RT_TABLE_LOCAL, kind: unix.RTN_LOCAL, hops: []kernelHop{onLink(2)}}
	link := mainRoute("10.0.0.0/24", 0, onLink(2))
	gateway := mainRoute("0.0.0.0/0", 0, via("10.0.0.254", 2))
	with := func(r kernelRoute, change func(*kernelRoute)) kernelRoute { change(&r); return r }
	tests := []struct {
		name   string
		routes []kernelRoute
		policy bool
		hosts  []string
		dst    string
		want   string // device and neighbour; "" is the kernel
		mtu    int
		wanted bool
	}{
		{name: "a gateway", routes: []kernelRoute{link, gateway}, dst: "192.0.2.1", want: "eth0 10.0.0.254", mtu: 1500},
		{name: "the longest prefix wins", routes: []kernelRoute{link, gateway, mainRoute("192.0.2.0/24", 0, via("10.1.0.9", 3))},
			dst: "192.0.2.1", want: "eth1 10.1.0.9", mtu: 9000},
		{name: "the lowest metric wins, listed first", routes: []kernelRoute{gateway, mainRoute("0.0.0.0/0", 100, via("10.1.0.9", 3))},
			dst: "192.0.2.1", want: "eth0 10.0.0.254", mtu: 1500},
		{name: "the lowest metric wins, listed last", routes: []kernelRoute{mainRoute("0.0.0.0/0", 100, via("10.1.0.9", 3)), gateway},
			dst: "192.0.2.1", want: "eth0 10.0.0.254", mtu: 1500},
		{name: "a dead hop leaves the next metric", routes: []kernelRoute{mainRoute("0.0.0.0/0", 100, via("10.1.0.9", 3)),
			with(gateway, func(r *kernelRoute) { r.hops = []kernelHop{{link: 2, via: addr("10.0.0.254"), dead: true}} })},
			dst: "192.0.2.1", want: "eth1 10.1.0.9", mtu: 9000},
		{name: "a hop without carrier is the kernel's", routes: []kernelRoute{mainRoute("0.0.0.0/0", 100, via("10.1.0.9", 3)),
			with(gateway, func(r *kernelRoute) { r.hops = []kernelHop{{link: 2, via: addr("10.0.0.254"), dark: true}} })}, dst: "192.0.2.1"},
		{name: "two routes that differ in preference only are the kernel's",
			routes: []kernelRoute{mainRoute("::/0", 1024, via("fe80::1", 2)), mainRoute("::/0", 1024, via("fe80::2", 2))}, dst: "2001:db8::1"},
		{name: "a route for one type of service is the kernel's",
			routes: []kernelRoute{gateway, with(gateway, func(r *kernelRoute) { r.tos = 8; r.hops = []kernelHop{via("10.0.0.9", 2)} })}, dst: "192.0.2.1"},
		{name: "the route's MTU counts", routes: []kernelRoute{with(gateway, func(r *kernelRoute) { r.mtu = 1400 })},
			dst: "192.0.2.1", want: "eth0 10.0.0.254", mtu: 1400},
		{name: "a route's MTU above the device's does not", routes: []kernelRoute{with(gateway, func(r *kernelRoute) { r.mtu = 9000 })},
			dst: "192.0.2.1", want: "eth0 10.0.0.254", mtu: 1500},
		{name: "an IPv4 route by way of an IPv6 gateway", routes: []kernelRoute{mainRoute("0.0.0.0/0", 0, via("fe80::1", 2))},
			dst: "192.0.2.1", want: "eth0 fe80::1", mtu: 1500},
		{name: "no route", routes: []kernelRoute{link}, dst: "192.0.2.1"},
		{name: "an address of the host", routes: []kernelRoute{link, local}, dst: "10.0.0.1", hosts: []string{"10.0.0.1"}},
		{name: "a blackhole", routes: []kernelRoute{gateway, with(mainRoute("192.0.2.0/24", 0, onLink(0)), func(r *kernelRoute) { r.kind = unix.RTN_BLACKHOLE })},
			dst: "192.0.2.1"},
		{name: "an encapsulation", routes: []kernelRoute{with(gateway, func(r *kernelRoute) { r.odd = true })}, dst: "192.0.2.1"},
		{name: "a device that is not Ethernet", routes: []kernelRoute{mainRoute("0.0.0.0/0", 0, onLink(9))}, dst: "192.0.2.1"},
		{name: "a host on the link without a hop wants one", routes: []kernelRoute{link}, dst: "10.0.0.7", wanted: true},
		{name: "a host on the link with a hop", routes: []kernelRoute{link}, dst: "10.0.0.7", hosts: []string{"10.0.0.7"}, want: "eth0 10.0.0.7", mtu: 1500},
		{name: "policy rules of others leave all to the kernel", routes: []kernelRoute{link, gateway}, policy: true, dst: "192.0.2.1"},
		{name: "policy rules of others leave hosts on the link", routes: []kernelRoute{link, gateway}, policy: true,
			dst: "10.0.0.7", hosts: []string{"10.0.0.7"}, want: "eth0 10.0.0.7", mtu: 1500},
		{name: "IPv6", routes: []kernelRoute{mainRoute("2001:db8:1::/64", 256, via("fe80::1", 3))}, dst: "2001:db8:1::5", want: "eth1 fe80::1", mtu: 9000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := testBuilder(tt.routes...)
			b.policy = tt.policy
			var hosts []netip.Addr
			for _, s := range tt.hosts {
				hosts = append(hosts, addr(s))
			}
			hop, wanted := b.build(hosts).lookup(endpoint(tt.dst), 1)
			got, mtu := "", 0
			if hop != nil {
				got, mtu = hop.Device+" "+hop.Neighbour.Addr().String(), hop.MTU
			}
			if got != tt.want || mtu != tt.mtu || wanted != tt.wanted {
				t.Errorf("hop %q, MTU %d, wanted %v; want %q, %d, %v", got, mtu, wanted, tt.want, tt.mtu, tt.wanted)
			}
		})
	}
}

func TestMultipathSpreadsFlowsByWeight(t *testing.T) {
	heavy := via("10.0.0.2", 2)
	heavy.weight = 3
	table := testBuilder(mainRoute("0.0.0.0/0", 0, via("10.0.0.1", 2), heavy)).build(nil)
	count := map[netip.Addr]int{}
	const flows = 40000
	for port := range uint32(flows) {
		hop, _ := table.lookup(endpoint("192.0.2.1"), port<<16|80)
		count[hop.Neighbour.Addr()]++
	}
	if light := count[addr("10.0.0.1")]; light < flows/4*9/10 || light > flows/4*11/10 {
		t.Errorf("spread %v, want 1 to 3", count)
	}
}

func TestTooManyRoutesLeaveTheLinks(t *testing.T) {
	b := testBuilder()
	for i := range uint32(maxMirrored + 1) {
		a := netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
		b.add(mainRoute(netip.PrefixFrom(a, 32).String(), 0, via("10.0.0.254", 2)))
	}
	b.add(mainRoute("10.0.0.0/24", 0, onLink(2)))
	table := b.build([]netip.Addr{addr("10.0.0.7")})
	if hop, _ := table.lookup(endpoint("20.0.0.1"), 0); hop != nil {
		t.Error("a table that is too large is used in part")
	}
	if hop, _ := table.lookup(endpoint("10.0.0.7"), 0); hop == nil {
		t.Error("a host on the link has no hop")
	}
}

func TestLookupNoAllocs(t *testing.T) {
	m := &mirror{wants: make(chan netip.Addr)}
	m.ways.Store(testBuilder(mainRoute("0.0.0.0/0", 0, via("10.0.0.254", 2)), mainRoute("10.0.0.0/24", 0, onLink(2))).build([]netip.Addr{addr("10.0.0.7")}))
	for _, dst := range []string{"192.0.2.1", "10.0.0.7", "10.0.0.8", "2001:db8::1"} {
		e := endpoint(dst)
		if n := testing.AllocsPerRun(100, func() { m.Lookup(e, 7) }); n != 0 {
			t.Errorf("lookup of %s allocates %v times", dst, n)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	wb := testBuilder(mainRoute("0.0.0.0/0", 0, via("10.0.0.254", 2)), mainRoute("10.0.0.0/24", 0, onLink(2)))
	for i := range 1000 {
		wb.add(mainRoute(netip.PrefixFrom(netip.AddrFrom4([4]byte{30, byte(i >> 8), byte(i), 0}), 24).String(), 0, via("10.0.0.9", 2)))
	}
	m := &mirror{wants: make(chan netip.Addr)}
	m.ways.Store(wb.build([]netip.Addr{addr("10.0.0.7")}))
	for _, tt := range []struct{ name, dst string }{{"gateway", "192.0.2.1"}, {"host on the link", "10.0.0.7"}} {
		b.Run(tt.name, func(b *testing.B) {
			e := endpoint(tt.dst)
			b.ReportAllocs()
			for b.Loop() {
				m.Lookup(e, 7)
			}
		})
	}
}
