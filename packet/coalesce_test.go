package packet_test

import (
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

// roomy loads a packet into a buffer that can grow to a super-packet.
func roomy(t testing.TB, pkt []byte) *packet.Packet {
	t.Helper()
	buf := make([]byte, packet.Headroom+packet.MaxSize)
	copy(buf[packet.Headroom:], pkt)
	p := new(packet.Packet)
	p.Reset(buf, packet.Headroom, packet.Headroom+len(pkt))
	if why := p.Parse(); why != packet.OK {
		t.Fatal(why)
	}
	return p
}

// coalesce runs packets through a Coalescer and gives what is written.
func coalesce(t testing.TB, in ...[]byte) []*packet.Packet {
	t.Helper()
	var c packet.Coalescer
	var out []*packet.Packet
	for _, b := range in {
		p := roomy(t, b)
		if c.Add(p) {
			continue
		}
		if q := c.Finish(); q != nil {
			out = append(out, q)
		}
		c.Start(p)
	}
	if q := c.Finish(); q != nil {
		out = append(out, q)
	}
	if c.Finish() != nil {
		t.Error("Finish gives a packet twice")
	}
	return out
}

func TestCoalesce(t *testing.T) {
	options := pt.TCPOptions([]byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2})
	for _, tt := range []struct {
		name string
		in   [][]byte
		want []byte // the super-packet behind its virtio-net header
	}{
		{name: "IPv4", in: [][]byte{
			pt.TCP(client4, vip4, pt.PadPart(0, 1000), pt.ID(7), options),
			pt.TCP(client4, vip4, pt.PadPart(1000, 1000), pt.Seq(1000), pt.ID(8), options),
			pt.TCP(client4, vip4, pt.PadPart(2000, 500), pt.Seq(2000), pt.ID(9), options, pt.Flags(packet.ACK|packet.PSH)),
		}, want: pt.Super(pt.TCP(client4, vip4, pt.Pad(2500), pt.ID(7), options, pt.Flags(packet.ACK|packet.PSH)), 1000)},
		{name: "IPv4 with DF, which needs no identification", in: [][]byte{
			pt.TCP(client4, vip4, pt.PadPart(0, 1000), pt.DF),
			pt.TCP(client4, vip4, pt.PadPart(1000, 1000), pt.Seq(1000), pt.DF),
		}, want: pt.Super(pt.TCP(client4, vip4, pt.Pad(2000), pt.DF), 1000)},
		{name: "IPv6", in: [][]byte{
			pt.TCP(client6, vip6, pt.PadPart(0, 1000), pt.FlowLabel(5), pt.Seq(0xffffff00)),
			pt.TCP(client6, vip6, pt.PadPart(1000, 1000), pt.FlowLabel(5), pt.Seq(0xffffff00+1000-1<<32), pt.Flags(packet.ACK|packet.FIN)),
		}, want: pt.Super(pt.TCP(client6, vip6, pt.Pad(2000), pt.FlowLabel(5), pt.Seq(0xffffff00), pt.Flags(packet.ACK|packet.FIN)), 1000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := coalesce(t, tt.in...)
			if len(out) != 1 {
				t.Fatalf("%d packets", len(out))
			}
			got := pt.VNetBytes(out[0])
			diff(t, got[packet.VNetLen:], tt.want[packet.VNetLen:])
			if string(got[:packet.VNetLen]) != string(tt.want[:packet.VNetLen]) {
				t.Errorf("virtio-net header %x, want %x", got[:packet.VNetLen], tt.want[:packet.VNetLen])
			}
			if _, _, end := out[0].Buffer(); end-packet.Headroom != out[0].Len() {
				t.Errorf("ends at %d", end)
			}
			// The Splitter gives the segments back.
			for i, part := range split(t, out[0]) {
				if tt.name == "IPv4 with DF, which needs no identification" {
					part = withID(part, tt.in[i])
				}
				diff(t, part, tt.in[i])
			}
		})
	}
}

func TestCoalesceNot(t *testing.T) {
	first := pt.TCP(client4, vip4, pt.Pad(100), pt.DF)
	second := func(opts ...pt.Option) []byte {
		return pt.TCP(client4, vip4, append([]pt.Option{pt.Pad(100), pt.DF, pt.Seq(100)}, opts...)...)
	}
	first6 := pt.TCP(client6, vip6, pt.Pad(100))
	tests := []struct {
		name          string
		first, second []byte
	}{
		{"a gap", first, second(pt.Seq(101))},
		{"an old segment", first, second(pt.Seq(0))},
		{"another acknowledgement", first, second(pt.Ack(1))},
		{"another window", first, second(pt.Window(9))},
		{"another TTL", first, second(pt.TTL(9))},
		{"another TOS", first, second(pt.TOS(3))},
		{"other options", first, second(pt.TCPOptions([]byte{1, 1, 1, 1}))},
		{"a longer segment", first, second(pt.Pad(101))},
		{"no payload", first, second(pt.Pad(0))},
		{"another connection", first, pt.TCP("192.0.2.1:1235", vip4, pt.Pad(100), pt.DF, pt.Seq(100))},
		{"SYN", first, second(pt.SYN)},
		{"RST", first, second(pt.Flags(packet.RST | packet.ACK))},
		{"CWR", first, second(pt.Flags(packet.CWR | packet.ACK))},
		{"URG", first, second(pt.Flags(packet.URG | packet.ACK))},
		{"a wrong checksum", first, second(pt.WrongSum)},
		{"a wrong checksum of the first", pt.TCP(client4, vip4, pt.Pad(100), pt.DF, pt.WrongSum), second()},
		{"behind PSH", pt.TCP(client4, vip4, pt.Pad(100), pt.DF, pt.Flags(packet.ACK|packet.PSH)), second(pt.Flags(packet.ACK | packet.PSH))},
		{"behind CWR", pt.TCP(client4, vip4, pt.Pad(100), pt.DF, pt.Flags(packet.ACK|packet.CWR)), second(pt.Flags(packet.ACK | packet.CWR))},
		{"without DF an identification that does not follow", pt.TCP(client4, vip4, pt.Pad(100), pt.ID(1)), pt.TCP(client4, vip4, pt.Pad(100), pt.Seq(100), pt.ID(3))},
		{"IPv4 options", pt.TCP(client4, vip4, pt.Pad(100), pt.IPOptions(1, 1, 1, 0)), pt.TCP(client4, vip4, pt.Pad(100), pt.Seq(100), pt.ID(1), pt.IPOptions(1, 1, 1, 0))},
		{"UDP", pt.UDP(client4, vip4, pt.Pad(100)), pt.UDP(client4, vip4, pt.Pad(100))},
		{"another flow label", first6, pt.TCP(client6, vip6, pt.Pad(100), pt.Seq(100), pt.FlowLabel(1))},
		{"another hop limit", first6, pt.TCP(client6, vip6, pt.Pad(100), pt.Seq(100), pt.TTL(1))},
		{"an extension header", first6, pt.TCP(client6, vip6, pt.Pad(100), pt.Seq(100), pt.HopByHop)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := coalesce(t, tt.first, tt.second)
			if len(out) != 2 {
				t.Fatalf("%d packets", len(out))
			}
			diff(t, out[0].Bytes(), tt.first)
			diff(t, out[1].Bytes(), tt.second)
		})
	}
	if out := coalesce(t, first, second(pt.Pad(50)), second(pt.Seq(150))); len(out) != 2 {
		t.Errorf("%d packets where a shorter segment ends the first", len(out))
	}
	if out := coalesce(t, first, second(pt.Flags(packet.ACK|packet.PSH)), second(pt.Seq(200))); len(out) != 2 {
		t.Errorf("%d packets where PSH ends the first", len(out))
	}
	var full [][]byte
	for i := range 45 {
		full = append(full, pt.TCP(client4, vip4, pt.Pad(1456), pt.DF, pt.Seq(uint32(i*1456))))
	}
	if out := coalesce(t, full...); len(out) != 2 || out[0].Len() != 40+44*1456 {
		t.Errorf("%d packets of more than 65535 bytes, the first with %d", len(out), out[0].Len())
	}
	var c packet.Coalescer
	c.Start(pt.Parsed(t, first)) // whose buffer has no room
	if c.Add(pt.Parsed(t, second())) {
		t.Error("added beyond the buffer")
	}
	var in [][]byte
	for i := range 50 {
		in = append(in, pt.TCP(client4, vip4, pt.Pad(1448), pt.DF, pt.Seq(uint32(i*1448))))
	}
	if out := coalesce(t, in...); len(out) != 2 || out[0].Segments() != 45 || out[1].Segments() != 5 {
		t.Errorf("%d packets of 50 segments, the first with %d", len(out), out[0].Segments())
	}
}

func BenchmarkCoalesce(b *testing.B) {
	var segments []*packet.Packet
	for i := range 40 {
		segments = append(segments, pt.Parsed(b, pt.TCP(client4, vip4, pt.Pad(1448), pt.DF, pt.Seq(uint32(i*1448)))))
	}
	first := roomy(b, segments[0].Bytes())
	start := *first
	var c packet.Coalescer
	b.SetBytes(40 * 1448)
	for b.Loop() {
		*first = start
		copy(first.Bytes(), segments[0].Bytes()[:40])
		c.Start(first)
		for _, q := range segments[1:] {
			if !c.Add(q) {
				b.Fatal("not added")
			}
		}
		c.Finish()
	}
}
