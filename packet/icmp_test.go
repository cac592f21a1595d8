package packet_test

import (
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

// Errors about a flow are translated like its packets. Those that travel with
// the requests embed a reply, and the reverse.
func TestApplyICMPError(t *testing.T) {
	const router4, router6 = "192.0.2.254", "2001:db8:9::ff"
	cut := func(b []byte, n int) []byte { return b[:n] }
	tests := []struct {
		name     string
		r        packet.Rewrite
		in, want []byte
		why      packet.Reason
	}{
		{name: "nat: a client's router complains about a reply", r: natRequest(rs4),
			in:   pt.Error(router4, host(vip4), 3, 4, 1400, cut(pt.TCP(vip4, client4, pt.Pad(1000)), 28)),
			want: pt.Error(router4, host(rs4), 3, 4, 1400, embed(pt.TCP(vip4, client4, pt.Pad(1000)), pt.TCP(rs4, client4, pt.Pad(1000)), 28))},
		{name: "nat: a real server complains about a request, and stays hidden", r: natReply(vip4),
			in:   pt.Error(host(rs4), host(client4), 3, 3, 0, pt.UDP(client4, rs4, pt.Pad(7))),
			want: pt.Error(host(vip4), host(client4), 3, 3, 0, embed(pt.UDP(client4, rs4, pt.Pad(7)), pt.UDP(client4, vip4, pt.Pad(7)), 35))},
		{name: "nat: a router before the real server complains, and is hidden too", r: natReply(vip6),
			in:   pt.Error("2001:db8:2::ff", host(client6), 2, 0, 1280, pt.TCP(client6, rs6, pt.Pad(1000))),
			want: pt.Error(host(vip6), host(client6), 2, 0, 1280, embed(pt.TCP(client6, rs6, pt.Pad(1000)), pt.TCP(client6, vip6, pt.Pad(1000)), 1060))},
		{name: "nat: a client's IPv6 router complains about a reply", r: natRequest(rs6),
			in:   pt.Error(router6, host(vip6), 3, 0, 0, cut(pt.UDP(vip6, client6, pt.Pad(90)), 44)),
			want: pt.Error(router6, host(rs6), 3, 0, 0, embed(pt.UDP(vip6, client6, pt.Pad(90)), pt.UDP(rs6, client6, pt.Pad(90)), 44))},
		{name: "an IPv6 error of a type that nobody knows is for the upper layer too", r: natRequest(rs6),
			in:   pt.Error(router6, host(vip6), 127, 9, 0, cut(pt.UDP(vip6, client6, pt.Pad(90)), 44)),
			want: pt.Error(router6, host(rs6), 127, 9, 0, embed(pt.UDP(vip6, client6, pt.Pad(90)), pt.UDP(rs6, client6, pt.Pad(90)), 44))},
		{name: "nat: an error about ESP, which has no ports, and of which little came back", r: natRequest(rs4),
			in:   pt.Error(router4, host(vip4), 3, 4, 1400, pt.IP(host(vip4), host(client4), 50, []byte{1, 2, 3})),
			want: pt.Error(router4, host(rs4), 3, 4, 1400, pt.IP(host(rs4), host(client4), 50, []byte{1, 2, 3}))},
		{name: "nat: an error about a request by AH", r: natReply(vip4),
			in:   pt.Error(host(rs4), host(client4), 3, 3, 0, pt.IP(host(client4), host(rs4), 51, []byte{6, 4, 0, 0, 0, 0, 0, 1})),
			want: pt.Error(host(vip4), host(client4), 3, 3, 0, pt.IP(host(client4), host(vip4), 51, []byte{6, 4, 0, 0, 0, 0, 0, 1}))},
		{name: "an error about ESP does not go to the other family", r: fullnat(lip6, rs6),
			in: pt.Error(router4, host(vip4), 3, 4, 1400, pt.IP(host(vip4), host(client4), 50, []byte{1, 2, 3})), why: packet.CannotTranslate},
		{name: "fullnat: the error comes from the local address", r: fullnat(lip4, rs4),
			in:   pt.Error(router4, host(vip4), 11, 0, 0, cut(pt.TCP(vip4, client4, pt.Pad(1)), 24)),
			want: pt.Error(host(lip4), host(rs4), 11, 0, 0, embed(pt.TCP(vip4, client4, pt.Pad(1)), pt.TCP(rs4, lip4, pt.Pad(1)), 24))},
		{name: "fullnat: an error about a request reaches the client", r: fullnat(vip6, client6),
			in:   pt.Error(host(rs6), host(lip6), 1, 4, 0, pt.SCTP(lip6, rs6, 1)),
			want: pt.Error(host(vip6), host(client6), 1, 4, 0, embed(pt.SCTP(lip6, rs6, 1), pt.SCTP(client6, vip6, 1), 56))},
		{name: "the embedded IP options are kept", r: natRequest(rs4),
			in:   pt.Error(router4, host(vip4), 11, 0, 0, pt.UDP(vip4, client4, pt.IPOptions(1, 1, 1, 0))),
			want: pt.Error(router4, host(rs4), 11, 0, 0, embed(pt.UDP(vip4, client4, pt.IPOptions(1, 1, 1, 0)), pt.UDP(rs4, client4, pt.IPOptions(1, 1, 1, 0)), 32))},
		{name: "nat: a wrong ICMP checksum is not translated", r: natRequest(rs4),
			in: pt.Error(router4, host(vip4), 11, 0, 0, pt.TCP(vip4, client4), pt.WrongSum), why: packet.BadICMP},
		{name: "dr: a wrong ICMP checksum passes", r: dr(rs4),
			in:   pt.Error(router4, host(vip4), 11, 0, 0, pt.TCP(vip4, client4), pt.WrongSum),
			want: pt.Error(router4, host(vip4), 11, 0, 0, pt.TCP(vip4, client4), pt.WrongSum)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.Parsed(t, tt.in)
			if why := tt.r.Apply(p); why != tt.why {
				t.Fatalf("reason %v, want %v", why, tt.why)
			}
			if tt.why == packet.OK {
				diff(t, p.Bytes(), tt.want)
			}
		})
	}
}

// embed is the first n bytes of the translated packet with the transport
// checksum of the one before: nobody translates that of an embedded packet.
func embed(before, after []byte, n int) []byte {
	off := 40
	if before[0]>>4 == 4 {
		off = int(before[0]&15) * 4
	}
	at, size := map[uint8]int{packet.TCP: 16, packet.UDP: 6, packet.SCTP: 8}, 2
	proto := before[6]
	if off < 40 {
		proto = before[9]
	}
	if proto == packet.SCTP {
		size = 4
	}
	b := append([]byte(nil), after...)
	field := off + at[proto]
	copy(b[field:field+size], before[field:field+size])
	return b[:n]
}
