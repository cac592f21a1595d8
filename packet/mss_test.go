package packet_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	pt "github.com/uvs-project/uvs/packet/packettest"
)

func TestClampMSS(t *testing.T) {
	options := func(b ...byte) pt.Option { return pt.TCPOptions(b) }
	tests := []struct {
		name     string
		in, want []byte
	}{
		{name: "a SYN", in: pt.TCP(client4, vip4, pt.SYN, options(2, 4, 0x05, 0xb4)), want: pt.TCP(client4, vip4, pt.SYN, options(2, 4, 0x05, 0x50))},
		{name: "a SYN+ACK over IPv6", in: pt.TCP(vip6, client6, pt.SYNACK, options(2, 4, 0x05, 0xa0)), want: pt.TCP(vip6, client6, pt.SYNACK, options(2, 4, 0x05, 0x50))},
		{name: "behind other options", in: pt.TCP(client4, vip4, pt.SYN, options(4, 2, 1, 1, 2, 4, 0xff, 0xff)), want: pt.TCP(client4, vip4, pt.SYN, options(4, 2, 1, 1, 2, 4, 0x05, 0x50))},
		{name: "at an odd place", in: pt.TCP(client4, vip4, pt.SYN, options(1, 2, 4, 0x05, 0xb4, 1, 4, 2)), want: pt.TCP(client4, vip4, pt.SYN, options(1, 2, 4, 0x05, 0x50, 1, 4, 2))},
		{name: "with data behind", in: pt.TCP(client4, vip4, pt.SYN, pt.Pad(31), options(1, 2, 4, 0x05, 0xb4, 0, 0, 0)), want: pt.TCP(client4, vip4, pt.SYN, pt.Pad(31), options(1, 2, 4, 0x05, 0x50, 0, 0, 0))},
		{name: "behind extension headers", in: pt.TCP(client6, vip6, pt.SYN, pt.HopByHop, options(2, 4, 0x05, 0xb4)), want: pt.TCP(client6, vip6, pt.SYN, pt.HopByHop, options(2, 4, 0x05, 0x50))},

		{name: "one that is small enough stays", in: pt.TCP(client4, vip4, pt.SYN, options(2, 4, 0x05, 0x50))},
		{name: "a segment without SYN stays", in: pt.TCP(client4, vip4, options(2, 4, 0x05, 0xb4))},
		{name: "a SYN without the option stays", in: pt.TCP(client4, vip4, pt.SYN, options(1, 1, 4, 2))},
		{name: "behind the end of the options is no option", in: pt.TCP(client4, vip4, pt.SYN, options(0, 1, 1, 1, 2, 4, 0x05, 0xb4))},
		{name: "an option of length 0 ends the search", in: pt.TCP(client4, vip4, pt.SYN, options(8, 0, 1, 1, 2, 4, 0x05, 0xb4))},
		{name: "an option beyond the header ends it", in: pt.TCP(client4, vip4, pt.SYN, options(1, 1, 2, 4))},
		{name: "an MSS of another length is none", in: pt.TCP(client4, vip4, pt.SYN, options(2, 3, 0x05, 1, 2, 4, 0x05, 0x40))},
		{name: "a data offset that lies", in: lie(pt.TCP(client4, vip4, pt.SYN, options(2, 4, 0x05, 0xb4)))},
		{name: "UDP stays", in: pt.UDP(client4, vip4, pt.Pad(40))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.Parsed(t, tt.in)
			want := tt.want
			if want == nil {
				want = tt.in
			}
			if p.ClampMSS(0x550) != (tt.want != nil) {
				t.Errorf("says %v", tt.want == nil)
			}
			if diff := cmp.Diff(pt.Dump(want), pt.Dump(p.Bytes())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("a checksum that is left to the hardware", func(t *testing.T) {
		p := pt.ParsedVNet(t, pt.Partial(pt.TCP(client4, vip4, pt.SYN, options(1, 2, 4, 0x05, 0xb4, 1, 1, 1))))
		p.ClampMSS(0x550)
		p.CompleteChecksum()
		if diff := cmp.Diff(pt.Dump(pt.TCP(client4, vip4, pt.SYN, options(1, 2, 4, 0x05, 0x50, 1, 1, 1))), pt.Dump(p.Bytes())); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// lie makes the TCP header of an IPv4 packet longer than the packet.
func lie(b []byte) []byte {
	b[20+12] = 0xf0
	return pt.Mend(b)
}
