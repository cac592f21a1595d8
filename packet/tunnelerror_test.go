package packet_test

import (
	"bytes"
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

func TestTunnelError(t *testing.T) {
	router4, router6 := "10.0.0.1", "2001:db8:b::1"
	seg4, seg6 := pt.TCP(client4, vip4, pt.Pad(100), pt.DF, pt.TTL(9)), pt.UDP(client6, vip6, pt.Pad(100), pt.HopByHop)
	gue := func(proto byte, in []byte) string { return "\x00" + string(proto) + "\x00\x00" + string(in) }
	gre := func(ether byte, in []byte) []byte { return append([]byte{0, 0, 8, ether}, in...) }
	gre6 := func(in []byte) []byte { return append([]byte{0x80, 0, 0x86, 0xdd, 1, 2, 0, 0}, in...) }
	c0 := pt.TOS(0xc0)
	ip4 := func(proto byte, in []byte) []byte { return pt.IP(host(dip4), host(rs4), proto, in) }
	ip6 := func(proto byte, in []byte) []byte { return pt.IP(host(dip6), host(rs6), proto, in) }
	tooBig4 := func(b []byte) []byte { return pt.Error(router4, host(dip4), 3, 4, 1300, b) }
	tooBig6 := func(b []byte) []byte { return pt.Error(router6, host(dip6), 2, 0, 1400, b) }
	tests := []struct {
		name string
		in   []byte
		kind packet.EncapKind // NoEncap: no error about a tunnel packet
		port uint16
		told int
		want []byte // for the client, told 1234 bytes; nil: nothing
	}{
		{name: "ipip: too big, with what is left of the packet", in: tooBig4(ip4(4, seg4)[:20+60]), kind: packet.IPIP, told: 1300,
			want: pt.Error(host(vip4), host(client4), 3, 4, 1234, seg4[:60], c0)},
		{name: "ipip: too big without a number is guessed from the length", in: pt.Error(router4, host(dip4), 3, 4, 0, ip4(4, seg4)), kind: packet.IPIP, told: 68,
			want: pt.Error(host(vip4), host(client4), 3, 4, 1234, seg4, c0)},
		{name: "ipip: another error keeps type and code", in: pt.Error(router4, host(dip4), 11, 0, 0, ip4(4, seg4)[:20+24]), kind: packet.IPIP,
			want: pt.Error(host(vip4), host(client4), 11, 0, 0, seg4[:24], c0)},
		{name: "ipip: IPv6 in IPv4", in: tooBig4(ip4(41, seg6)), kind: packet.IPIP, told: 1300, want: pt.Error(host(vip6), host(client6), 2, 0, 1234, seg6)},
		{name: "ipip: IPv6 in IPv4, no way to the real server", in: pt.Error(router4, host(dip4), 3, 1, 0, ip4(41, seg6)), kind: packet.IPIP,
			want: pt.Error(host(vip6), host(client6), 1, 3, 0, seg6)},
		{name: "ipip: IPv6", in: tooBig6(ip6(41, seg6)), kind: packet.IPIP, told: 1400, want: pt.Error(host(vip6), host(client6), 2, 0, 1234, seg6)},
		{name: "ipip: IPv4 in IPv6", in: tooBig6(ip6(4, seg4)), kind: packet.IPIP, told: 1400, want: pt.Error(host(vip4), host(client4), 3, 4, 1234, seg4, c0)},
		{name: "ipip: IPv4 in IPv6, hop limit", in: pt.Error(router6, host(dip6), 3, 0, 0, ip6(4, seg4)), kind: packet.IPIP,
			want: pt.Error(host(vip4), host(client4), 3, 1, 0, seg4, c0)},
		{name: "gue", in: tooBig4(pt.UDP(host(dip4)+":50000", host(rs4)+":6080", pt.Data(gue(4, seg4)))), kind: packet.GUE, port: 6080, told: 1300,
			want: pt.Error(host(vip4), host(client4), 3, 4, 1234, seg4, c0)},
		{name: "gue over IPv6", in: tooBig6(pt.UDP("["+host(dip6)+"]:50000", "["+host(rs6)+"]:6080", pt.Data(gue(41, seg6)))), kind: packet.GUE, port: 6080, told: 1400,
			want: pt.Error(host(vip6), host(client6), 2, 0, 1234, seg6)},
		{name: "gre", in: tooBig4(ip4(47, gre(0, seg4))), kind: packet.GRE, told: 1300, want: pt.Error(host(vip4), host(client4), 3, 4, 1234, seg4, c0)},
		{name: "gre with a checksum", in: tooBig6(ip6(47, gre6(seg6))), kind: packet.GRE, told: 1400, want: pt.Error(host(vip6), host(client6), 2, 0, 1234, seg6)},
		{name: "the error to an IPv4 client has at most 576 bytes", in: tooBig4(ip4(4, pt.UDP(client4, vip4, pt.Pad(1000), pt.DF))), kind: packet.IPIP, told: 1300,
			want: pt.Error(host(vip4), host(client4), 3, 4, 1234, pt.UDP(client4, vip4, pt.Pad(1000), pt.DF)[:548], c0)},

		{name: "a client that lets its packets be fragmented is not told", in: tooBig4(ip4(4, pt.UDP(client4, vip4, pt.Pad(100)))), kind: packet.IPIP, told: 1300},
		{name: "a wrong checksum is told to nobody", in: pt.Error(router4, host(dip4), 3, 4, 1300, ip4(4, seg4), pt.WrongSum), kind: packet.IPIP, told: 1300},
		{name: "a client that is no single host is not told", in: tooBig4(ip4(4, pt.TCP("224.0.0.1:1", vip4, pt.DF))), kind: packet.IPIP, told: 1300},
		{name: "8 bytes of the packet inside are too few", in: tooBig4(ip4(4, seg4)[:28])},
		{name: "the ports are needed", in: tooBig4(ip4(4, seg4)[:43])},
		{name: "a later fragment of the outer packet", in: tooBig4(pt.Fragments(ip4(4, seg4), 64)[1])},
		{name: "a later fragment inside", in: tooBig4(ip4(4, pt.Fragments(seg4, 64)[1]))},
		{name: "gre with a key", in: tooBig4(ip4(47, append([]byte{0x20, 0, 8, 0, 0, 0, 0, 0}, seg4...)))},
		{name: "gre without a packet", in: tooBig4(ip4(47, []byte{0, 0, 8}))},
		{name: "gue with control bit", in: tooBig4(pt.UDP(host(dip4)+":50000", host(rs4)+":6080", pt.Data("\x20\x04\x00\x00"+string(seg4))))},
		{name: "ping in a tunnel", in: tooBig4(ip4(4, pt.Echo(host(client4), host(vip4))))},
		{name: "about TCP itself", in: tooBig4(seg4)},
		{name: "a redirect", in: pt.Error(router4, host(dip4), 5, 0, 0, ip4(4, seg4))},
		{name: "no ICMP", in: ip4(4, seg4)},
		{name: "a fragment", in: pt.Fragments(tooBig4(ip4(4, seg4)), 96)[0]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.Parsed(t, tt.in)
			before := bytes.Clone(p.Bytes())
			e, ok := p.ReadTunnelError()
			if ok != (tt.kind != packet.NoEncap) {
				t.Fatalf("read: %v", ok)
			}
			if !ok {
				return
			}
			if e.Encap.Kind != tt.kind || e.Encap.Port != tt.port || e.MTU != tt.told {
				t.Errorf("kind %d, port %d, MTU %d; want %d, %d, %d", e.Encap.Kind, e.Encap.Port, e.MTU, tt.kind, tt.port, tt.told)
			}
			if dst := e.Encap.Dst; dst != addr(rs4) && dst != addr(rs6) || e.Encap.Src != addr(dip4) && e.Encap.Src != addr(dip6) {
				t.Errorf("from %v to %v", e.Encap.Src, dst)
			}
			if got := p.ReplyTunnelError(&e, 1234); got != (tt.want != nil) {
				t.Fatalf("answers: %v", got)
			}
			if tt.want == nil {
				diff(t, p.Bytes(), before)
				return
			}
			if p.Tuple.Family == packet.IPv4 {
				tt.want = withID(tt.want, p.Bytes())
			}
			diff(t, p.Bytes(), tt.want)
			if !p.IsICMPError() || p.Tuple != e.Tuple.Reverse() {
				t.Errorf("parsed anew: %+v", p.Tuple)
			}
		})
	}
}
