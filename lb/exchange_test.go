package lb_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// Endpoints of the rows below. local is LIP:lport, which the mode chooses.
const (
	client4, client6 = cip4 + ":40000", "[" + cip6 + "]:40000"
	web4, web6       = vip4 + ":80", "[" + vip6 + "]:80"
	rs4, rs6         = rip4 + ":80", "[" + rip6 + "]:80"
	mapped4, mapped6 = rip4 + ":8080", "[" + rip6 + "]:8080"
)

// packets of the three protocols, the first of a flow and a reply.
type protocol struct {
	name         string
	open, answer func(src, dst string, o ...packettest.Option) []byte
}

var protocols = []protocol{
	{"tcp",
		func(src, dst string, o ...packettest.Option) []byte {
			return packettest.TCP(src, dst, append(o, packettest.SYN)...)
		},
		func(src, dst string, o ...packettest.Option) []byte {
			return packettest.TCP(src, dst, append(o, packettest.SYNACK)...)
		}},
	{"udp",
		func(src, dst string, o ...packettest.Option) []byte {
			return packettest.UDP(src, dst, append(o, packettest.Data("question"))...)
		},
		func(src, dst string, o ...packettest.Option) []byte {
			return packettest.UDP(src, dst, append(o, packettest.Data("answer"))...)
		}},
	{"sctp",
		func(src, dst string, o ...packettest.Option) []byte {
			return packettest.SCTP(src, dst, 1, append(o, packettest.Pad(16))...)
		},
		func(src, dst string, o ...packettest.Option) []byte {
			return packettest.SCTP(src, dst, 2, append(o, packettest.Pad(16))...)
		}},
}

// TestExchange sends the first packet of a flow and, where the mode's replies
// come back through the director, the reply, and compares them whole.
func TestExchange(t *testing.T) {
	tests := []struct {
		name        string
		mode        string
		rs          string // the real server as configured
		client, vip string
		from, to    string // of the request as it leaves; "" for from: LIP and whatever port
		nextHop     string // "": routed
		oneSided    bool
		outer       func(inner []byte) []byte // nil: no tunnel
		tunnel      modes.Tunnel
	}{
		{name: "dr: the packet goes to the real server's link address unchanged", mode: "dr",
			rs: rs4, client: client4, vip: web4, from: client4, to: web4, nextHop: rip4, oneSided: true},
		{name: "dr: the same over IPv6", mode: "dr",
			rs: rs6, client: client6, vip: web6, from: client6, to: web6, nextHop: rip6, oneSided: true},
		{name: "nat: the destination becomes the real server and back", mode: "nat",
			rs: rs4, client: client4, vip: web4, from: client4, to: rs4},
		{name: "nat: the same over IPv6", mode: "nat",
			rs: rs6, client: client6, vip: web6, from: client6, to: rs6},
		{name: "nat: another port on the real server", mode: "nat",
			rs: mapped4, client: client4, vip: web4, from: client4, to: mapped4},
		{name: "nat: another port over IPv6", mode: "nat",
			rs: mapped6, client: client6, vip: web6, from: client6, to: mapped6},
		{name: "nat: a real server without a port keeps the client's", mode: "nat",
			rs: rip4 + ":0", client: client4, vip: web4, from: client4, to: rs4},
		{name: "fullnat: both ends change and back", mode: "fullnat",
			rs: mapped4, client: client4, vip: web4, to: mapped4},
		{name: "fullnat: the same over IPv6", mode: "fullnat",
			rs: mapped6, client: client6, vip: web6, to: mapped6},
		{name: "fullnat: IPv6 clients of an IPv4 real server", mode: "fullnat",
			rs: mapped4, client: client6, vip: web6, to: mapped4},
		{name: "fullnat: IPv4 clients of an IPv6 real server", mode: "fullnat",
			rs: mapped6, client: client4, vip: web4, to: mapped6},
		{name: "tun: the packet travels unchanged inside another", mode: "tun",
			rs: rs4, client: client4, vip: web4, from: client4, to: web4, oneSided: true,
			outer: func(inner []byte) []byte { return packettest.IP(dip4, rip4, 4, inner) }},
		{name: "tun: the same over IPv6", mode: "tun",
			rs: rs6, client: client6, vip: web6, from: client6, to: web6, oneSided: true,
			outer: func(inner []byte) []byte { return packettest.IP(dip6, rip6, 41, inner) }},
		{name: "tun: IPv6 in IPv4", mode: "tun",
			rs: rs4, client: client6, vip: web6, from: client6, to: web6, oneSided: true,
			outer: func(inner []byte) []byte { return packettest.IP(dip4, rip4, 41, inner) }},
		{name: "tun: IPv4 in IPv6", mode: "tun",
			rs: rs6, client: client4, vip: web4, from: client4, to: web4, oneSided: true,
			outer: func(inner []byte) []byte { return packettest.IP(dip6, rip6, 4, inner) }},
		{name: "tun: gre", mode: "tun", tunnel: modes.Tunnel{Kind: packet.GRE},
			rs: rs4, client: client4, vip: web4, from: client4, to: web4, oneSided: true,
			outer: func(inner []byte) []byte {
				return packettest.IP(dip4, rip4, 47, append([]byte{0, 0, 8, 0}, inner...))
			}},
	}
	for _, tt := range tests {
		for _, proto := range protocols {
			t.Run(tt.name+"/"+proto.name, func(t *testing.T) {
				b := director{mode: tt.mode, tunnel: tt.tunnel, realServers: []string{tt.rs}}.start(t)
				got := handle(t, b, proto.open(tt.client, tt.vip), 0)
				if got.verdict != packet.Send || got.reason != packet.OK {
					t.Fatalf("request: %v, %v", got.verdict, got.reason)
				}
				from := tt.from
				if from == "" {
					from = localOf(t, got.bytes)
				}
				want := proto.open(from, tt.to)
				if tt.outer != nil {
					want = tt.outer(want)
				}
				in := proto.open(tt.client, tt.vip)
				if tt.outer != nil || in[0] != want[0] {
					want = sameIdent(want, got.bytes)
				}
				diff(t, "request", want, got.bytes)
				if hop := got.p.NextHop; tt.nextHop == "" && hop.Family != 0 || tt.nextHop != "" && hop.AddrPort().Addr().String() != tt.nextHop {
					t.Errorf("next hop %v, want %q", hop.AddrPort(), tt.nextHop)
				}
				if tt.oneSided {
					return
				}
				in = proto.answer(tt.to, from)
				got = handle(t, b, in, 0)
				if got.verdict != packet.Send || got.reason != packet.OK {
					t.Fatalf("reply: %v, %v", got.verdict, got.reason)
				}
				if want = proto.answer(tt.vip, tt.client); in[0] != want[0] {
					want = sameIdent(want, got.bytes)
				}
				diff(t, "reply", want, got.bytes)
			})
		}
	}
}

// localOf is the source that fullnat gave a packet, whose address must be the
// LIP of its family.
func localOf(t *testing.T, b []byte) string {
	t.Helper()
	tuple := packettest.Parsed(t, b).Tuple
	lip := netip.MustParseAddr(lip4)
	if tuple.Family == packet.IPv6 {
		lip = netip.MustParseAddr(lip6)
	}
	if got := tuple.Src.Netip(tuple.Family); got != lip {
		t.Fatalf("fullnat's source is %v, want %v", got, lip)
	}
	return netip.AddrPortFrom(lip, tuple.SrcPort).String()
}

// sameIdent gives want the identification of got, which is free for an IPv4
// header that the director makes.
func sameIdent(want, got []byte) []byte {
	if want[0]>>4 == 4 && got[0]>>4 == 4 {
		copy(want[4:8], got[4:8])
		copy(want[10:12], got[10:12]) // its sum was checked with the packet
	}
	return want
}

func diff(t *testing.T, what string, want, got []byte) {
	t.Helper()
	if d := cmp.Diff(packettest.Dump(want), packettest.Dump(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// TestAnotherTunnelTakesItsFlowsAlong: a real server unpacks one kind of tunnel.
func TestAnotherTunnelTakesItsFlowsAlong(t *testing.T) {
	before := director{mode: "tun", realServers: []string{rip4 + ":80"}}
	after := before
	after.tunnel = modes.Tunnel{Kind: packet.GRE}
	l := &fakeLane{flows: map[packet.Tuple]lb.Offer{}, counts: map[uint32]uint64{}, ago: map[packet.Tuple]time.Duration{}}
	b := startWith(t, before.config(t), lb.Options{Offload: l})
	handle(t, b, packettest.TCP(client4, web4, packettest.SYN), 0)
	ack := packettest.TCP(client4, web4)
	if got := handle(t, b, ack, 0); got.verdict != packet.Send || got.bytes[9] != 4 {
		t.Fatalf("%v, %v, protocol %d; want it in an IP tunnel", got.verdict, got.reason, got.bytes[9])
	}
	invalidated := l.invalidated
	if err := b.Apply(after.config(t)); err != nil {
		t.Fatal(err)
	}
	if l.invalidated == invalidated {
		t.Error("what the lane carries goes on in the old tunnel")
	}
	if got := handle(t, b, ack, 0); got.verdict != packet.Send || got.bytes[9] != 47 {
		t.Errorf("%v, %v, protocol %d; want it in GRE", got.verdict, got.reason, got.bytes[9])
	}
	if n := len(b.Stats().Services[0].RealServers); n != 1 {
		t.Errorf("%d real servers are counted, want 1", n)
	}
}
