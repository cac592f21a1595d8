package packet_test

import (
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

func TestAdoptUnfinished(t *testing.T) {
	const mtu = 1480
	bare := func(b []byte) []byte { return b[packet.VNetLen:] }
	short4, long4 := pt.TCP(client4, vip4, pt.Pad(500)), pt.TCP(client4, vip4, pt.Pad(9000))
	short6, long6 := pt.TCP(client6, vip6, pt.Pad(500)), pt.TCP(client6, vip6, pt.Pad(9000))
	tests := []struct {
		name string
		in   []byte
		want []byte // with its virtio-net header; nil: not unfinished
	}{
		{name: "a whole packet", in: short4},
		{name: "a packet with a wrong checksum", in: pt.TCP(client4, vip4, pt.Pad(500), pt.WrongSum)},
		{name: "UDP without a checksum", in: pt.UDP(client4, vip4, pt.NoSum)},
		{name: "ICMP", in: pt.Echo("192.0.2.1", "203.0.113.10")},
		{name: "TCP over IPv4", in: bare(pt.Partial(short4)), want: pt.Partial(short4)},
		{name: "TCP over IPv6", in: bare(pt.Partial(short6)), want: pt.Partial(short6)},
		{name: "UDP", in: bare(pt.Partial(pt.UDP(client6, vip6, pt.Pad(500)))), want: pt.Partial(pt.UDP(client6, vip6, pt.Pad(500)))},
		{name: "merged TCP over IPv4", in: bare(pt.Super(long4, mtu-40)), want: pt.Super(long4, mtu-40)},
		{name: "merged TCP over IPv6", in: bare(pt.Super(long6, mtu-60)), want: pt.Super(long6, mtu-60)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.Parsed(t, tt.in)
			if got := p.AdoptUnfinished(mtu); got != (tt.want != nil) {
				t.Fatalf("unfinished: %v", got)
			}
			if tt.want == nil {
				tt.want = pt.Plain(tt.in)
			}
			diff(t, pt.VNetBytes(p)[packet.VNetLen:], tt.want[packet.VNetLen:])
			if want := pt.ParsedVNet(t, tt.want).VNet; p.VNet != want {
				t.Errorf("VNet %+v, want %+v", p.VNet, want)
			}
		})
	}
}
