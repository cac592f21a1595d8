package packet_test

import (
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

// road is what a queue does with a packet, but for the lookup.
type road struct {
	name string
	in   []byte // behind a virtio-net header
	r    packet.Rewrite
}

func roads() []road {
	syn4, syn6 := pt.TCP(client4, vip4, pt.Pad(64)), pt.TCP(client6, vip6, pt.Pad(64))
	return []road{
		{"dr/ipv4", pt.Plain(syn4), dr(rs4)},
		{"dr/ipv6", pt.Plain(syn6), dr(rs6)},
		{"nat/ipv4", pt.Plain(syn4), natRequest(rs4)},
		{"nat/ipv6", pt.Plain(syn6), natRequest(rs6)},
		{"nat/ipv4 udp", pt.Plain(pt.UDP(client4, vip4, pt.Pad(64))), natRequest(rs4)},
		{"nat/ipv4 super", pt.Super(pt.TCP(client4, vip4, pt.Pad(60000)), 1448), natRequest(rs4)},
		{"nat/ipv4 icmp error", pt.Plain(pt.Error("192.0.2.254", host(vip4), 3, 4, 1400, pt.TCP(vip4, client4))), natRequest(rs4)},
		{"fullnat/ipv4", pt.Plain(syn4), fullnat(lip4, rs4)},
		{"fullnat/ipv6", pt.Plain(syn6), fullnat(lip6, rs6)},
		{"tun/ipip ipv4", pt.Plain(syn4), tunnel(packet.IPIP, dip4, rs4, false)},
		{"tun/ipip ipv6", pt.Plain(syn6), tunnel(packet.IPIP, dip6, rs6, false)},
		{"tun/gue ipv4", pt.Plain(syn4), tunnel(packet.GUE, dip4, rs4, true)},
		{"tun/gre ipv6", pt.Plain(syn6), tunnel(packet.GRE, dip6, rs6, true)},
	}
}

// borderRoads replace the IP header by one of the other family.
func borderRoads() []road {
	return []road{
		{"fullnat/ipv4 to ipv6", pt.Plain(pt.TCP(client4, vip4, pt.Pad(64))), fullnat(lip6, rs6)},
		{"fullnat/ipv6 to ipv4", pt.Plain(pt.UDP(client6, vip6, pt.Pad(64))), fullnat(lip4, rs4)},
		{"fullnat/ipv4 icmp error to ipv6", pt.Plain(pt.Error("192.0.2.254", host(vip4), 3, 4, 1400, pt.TCP(vip4, client4))), fullnat(lip6, rs6)},
	}
}

// reload makes p the packet in b again, without parsing it.
func reload(p *packet.Packet, buf, b []byte) {
	copy(buf[packet.Headroom-packet.VNetLen:], b[:min(len(b), 256)])
	p.Reset(buf, packet.Headroom, packet.Headroom+len(b)-packet.VNetLen)
	p.ReadVNet(buf[packet.Headroom-packet.VNetLen:])
}

func TestNoAllocs(t *testing.T) {
	for _, rd := range append(roads(), borderRoads()...) {
		t.Run(rd.name, func(t *testing.T) {
			buf := make([]byte, packet.Headroom+packet.MaxSize)
			copy(buf[packet.Headroom-packet.VNetLen:], rd.in)
			var p packet.Packet
			n := testing.AllocsPerRun(100, func() {
				reload(&p, buf, rd.in)
				if why := p.Parse(); why != packet.OK {
					t.Fatal(why)
				}
				if why := rd.r.Apply(&p); why != packet.OK {
					t.Fatal(why)
				}
			})
			if n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// BenchmarkParse is the cost of taking in a packet: Reset, ReadVNet, Parse.
func BenchmarkParse(b *testing.B) {
	for _, rd := range roads() {
		b.Run(rd.name, func(b *testing.B) {
			buf := make([]byte, packet.Headroom+packet.MaxSize)
			copy(buf[packet.Headroom-packet.VNetLen:], rd.in)
			var p packet.Packet
			for b.Loop() {
				p.Reset(buf, packet.Headroom, packet.Headroom+len(rd.in)-packet.VNetLen)
				p.ReadVNet(buf[packet.Headroom-packet.VNetLen:])
				if p.Parse() != packet.OK {
					b.Fatal("parse")
				}
			}
		})
	}
}

// BenchmarkApply is the cost of a rewrite. The packet is rewritten again and
// again to the same endpoints, which costs what the first time costs; an outer
// header is pushed again and again in front of the same packet.
func BenchmarkApply(b *testing.B) {
	for _, rd := range roads() {
		b.Run(rd.name, func(b *testing.B) {
			buf := make([]byte, packet.Headroom+packet.MaxSize)
			copy(buf[packet.Headroom-packet.VNetLen:], rd.in)
			var p packet.Packet
			reload(&p, buf, rd.in)
			if p.Parse() != packet.OK {
				b.Fatal("parse")
			}
			start := p
			for b.Loop() {
				p = start
				if rd.r.Apply(&p) != packet.OK {
					b.Fatal("apply")
				}
			}
		})
	}
}
