package packet_test

import (
	"bytes"
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

// split gives the packets that p stands for.
func split(t testing.TB, p *packet.Packet) [][]byte {
	t.Helper()
	var s packet.Splitter
	if why := s.Start(p); why != packet.OK {
		t.Fatal(why)
	}
	var dst packet.Packet
	buf := make([]byte, packet.Headroom+p.SegmentLen())
	dst.Reset(buf, 0, 0)
	var parts [][]byte
	for s.Next(&dst) {
		parts = append(parts, bytes.Clone(dst.Bytes()))
	}
	if s.Next(&dst) {
		t.Error("a packet after the last")
	}
	return parts
}

func TestSplit(t *testing.T) {
	const all = packet.FIN | packet.PSH | packet.ACK | packet.CWR | packet.ECE
	mid, first, last := pt.Flags(packet.ACK|packet.ECE), pt.Flags(packet.ACK|packet.CWR|packet.ECE), pt.Flags(packet.FIN|packet.PSH|packet.ACK|packet.ECE)
	options := pt.TCPOptions([]byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2})
	tests := []struct {
		name string
		in   []byte
		want [][]byte
	}{
		{name: "TCP over IPv4: sequence, id, FIN and PSH at the end, CWR at the start",
			in: pt.Super(pt.TCP(client4, vip4, pt.Pad(2500), pt.Flags(all), pt.Seq(0xfffffc00), pt.ID(0xffff), pt.DF, options), 1000),
			want: [][]byte{
				pt.TCP(client4, vip4, pt.PadPart(0, 1000), first, pt.Seq(0xfffffc00), pt.ID(0xffff), pt.DF, options),
				pt.TCP(client4, vip4, pt.PadPart(1000, 1000), mid, pt.Seq(0xffffffe8), pt.ID(0), pt.DF, options),
				pt.TCP(client4, vip4, pt.PadPart(2000, 500), last, pt.Seq(0x3d0), pt.ID(1), pt.DF, options),
			}},
		{name: "TCP over IPv6 with an extension header",
			in: pt.Super(pt.TCP(client6, vip6, pt.Pad(2000), pt.Flags(all), pt.HopByHop), 1000),
			want: [][]byte{
				pt.TCP(client6, vip6, pt.PadPart(0, 1000), first, pt.HopByHop),
				pt.TCP(client6, vip6, pt.PadPart(1000, 1000), last, pt.Seq(1000), pt.HopByHop),
			}},
		{name: "UDP over IPv4", in: pt.Super(pt.UDP(client4, vip4, pt.Pad(1201), pt.ID(7)), 600),
			want: [][]byte{
				pt.UDP(client4, vip4, pt.PadPart(0, 600), pt.ID(7)),
				pt.UDP(client4, vip4, pt.PadPart(600, 600), pt.ID(8)),
				pt.UDP(client4, vip4, pt.PadPart(1200, 1), pt.ID(9)),
			}},
		{name: "UDP over IPv6", in: pt.Super(pt.UDP(client6, vip6, pt.Pad(1200)), 600),
			want: [][]byte{
				pt.UDP(client6, vip6, pt.PadPart(0, 600)),
				pt.UDP(client6, vip6, pt.PadPart(600, 600)),
			}},
		{name: "a super-packet of one segment", in: pt.Super(pt.TCP(client4, vip4, pt.Pad(10), pt.Flags(all)), 1448),
			want: [][]byte{pt.TCP(client4, vip4, pt.Pad(10), pt.Flags(all))}},
		{name: "a plain packet", in: pt.Plain(pt.TCP(client4, vip4, pt.Pad(10))), want: [][]byte{pt.TCP(client4, vip4, pt.Pad(10))}},
		{name: "a plain packet with a checksum left to the hardware", in: pt.Partial(pt.UDP(client6, vip6, pt.Pad(10))), want: [][]byte{pt.UDP(client6, vip6, pt.Pad(10))}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := split(t, pt.ParsedVNet(t, tt.in))
			if len(got) != len(tt.want) {
				t.Fatalf("%d packets, want %d", len(got), len(tt.want))
			}
			for i := range got {
				diff(t, got[i], tt.want[i])
			}
		})
	}
}

func TestSplitEncapsulated(t *testing.T) {
	p := pt.ParsedVNet(t, pt.Super(pt.TCP(client4, vip4, pt.Pad(2500), pt.DF), 1000))
	whole := bytes.Clone(p.Bytes())
	r := tunnel(packet.IPIP, dip4, rs4, false)
	if why := r.Apply(p); why != packet.OK {
		t.Fatal(why)
	}
	parts := split(t, p)
	if len(parts) != 3 {
		t.Fatalf("%d packets, want 3", len(parts))
	}
	for i, size := range []int{1000, 1000, 500} {
		inner := pt.TCP(client4, vip4, pt.PadPart(i*1000, size), pt.Seq(uint32(i*1000)), pt.ID(uint16(i)), pt.DF)
		diff(t, parts[i], pt.IP(host(dip4), host(rs4), 4, inner, pt.DF))
	}
	diff(t, p.Bytes(), whole)
}

func TestSplitTooBig(t *testing.T) {
	p := pt.ParsedVNet(t, pt.Super(pt.TCP(client4, vip4, pt.Pad(65490)), 65490))
	r := tunnel(packet.IPIP, dip4, rs4, false)
	r.Apply(p)
	var s packet.Splitter
	if why := s.Start(p); why != packet.TooBig {
		t.Errorf("reason %v", why)
	}
	if s.Next(new(packet.Packet)) {
		t.Error("Next gives a packet")
	}
}

func BenchmarkSplit(b *testing.B) {
	for _, rd := range []struct {
		name string
		r    packet.Rewrite
	}{
		{"plain", packet.Rewrite{}},
		{"ipip", tunnel(packet.IPIP, dip4, rs4, false)},
		{"gue with checksum", tunnel(packet.GUE, dip6, rs6, true)},
	} {
		b.Run(rd.name, func(b *testing.B) {
			p := pt.ParsedVNet(b, pt.Super(pt.TCP(client4, vip4, pt.Pad(64*1000), pt.DF), 1448))
			rd.r.Apply(p)
			var s packet.Splitter
			var dst packet.Packet
			dst.Reset(make([]byte, packet.Headroom+2048), 0, 0)
			b.SetBytes(int64(p.Len()))
			for b.Loop() {
				s.Start(p)
				for s.Next(&dst) {
				}
			}
		})
	}
}
