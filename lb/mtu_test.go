package lb_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// TestNarrowTunnels: what becomes of packets that are too large for a tunnel, or
// of any where the tunnel has no room at all.
func TestNarrowTunnels(t *testing.T) {
	df := func(n int) []byte { return packettest.UDP(client4, web4, packettest.DF, packettest.Pad(n-28)) }
	may := func(n int) []byte { return packettest.UDP(client4, web4, packettest.Pad(n-28)) }
	v6 := func(n int) []byte { return packettest.UDP(client6, web6, packettest.Pad(n-48)) }
	tun := func(rs string, tunnel modes.Tunnel) director {
		return director{mode: "tun", realServers: []string{rs}, tunnel: tunnel}
	}
	outside := tun(rs4, modes.Tunnel{Fragment: true})
	tests := []struct {
		name string
		d    director
		rip  string
		mtu  int
		in   []byte
		why  packet.Reason
		told int  // MTU, where why is TooBig
		cut  int  // longest fragment in which the outer packet leaves; 0: whole
		df   bool // of the outer packet
	}{
		{name: "IPv4 that may be fragmented is, outside", d: tun(rs4, modes.Tunnel{}), rip: rip4, mtu: 1400, in: may(1381), cut: 1400},
		{name: "IPv4 that fits is not", d: tun(rs4, modes.Tunnel{}), rip: rip4, mtu: 1400, in: may(1380)},
		{name: "IPv4 in IPv6 is fragmented outside", d: tun(rs6, modes.Tunnel{}), rip: rip6, mtu: 1400, in: may(1361), cut: 1400},
		{name: "gue over IPv6 counts its headers", d: tun(rs6, modes.Tunnel{Kind: packet.GUE}), rip: rip6, mtu: 1400, in: df(1349), why: packet.TooBig, told: 1348},
		{name: "gre counts its checksum", d: tun(rs4, modes.Tunnel{Kind: packet.GRE, Checksum: true}), rip: rip4, mtu: 1400, in: df(1373), why: packet.TooBig, told: 1372},

		{name: "without discovery the outer packet is fragmented", d: outside, rip: rip4, mtu: 1400, in: df(1400), cut: 1400},
		{name: "without discovery also over IPv6", d: tun(rs6, modes.Tunnel{Fragment: true}), rip: rip6, mtu: 1400, in: df(1400), cut: 1400},
		{name: "without discovery also one that fits has no DF outside", d: outside, rip: rip4, mtu: 1500, in: df(100)},
		{name: "without discovery IPv6 is told all the same", d: outside, rip: rip4, mtu: 1400, in: v6(1400), why: packet.TooBig, told: 1380},

		{name: "no room for the smallest IPv4 packet", d: tun(rs4, modes.Tunnel{}), rip: rip4, mtu: 87, in: df(40), why: packet.PathTooSmall},
		{name: "room for just that", d: tun(rs4, modes.Tunnel{}), rip: rip4, mtu: 88, in: df(68), df: true},
		{name: "over IPv6 no room for what every link carries", d: tun(rs6, modes.Tunnel{}), rip: rip6, mtu: 1319, in: v6(100), why: packet.PathTooSmall},
		{name: "over IPv6 that counts for IPv4 too, as in IPVS", d: tun(rs6, modes.Tunnel{}), rip: rip6, mtu: 1319, in: df(100), why: packet.PathTooSmall},
		{name: "over IPv6 just that room", d: tun(rs6, modes.Tunnel{}), rip: rip6, mtu: 1320, in: v6(1280)},
		{name: "IPv6 is told of no less than every link carries", d: tun(rs4, modes.Tunnel{}), rip: rip4, mtu: 1000, in: v6(1281), why: packet.TooBig, told: 1280},
		{name: "and is carried up to that", d: tun(rs4, modes.Tunnel{}), rip: rip4, mtu: 1000, in: v6(1280)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.d.start(t)
			b.SetPathMTU(netip.MustParseAddr(tt.rip), tt.mtu)
			got := handle(t, b, tt.in, 0)
			verdict := packet.Send
			if tt.why == packet.PathTooSmall {
				verdict = packet.Drop
			}
			if got.verdict != verdict || got.reason != tt.why {
				t.Fatalf("%v, %v; want %v, %v", got.verdict, got.reason, verdict, tt.why)
			}
			switch {
			case tt.told != 0:
				at := 20
				if got.bytes[0]>>4 == 6 {
					at = 40
				}
				if n := binary.BigEndian.Uint32(got.bytes[at+4:]); int(n) != tt.told {
					t.Errorf("told %d bytes, want %d", n, tt.told)
				}
			case verdict == packet.Send:
				if n := got.p.CutLen(); n != tt.cut {
					t.Errorf("leaves in fragments of %d bytes, want %d", n, tt.cut)
				}
				if got.bytes[0]>>4 == 4 && got.p.DontFragment() != tt.df {
					t.Errorf("outer DF %v, want %v", got.p.DontFragment(), tt.df)
				}
			}
		})
	}
}

// TestFullNATBelowTheLeastMTU: IPv6 clients of an IPv4 real server.
func TestFullNATBelowTheLeastMTU(t *testing.T) {
	b := director{mode: "fullnat", realServers: []string{mapped4}}.start(t)
	b.SetPathMTU(netip.MustParseAddr(rip4), 600)
	for n, why := range map[int]packet.Reason{1280: packet.OK, 1281: packet.TooBig} {
		got := handle(t, b, packettest.UDP(client6, web6, packettest.Pad(n-48)), 0)
		if got.verdict != packet.Send || got.reason != why {
			t.Errorf("%d bytes: %v, %v; want %v", n, got.verdict, got.reason, why)
		}
		if why == packet.OK && got.p.DontFragment() {
			t.Errorf("%d bytes: nobody may fragment them", n)
		}
		if told := binary.BigEndian.Uint32(got.bytes[44:]); why == packet.TooBig && told != 1280 {
			t.Errorf("told %d", told)
		}
	}
}

func TestClamp(t *testing.T) {
	mss := func(n uint16) packettest.Option {
		return packettest.TCPOptions(binary.BigEndian.AppendUint16([]byte{2, 4}, n))
	}
	tests := []struct {
		name    string
		d       director
		clamp   int
		rip     string
		mtu     int
		request []byte
		want    uint16 // in the request
		reply   []byte // nil: none crosses the director
		replied uint16 // in the reply
	}{
		{name: "nat: both ends", d: natDirector, clamp: 1300,
			request: packettest.TCP(client4, web4, packettest.SYN, mss(1460)), want: 1300,
			reply: packettest.TCP(mapped4, client4, packettest.SYNACK, mss(1460)), replied: 1300},
		{name: "nat: off", d: natDirector,
			request: packettest.TCP(client4, web4, packettest.SYN, mss(1460)), want: 1460,
			reply: packettest.TCP(mapped4, client4, packettest.SYNACK, mss(1460)), replied: 1460},
		{name: "nat, auto: what fits the path", d: natDirector, clamp: lb.ClampAuto, rip: rip4, mtu: 1400,
			request: packettest.TCP(client4, web4, packettest.SYN, mss(1460)), want: 1360,
			reply: packettest.TCP(mapped4, client4, packettest.SYNACK, mss(1460)), replied: 1360},
		{name: "nat, auto: a path that is not known", d: natDirector, clamp: lb.ClampAuto,
			request: packettest.TCP(client6, web6, packettest.SYN, mss(1440)), want: 1440},
		{name: "dr: the SYN only", d: drDirector, clamp: 1300,
			request: packettest.TCP(client4, web4, packettest.SYN, mss(1460)), want: 1300},
		{name: "tun, auto: less the outer header", d: director{mode: "tun", realServers: []string{rs6}}, clamp: lb.ClampAuto, rip: rip6, mtu: 1500,
			request: packettest.TCP(client4, web4, packettest.SYN, mss(1460)), want: 1420},
		{name: "fullnat, auto: IPv4 becomes longer as IPv6", d: director{mode: "fullnat", realServers: []string{mapped6}}, clamp: lb.ClampAuto, rip: rip6, mtu: 1500,
			request: packettest.TCP(client4, web4, packettest.SYN, mss(1460)), want: 1440},
		{name: "fullnat, auto: IPv6 becomes shorter as IPv4", d: director{mode: "fullnat", realServers: []string{mapped4}}, clamp: lb.ClampAuto, rip: rip4, mtu: 1400,
			request: packettest.TCP(client6, web6, packettest.SYN, mss(1440)), want: 1360},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			policy := lb.DefaultPolicy()
			policy.ClampMSS = tt.clamp
			tt.d.policy = &policy
			b := tt.d.start(t)
			if tt.mtu != 0 {
				b.SetPathMTU(netip.MustParseAddr(tt.rip), tt.mtu)
			}
			for _, step := range []struct {
				in   []byte
				want uint16
			}{{tt.request, tt.want}, {tt.reply, tt.replied}} {
				if step.in == nil {
					continue
				}
				got := handle(t, b, step.in, 0)
				if got.verdict != packet.Send {
					t.Fatalf("%v, %v", got.verdict, got.reason)
				}
				// The option is the last four bytes, also inside a tunnel.
				if n := binary.BigEndian.Uint16(got.bytes[len(got.bytes)-2:]); n != step.want {
					t.Errorf("MSS %d, want %d", n, step.want)
				}
			}
		})
	}
}

func TestResetsAreLimited(t *testing.T) {
	tests := []struct {
		name string
		d    director
		in   []byte
		want packet.Verdict // of what is not too much
	}{
		{name: "resets of refused clients", d: director{onNoServer: lb.AnswerReset}, in: packettest.TCP(client4, web4, packettest.SYN), want: packet.Send},
		{name: "pings", d: natDirector, in: packettest.Echo(cip4, vip4), want: packet.Pass},
		{name: "segments of unknown flows", d: natDirector, in: packettest.TCP(client4, web4), want: packet.Pass},
		{name: "resets to LIPs", d: director{mode: "fullnat", realServers: []string{mapped4}}, in: packettest.TCP(mapped4, lip4+":5000"), want: packet.Send},
	}
	for _, tt := range tests {
		for rate, burst := range map[int]int{0: 50, 100: 50} {
			b := startWith(t, tt.d.config(t), lb.Options{Flows: 1000, Answers: rate})
			answered := 0
			for range 200 {
				got := handle(t, b, tt.in, time.Second)
				if got.verdict == tt.want {
					answered++
				} else if got.reason != packet.RateLimited {
					t.Fatalf("%s: %v, %v", tt.name, got.verdict, got.reason)
				}
			}
			for range 200 {
				if handle(t, b, tt.in, time.Second+100*time.Millisecond).verdict == tt.want {
					answered++
				}
			}
			want := burst + burst // a tenth of a second fills the bucket again
			if rate == 100 {
				want = burst + 10
			}
			if answered != want {
				t.Errorf("%s, %d a second: %d answered, want %d", tt.name, rate, answered, want)
			}
		}
	}
	t.Run("an error is no answer", func(t *testing.T) {
		b := natDirector.start(t)
		for range 200 {
			if got := handle(t, b, packettest.Error("198.51.100.1", vip4, 3, 4, 1400, packettest.TCP(web4, client4)), 0); got.verdict != packet.Pass {
				t.Fatalf("%v, %v", got.verdict, got.reason)
			}
		}
	})
}

// TestRefusals: the answers of a service without a real server.
func TestRefusals(t *testing.T) {
	c0 := packettest.TOS(0xc0)
	part := packettest.Fragments(packettest.UDP(client4, web4, packettest.Pad(100)), 48)
	part6 := packettest.Fragments(packettest.UDP(client6, web6, packettest.Pad(100)), 48)
	tcpPart := packettest.Fragments(packettest.TCP(client4, web4, packettest.SYN, packettest.Pad(100)), 48)[0]
	sctp := packettest.SCTP(client6, web6, 1, packettest.Pad(16))
	abort := packettest.SCTP(web6, client6, 6)
	binary.BigEndian.PutUint32(abort[44:], 0x00070e15) // the tag of the INIT
	tests := []struct {
		name string
		how  lb.OnNoServer
		in   []byte
		want []byte // nil: dropped
	}{
		{name: "reset: SCTP gets an ABORT", how: lb.AnswerReset, in: sctp, want: packettest.Mend(abort)},
		{name: "reset: TCP over IPv6", how: lb.AnswerReset, in: packettest.TCP(client6, web6, packettest.SYN),
			want: packettest.TCP(web6, client6, packettest.Flags(packet.RST|packet.ACK), packettest.Ack(1), packettest.Window(0))},
		{name: "reset: a fragment is told by ICMP", how: lb.AnswerReset, in: tcpPart, want: packettest.Error(vip4, cip4, 3, 3, 0, tcpPart, c0)},
		{name: "reset: a wrong checksum is told by ICMP", how: lb.AnswerReset, in: packettest.TCP(client4, web4, packettest.SYN, packettest.WrongSum),
			want: packettest.Error(vip4, cip4, 3, 3, 0, packettest.TCP(client4, web4, packettest.SYN, packettest.WrongSum), c0)},
		{name: "icmp: the first fragment", how: lb.AnswerICMP, in: part[0], want: packettest.Error(vip4, cip4, 3, 3, 0, part[0], c0)},
		{name: "icmp: the first fragment over IPv6", how: lb.AnswerICMP, in: part6[0], want: packettest.Error(vip6, cip6, 1, 4, 0, part6[0])},
		{name: "icmp: SCTP", how: lb.AnswerICMP, in: sctp, want: packettest.Error(vip6, cip6, 1, 4, 0, sctp)},
		{name: "icmp: a later fragment is not answered", how: lb.AnswerICMP, in: part[1]},
		{name: "drop: TCP", how: lb.AnswerDrop, in: packettest.TCP(client4, web4, packettest.SYN)},
		{name: "drop: SCTP", how: lb.AnswerDrop, in: sctp},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := director{onNoServer: tt.how}.start(t)
			p := packettest.Parsed(t, tt.in)
			if p.Fragment().Offset > 0 {
				p.SetPorts(40000, 80)
			}
			got := handlePacket(t, b, p, 0)
			if tt.want == nil {
				if got.verdict != packet.Drop {
					t.Errorf("%v, %v; want it dropped", got.verdict, got.reason)
				}
				return
			}
			if got.verdict != packet.Send || got.reason != packet.NoRealServer {
				t.Fatalf("%v, %v", got.verdict, got.reason)
			}
			diff(t, "answer", sameIdent(tt.want, got.bytes), got.bytes)
		})
	}
}
