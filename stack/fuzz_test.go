package stack

import (
	"net/netip"
	"testing"
	"time"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// FuzzRoad carries bytes from outside along every way that a packet can take.
// Whatever they are, every loop goes on.
func FuzzRoad(f *testing.F) {
	encap := packet.Encap{Kind: packet.GUE, Family: packet.IPv4, Port: 6080}
	encap.Src, _ = packet.AddrFrom(netip.MustParseAddr("192.0.2.11"))
	encap.Dst, _ = packet.AddrFrom(netip.MustParseAddr("10.0.0.1"))
	handlers := []Handler{
		dnat("10.0.0.1:8080"),
		rewrite(packet.Rewrite{Encap: encap}),
		rewrite(packet.Rewrite{NextHop: parseEndpoint("10.0.0.1:0")}),
		verdict(packet.Pass),
		verdict(packet.Return),
		verdict(packet.Drop),
	}
	ip := [][]byte{
		packettest.TCP("192.0.2.1:1234", "203.0.113.10:80", packettest.SYN),
		packettest.UDP("[2001:db8::1]:1234", "[2001:db8:a::10]:53", packettest.Data("question")),
		packettest.Echo("192.0.2.1", "203.0.113.10", packettest.Data("ping")),
		packettest.Error("192.0.2.7", "203.0.113.10", 3, 1, 0, packettest.TCP("203.0.113.10:80", "192.0.2.1:1234")),
		packettest.UDP("[2001:db8::1]:1234", "[2001:db8:a::10]:53", packettest.DestinationOptions, packettest.Pad(40)),
	}
	ip = append(ip, packettest.Fragments(packettest.UDP("192.0.2.1:1234", "203.0.113.10:53", packettest.Pad(64)), 32)...)
	for i := range handlers {
		for _, b := range ip {
			f.Add(byte(i), packettest.Plain(b))
		}
		f.Add(byte(i), packettest.Super(packettest.TCP("192.0.2.1:1234", "203.0.113.10:80", packettest.Pad(3000)), 1000))
		f.Add(byte(i), packettest.Super(packettest.UDP("192.0.2.1:1234", "203.0.113.10:99", packettest.Pad(3000)), 1000))
	}

	n, err := newNetstack([]Queue{&loopback{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(n.close)
	if err := n.setVIPs(testVIPs); err != nil {
		f.Fatal(err)
	}
	known := NewNeighbour(netip.Addr{})
	known.Set(MAC{2, 0, 0, 0, 0, 1})
	routes := &mapRoutes{hops: map[string]*Hop{"10.0.0.1": {MTU: 1500, Neighbour: known}}}
	road := &Road{fragments: newFragments(), netstack: n}
	var loops []*loop
	for _, h := range handlers {
		l := newLoop(&loopback{}, h, road, Options{Routes: routes})
		l.egress.link = &sender{batch: newFrameBatch(&linkSocket{fd: -1}), tally: &l.tally, count: &l.count}
		loops = append(loops, l)
	}
	var now time.Duration
	f.Fuzz(func(_ *testing.T, which byte, b []byte) {
		if len(b) < packet.VNetLen {
			return // the kernel never gives less
		}
		l := loops[int(which)%len(loops)]
		buf := make([]byte, packet.Headroom-packet.VNetLen+len(b))
		copy(buf[packet.Headroom-packet.VNetLen:], b)
		p := &l.packets[0]
		p.Reset(buf, packet.Headroom, len(buf))
		now += time.Millisecond
		if l.accept(p) {
			l.carry(l.packets[:1], now)
		}
		l.egress.flush()
		l.count.publish(&l.tally)
	})
}
