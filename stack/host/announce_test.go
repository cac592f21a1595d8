package host

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/uvs-project/uvs/stack"
)

func TestProxies(t *testing.T) {
	lans := []lan{
		{device: device{index: 2, name: "eth0"}, subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("2001:db8::/64")}},
		{device: device{index: 3, name: "eth1"}, subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}},
	}
	vips := []netip.Addr{addr("10.0.0.100"), addr("10.1.0.100"), addr("203.0.113.10"), addr("2001:db8::100")}
	tests := []struct {
		name string
		d    Desired
		want []string
		err  string
	}{
		{name: "nothing is announced unasked", d: Desired{VIPs: vips}},
		{name: "each address on the link whose subnet it is in", d: Desired{VIPs: vips, LAN: LAN{Announce: true}},
			want: []string{"2 10.0.0.100", "2 2001:db8::100", "3 10.1.0.100"}},
		{name: "all but the silent ones", d: Desired{VIPs: vips, LAN: LAN{Announce: true, Silent: vips[:2]}},
			want: []string{"2 2001:db8::100"}},
		{name: "every address on a named device", d: Desired{VIPs: vips, LAN: LAN{Announce: true, Interfaces: []string{"eth1"}}},
			want: []string{"3 10.0.0.100", "3 10.1.0.100", "3 203.0.113.10", "3 2001:db8::100"}},
		{name: "a named device that is not there", d: Desired{VIPs: vips, LAN: LAN{Announce: true, Interfaces: []string{"eth7"}}},
			err: "announce on eth7: there is no Ethernet device of that name that is up: ip link set eth7 up"},
		{name: "the addresses of a pool one by one", d: Desired{LIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.8/30")}, LAN: LAN{Announce: true}},
			want: []string{"2 10.0.0.8", "2 10.0.0.9", "2 10.0.0.10", "2 10.0.0.11"}},
		{name: "a large pool that is not on a link", d: Desired{LIPs: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/16")}, LAN: LAN{Announce: true}}},
		{name: "a large pool on a link", d: Desired{LIPs: []netip.Prefix{netip.MustParsePrefix("2001:db8::8:0/112")}, LAN: LAN{Announce: true}},
			err: "fullnat pool 2001:db8::8:0/112: too large to be announced address by address on a LAN: route it to this host, or choose one of at most 4096 addresses"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := tt.d.normalised()
			ps, err := d.proxies(lans)
			var got []string
			for _, p := range ps {
				got = append(got, fmt.Sprint(p.link, " ", p.addr))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
				t.Errorf("error %v, want %s", err, tt.err)
			}
		})
	}
}

// TestProxiesAreBounded: what counts is what goes on a LAN, not how many VIPs
// there are.
func TestProxiesAreBounded(t *testing.T) {
	lans := []lan{{device: device{index: 2, name: "eth0"}, subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}}
	many := func(from netip.Addr, n int) (all []netip.Addr) {
		for range n {
			all = append(all, from)
			from = from.Next()
		}
		return all
	}
	tests := []struct {
		name string
		vips []netip.Addr
		want int
		err  string
	}{
		{"many that are routed here, one on the LAN", append(many(addr("203.0.0.0"), 10_000), addr("10.0.0.1")), 1, ""},
		{"as many on the LAN as can be", many(addr("10.0.0.0"), 4096), 4096, ""},
		{"one more", many(addr("10.0.0.0"), 4097), 4096,
			"4097 addresses are too many to be announced on a LAN, which 4096 at most can be: route them to this host and set lan.announce to off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Desired{VIPs: tt.vips, LAN: LAN{Announce: true}}
			ps, err := d.proxies(lans)
			if len(ps) != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
				t.Errorf("%d, %v; want %d, %q", len(ps), err, tt.want, tt.err)
			}
		})
	}
}

func TestAnnouncementFrames(t *testing.T) {
	mac := stack.MAC{2, 0, 0, 0, 0, 9}
	arp := gopacket.NewPacket(announcement{proxy{2, addr("10.0.0.100")}, mac}.frame(), layers.LayerTypeEthernet, gopacket.Default)
	a, ok := arp.Layer(layers.LayerTypeARP).(*layers.ARP)
	if !ok || arp.LinkLayer().LinkFlow().String() != "02:00:00:00:00:09->ff:ff:ff:ff:ff:ff" {
		t.Fatalf("no ARP broadcast: %v", arp)
	}
	if a.Operation != layers.ARPRequest || netip.AddrFrom4([4]byte(a.SourceProtAddress)) != addr("10.0.0.100") ||
		netip.AddrFrom4([4]byte(a.DstProtAddress)) != addr("10.0.0.100") || stack.MAC(a.SourceHwAddress) != mac {
		t.Errorf("ARP %+v", a)
	}

	frame := announcement{proxy{2, addr("2001:db8::100")}, mac}.frame()
	nd := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{})
	ip, _ := nd.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	na, ok := nd.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if !ok || ip.HopLimit != 255 || ip.DstIP.String() != "ff02::1" || nd.LinkLayer().LinkFlow().Dst().String() != "33:33:00:00:00:01" {
		t.Fatalf("no neighbour advertisement to all nodes: %v", nd)
	}
	if na.Flags != 0x20 || na.TargetAddress.String() != "2001:db8::100" || len(na.Options) != 1 || stack.MAC(na.Options[0].Data) != mac {
		t.Errorf("neighbour advertisement %+v", na)
	}
	icmp := nd.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	want := icmp.Checksum
	must(t, icmp.SetNetworkLayerForChecksum(ip))
	buf := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, icmp, gopacket.Payload(icmp.LayerPayload())))
	if got := uint16(buf.Bytes()[2])<<8 | uint16(buf.Bytes()[3]); got != want {
		t.Errorf("checksum %#x, want %#x", want, got)
	}
}

func TestAnnouncementsAreSentThreeTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAnnouncer(nil)
		start := time.Now()
		var got []string
		ctx, done := t.Context(), make(chan struct{})
		go func() {
			defer close(done)
			a.run(ctx, func(n announcement) error {
				got = append(got, fmt.Sprint(n.addr, " ", time.Since(start)))
				return nil
			})
		}()
		t.Cleanup(func() { <-done })
		a.announce([]announcement{{proxy: proxy{2, addr("10.0.0.1")}}})
		time.Sleep(1500 * time.Millisecond)
		a.announce([]announcement{{proxy: proxy{2, addr("10.0.0.2")}}})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		want := []string{"10.0.0.1 0s", "10.0.0.1 1s", "10.0.0.2 1.5s", "10.0.0.1 2s", "10.0.0.2 2s", "10.0.0.2 3s"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestHostsOnTheLANFindTheVIPs(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	// The VIPs were at another director until now.
	d.runPeer("ip neigh add 10.9.0.100 lladdr 02:00:00:00:00:99 dev eth0 nud stale")
	d.runPeer("ip neigh add 2001:db8:9::100 lladdr 02:00:00:00:00:99 dev eth0 nud stale")
	h := d.open(Options{})
	must(t, h.Apply(t.Context(), everyKind))
	link, err := h.nl.LinkByName("eth0")
	must(t, err)
	mac := func() string { return link.Attrs().HardwareAddr.String() }
	for _, vip := range []string{"10.9.0.100", "2001:db8:9::100"} {
		eventually(t, "that the peer has heard where "+vip+" is now", func() bool {
			return strings.Contains(d.runPeer("ip neigh show "+vip), mac())
		})
	}

	// One that never heard of them asks, and is answered at once.
	d.runPeer("ip neigh flush all")
	for _, family := range []string{"ipv4", "ipv6"} {
		if delay := strings.TrimSpace(d.run("sysctl -n net." + family + ".neigh.eth0.proxy_delay")); delay != "0" {
			t.Errorf("answers over %s wait for up to %s hundredths of a second", family, delay)
		}
	}
	must(t, d.tun.SetReadDeadline(time.Now().Add(patience)))
	for _, vip := range []string{"10.9.0.100", "2001:db8:9::100"} {
		start := time.Now()
		d.send("", netip.AddrPortFrom(addr(vip), 80).String(), 10)
		d.receive(addr(vip))
		t.Logf("the answer for %s took %v", vip, time.Since(start))
	}

	// A device whose address changes is announced anew.
	d.run("ip link set eth0 address 02:00:00:00:00:77")
	for _, vip := range []string{"10.9.0.100", "2001:db8:9::100"} {
		eventually(t, "that the peer has heard of the new address", func() bool {
			return strings.Contains(d.runPeer("ip neigh show "+vip), "02:00:00:00:00:77")
		})
	}
	// What goes down loses its entries, and gets them back.
	d.run("ip link set eth0 down")
	d.run("ip link set eth0 up")
	eventually(t, "the proxy entry again", func() bool { return strings.Contains(d.run("ip neigh show proxy"), "10.9.0.100") })
	must(t, h.Close())
}

func TestNobodyAnswersForASilentVIP(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		d.runPeer("sysctl -qw net." + family + ".neigh.eth0.mcast_solicit=1") // one question, one second
	}
	h := d.open(Options{})
	vips := []string{"10.9.0.100", "2001:db8:9::100"}
	must(t, h.Silence([]netip.Addr{addr(vips[1]), addr(vips[0])}))
	must(t, h.Apply(t.Context(), everyKind))
	settings := d.run("sysctl -n net.ipv4.neigh.eth0.proxy_delay net.ipv6.conf.eth0.proxy_ndp")
	neighbour := func(vip string) string { return d.runPeer("ip neigh show " + vip) }
	mac := func() string {
		link, err := h.nl.LinkByName("eth0")
		must(t, err)
		return link.Attrs().HardwareAddr.String()
	}()
	for round := range 2 {
		for _, vip := range vips {
			d.send("", netip.AddrPortFrom(addr(vip), 80).String(), 10)
			eventually(t, vip+" not to be found", func() bool { return strings.Contains(neighbour(vip), "FAILED") })
			d.runPeer("ip neigh replace " + vip + " lladdr 02:00:00:00:00:99 dev eth0 nud stale") // another director has it
		}
		must(t, h.Silence(nil))
		for _, vip := range vips {
			eventually(t, "that the peer has heard where "+vip+" is now", func() bool { return strings.Contains(neighbour(vip), mac) })
		}
		if round == 0 {
			must(t, h.Silence([]netip.Addr{addr(vips[0]), addr(vips[1])}))
			h.repair() // does not bring them back
			d.runPeer("ip neigh flush all")
		}
	}
	if got := d.run("sysctl -n net.ipv4.neigh.eth0.proxy_delay net.ipv6.conf.eth0.proxy_ndp"); got != settings || got != "0\n1\n" {
		t.Errorf("settings %q, %q while nothing was announced", got, settings)
	}
	must(t, h.Close())
}
