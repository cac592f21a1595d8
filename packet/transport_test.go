package packet_test

import (
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

func TestTCPNumbers(t *testing.T) {
	at := []pt.Option{pt.Seq(1000), pt.Ack(5000)}
	with := func(o ...pt.Option) []byte { return pt.TCP(client4, vip4, append(at, o...)...) }
	const none = 1
	tests := []struct {
		name string
		in   []byte
		next uint32 // none: the packet says nothing
	}{
		{"an ACK", with(), 1000},
		{"data", with(pt.Pad(100)), 1100},
		{"data behind options", with(pt.Pad(100), pt.TCPOptions(make([]byte, 12))), 1100},
		{"data with FIN", with(pt.Pad(100), pt.FIN), 1101},
		{"a SYN ACK", with(pt.SYNACK), 1001},
		{"the end of the numbers", pt.TCP(client4, vip4, pt.Seq(0xfffffff0), pt.Ack(5000), pt.Pad(0x20)), 0x10},
		{"over IPv6", pt.TCP(client6, vip6, pt.Seq(1000), pt.Ack(5000), pt.Pad(100)), 1100},
		{"a SYN acknowledges nothing", with(pt.SYN), none},
		{"a RST", with(pt.Flags(packet.RST | packet.ACK)), none},
		{"a first fragment", pt.Fragments(with(pt.Pad(100)), 48)[0], none},
		{"half a header", pt.Cut(with(), 30), none},
		{"UDP", pt.UDP(client4, vip4), none},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			next, ack, ok := pt.Parsed(t, tt.in).TCPNumbers()
			if ok != (tt.next != none) || ok && (next != tt.next || ack != 5000) {
				t.Errorf("%d, %d, %v; want %d and 5000", next, ack, ok, tt.next)
			}
		})
	}
	t.Run("a super-packet leads behind its last segment", func(t *testing.T) {
		p := pt.ParsedVNet(t, pt.Super(with(pt.Pad(5000)), 1000))
		if next, _, ok := p.TCPNumbers(); !ok || next != 6000 {
			t.Errorf("%d, %v", next, ok)
		}
	})
}

func TestSCTPNextChunk(t *testing.T) {
	// chunks are the bytes behind the first chunk's header, whose length field
	// is set.
	packetOf := func(length uint8, behind ...byte) []byte {
		b := pt.SCTP("198.51.100.7:1", "203.0.113.10:2", 10, pt.Data(string(behind)))
		b[20+12+3] = length
		return b
	}
	tests := []struct {
		name string
		in   []byte
		want uint8
	}{
		{"one chunk", packetOf(8, 1, 2, 3, 4), packet.NoChunk},
		{"another behind it", packetOf(8, 1, 2, 3, 4, 6, 0, 0, 4), 6},
		{"behind padding", packetOf(6, 1, 2, 0, 0, 6, 0, 0, 4), 6},
		{"a chunk of no length has none behind it", packetOf(0, 1, 2, 3, 4, 6, 0, 0, 4), packet.NoChunk},
		{"a chunk that ends behind the packet", packetOf(200, 1, 2, 3, 4), packet.NoChunk},
		{"half a header behind it", pt.Cut(packetOf(8, 1, 2, 3, 4, 6, 0, 0, 4), 42), packet.NoChunk},
		{"no chunk at all", pt.Cut(packetOf(8, 1, 2, 3, 4), 32), packet.NoChunk},
		{"no SCTP", pt.UDP(client4, vip4), packet.NoChunk},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := pt.Parsed(t, tt.in).SCTPNextChunk(); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}

func TestMakeReset(t *testing.T) {
	for _, ends := range [][2]string{{client4, vip4}, {client6, vip6}} {
		var p packet.Packet
		buf := make([]byte, packet.Headroom+60)
		tuple := pt.Parsed(t, pt.TCP(ends[0], ends[1])).Tuple
		if !p.MakeReset(buf, &tuple, 7, 9) {
			t.Fatal("refused")
		}
		diff(t, p.Bytes(), pt.TCP(ends[0], ends[1], pt.Flags(packet.RST|packet.ACK), pt.Seq(7), pt.Ack(9), pt.Window(0), pt.DF))
		if p.Tuple != tuple {
			t.Errorf("tuple %v, want %v", p.Tuple, tuple)
		}
	}
}
