package packet_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

func TestTranslateFamily(t *testing.T) {
	to6, to4 := fullnat(lip6, rs6), fullnat(lip4, rs4)
	frag4 := pt.Fragments(pt.UDP(client4, vip4, pt.Pad(100), pt.ID(7)), 64)
	frag6 := pt.Fragments(pt.UDP(lip6, rs6, pt.Pad(100)), 64)
	tests := []struct {
		name string
		r    packet.Rewrite
		in   []byte // behind a virtio-net header
		want []byte // likewise
		why  packet.Reason
	}{
		{name: "an IPv4 segment becomes IPv6", r: to6,
			in: pt.Plain(pt.TCP(client4, vip4, pt.Pad(99), pt.TTL(9), pt.TOS(0xb9), pt.ID(3))), want: pt.Plain(pt.TCP(lip6, rs6, pt.Pad(99), pt.TTL(9), pt.TOS(0xb9)))},
		{name: "a long IPv6 segment becomes IPv4 with DF", r: to4,
			in: pt.Plain(pt.TCP(client6, vip6, pt.Pad(1221), pt.TTL(9), pt.TOS(0xb9), pt.FlowLabel(5))), want: pt.Plain(pt.TCP(lip4, rs4, pt.Pad(1221), pt.TTL(9), pt.TOS(0xb9), pt.DF))},
		{name: "one of up to 1260 bytes becomes IPv4 without DF", r: to4,
			in: pt.Plain(pt.TCP(client6, vip6, pt.Pad(1220))), want: pt.Plain(pt.TCP(lip4, rs4, pt.Pad(1220)))},
		{name: "a datagram of IPv4", r: to6, in: pt.Plain(pt.UDP(client4, vip4, pt.Pad(99))), want: pt.Plain(pt.UDP(lip6, rs6, pt.Pad(99)))},
		{name: "a datagram of IPv4 without a checksum gets one", r: to6, in: pt.Plain(pt.UDP(client4, vip4, pt.Pad(99), pt.NoSum)), want: pt.Plain(pt.UDP(lip6, rs6, pt.Pad(99)))},
		{name: "a datagram of IPv6", r: to4, in: pt.Plain(pt.UDP(client6, vip6, pt.Pad(99))), want: pt.Plain(pt.UDP(lip4, rs4, pt.Pad(99)))},
		{name: "SCTP of IPv4", r: to6, in: pt.Plain(pt.SCTP(client4, vip4, 1)), want: pt.Plain(pt.SCTP(lip6, rs6, 1))},
		{name: "SCTP of IPv6", r: to4, in: pt.Plain(pt.SCTP(client6, vip6, 1)), want: pt.Plain(pt.SCTP(lip4, rs4, 1))},
		{name: "IPv4 options are left out", r: to6, in: pt.Plain(pt.TCP(client4, vip4, pt.IPOptions(7, 3, 4, 0))), want: pt.Plain(pt.TCP(lip6, rs6))},
		{name: "a source route at its end is left out", r: to6, in: pt.Plain(pt.TCP(client4, vip4, pt.IPOptions(1, 131, 7, 8, 1, 2, 3, 4))), want: pt.Plain(pt.TCP(lip6, rs6))},
		{name: "IPv6 extension headers are left out", r: to4, in: pt.Plain(pt.TCP(client6, vip6, pt.HopByHop, pt.Routing(0), pt.DestinationOptions, pt.AtomicFragment)), want: pt.Plain(pt.TCP(lip4, rs4))},
		{name: "a first IPv4 fragment", r: to6, in: pt.Plain(frag4[0]), want: pt.Plain(with6ID(pt.Fragments(pt.UDP(lip6, rs6, pt.Pad(100)), 64)[0], 7))},
		{name: "a later IPv4 fragment", r: to6, in: pt.Plain(frag4[1]), want: pt.Plain(with6ID(pt.Fragments(pt.UDP(lip6, rs6, pt.Pad(100)), 64)[1], 7))},
		{name: "a first IPv6 fragment", r: fullnat(client4, vip4), in: pt.Plain(with6ID(frag6[0], 7)), want: pt.Plain(frag4[0])},
		{name: "a later IPv6 fragment", r: fullnat(client4, vip4), in: pt.Plain(with6ID(frag6[1], 7)), want: pt.Plain(frag4[1])},
		{name: "a partial checksum", r: to6, in: pt.Partial(pt.TCP(client4, vip4, pt.Pad(9))), want: pt.Partial(pt.TCP(lip6, rs6, pt.Pad(9)))},
		{name: "a TCP super-packet of IPv4", r: to6, in: pt.Super(pt.TCP(client4, vip4, pt.Pad(5000)), 1400), want: pt.Super(pt.TCP(lip6, rs6, pt.Pad(5000)), 1400)},
		{name: "a TCP super-packet of IPv6 with ECN", r: to4, in: with(pt.Super(pt.TCP(client6, vip6, pt.Pad(5000), pt.HopByHop), 1400), 1, packet.GSOTCPv6|packet.GSOECN),
			want: with(pt.Super(pt.TCP(lip4, rs4, pt.Pad(5000), pt.DF), 1400), 1, packet.GSOTCPv4|packet.GSOECN)},
		{name: "a UDP super-packet of IPv4", r: to6, in: pt.Super(pt.UDP(client4, vip4, pt.Pad(5000)), 1400), want: pt.Super(pt.UDP(lip6, rs6, pt.Pad(5000)), 1400)},

		{name: "IPv4 source routes have no translation", r: to6, in: pt.Plain(pt.TCP(client4, vip4, pt.IPOptions(1, 131, 7, 4, 1, 2, 3, 4))), why: packet.CannotTranslate},
		{name: "segments left have no translation", r: to4, in: pt.Plain(pt.TCP(client6, vip6, pt.Routing(1))), why: packet.CannotTranslate},
		{name: "authentication has no translation", r: to4, in: pt.Plain(pt.TCP(client6, vip6, pt.Authentication)), why: packet.CannotTranslate},
		{name: "options that were cut to fragments have no translation", r: to4, in: pt.Plain(pt.UDP(client6, vip6, pt.Extension(44, 0, 0, 0, 1, 0, 0, 0, 1), pt.DestinationOptions)), why: packet.CannotTranslate},
		{name: "a fragment without a UDP checksum has no translation", r: to6, in: pt.Plain(pt.Fragments(pt.UDP(client4, vip4, pt.Pad(100), pt.NoSum), 64)[0]), why: packet.CannotTranslate},
		{name: "an echo has no translation", r: to6, in: pt.Plain(pt.Echo(host(client4), host(vip4))), why: packet.CannotTranslate},
		{name: "half a TCP header has no translation", r: to6, in: pt.Plain(pt.Cut(pt.TCP(client4, vip4), 30)), why: packet.Truncated},
		{name: "half a UDP header has no translation", r: to4, in: pt.Plain(pt.Cut(pt.UDP(client6, vip6), 45)), why: packet.Truncated},
		{name: "a fragment of SCTP has no other port", r: to6, in: pt.Plain(pt.Fragments(pt.SCTP(client4, vip4, 0, pt.Pad(100)), 64)[0]), why: packet.CannotTranslate},
		{name: "IPv4 packets end at 65535 bytes", r: to4, in: pt.Plain(pt.UDP(client6, vip6, pt.Pad(65535-8-19))), why: packet.TooBig},
		{name: "one endpoint of the other family", r: packet.Rewrite{Src: endpoint(lip6), Dst: endpoint(rs4)}, in: pt.Plain(pt.UDP(client6, vip6)), why: packet.CannotTranslate},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.ParsedVNet(t, tt.in)
			if why := tt.r.Apply(p); why != tt.why {
				t.Fatalf("reason %v, want %v", why, tt.why)
			}
			if tt.why != packet.OK {
				diff(t, p.Bytes(), tt.in[packet.VNetLen:])
				return
			}
			got, want := p.Bytes(), tt.want[packet.VNetLen:]
			if got[0]>>4 == 4 && got[6]&0x40 == 0 && !p.Fragment().Is {
				want = withID(want, got)
			}
			diff(t, got, want)
			if h := pt.VNetBytes(p)[:packet.VNetLen]; string(h) != string(tt.want[:packet.VNetLen]) {
				t.Errorf("virtio-net header %x, want %x", h, tt.want[:packet.VNetLen])
			}
			if a, f := p.Destination(); a != tt.r.Dst.Addr || f != tt.r.Dst.Family {
				t.Errorf("goes to %v", a.Netip(f))
			}
		})
	}
}

// with6ID gives a fragment of IPv6 another identification.
func with6ID(b []byte, id uint32) []byte {
	b = append([]byte(nil), b...)
	binary.BigEndian.PutUint32(b[44:], id)
	return b
}

func TestTranslateErrorFamily(t *testing.T) {
	const router4, router6 = "10.0.0.254", "2001:db8:2::fe"
	// A client of IPv6 talks to a real server of IPv4, and the reverse. The
	// errors come from the real server's side.
	reply6, reply4 := fullnat(vip6, client6), fullnat(vip4, client4)
	sent4, sent6 := pt.TCP(lip4, rs4, pt.Pad(300), pt.DF, pt.TTL(7), pt.TOS(4)), pt.TCP(lip6, rs6, pt.Pad(1400), pt.TTL(7), pt.TOS(4))
	seen6 := embed6(sent4, pt.TCP(client6, vip6, pt.Pad(300), pt.TTL(7), pt.TOS(4)))
	seen4 := embed6(sent6, pt.TCP(client4, vip4, pt.Pad(1400), pt.TTL(7), pt.TOS(4), pt.DF))
	from4 := func(typ, code uint8, word uint32, e []byte) []byte {
		return pt.Error(router4, host(lip4), typ, code, word, e, pt.TTL(60), pt.TOS(0xc0))
	}
	to6 := func(typ, code uint8, word uint32, e []byte) []byte {
		return pt.Error(host(vip6), host(client6), typ, code, word, e, pt.TTL(60), pt.TOS(0xc0))
	}
	from6 := func(typ, code uint8, word uint32, e []byte) []byte {
		return pt.Error(router6, host(lip6), typ, code, word, e, pt.TTL(60))
	}
	to4 := func(typ, code uint8, word uint32, e []byte) []byte {
		b := pt.Error(host(vip4), host(client4), typ, code, word, e, pt.TTL(60))
		if len(b) > 1260 {
			b[6] |= 0x40
		}
		return pt.Cut(b, len(b))
	}
	parts4 := pt.Fragments(pt.UDP(lip4, rs4, pt.Pad(100), pt.ID(7)), 64)
	tests := []struct {
		name string
		r    packet.Rewrite
		in   []byte
		want []byte // nil: not translated
	}{
		{name: "IPv4 network unreachable", r: reply6, in: from4(3, 0, 0, sent4), want: to6(1, 0, 0, seen6)},
		{name: "IPv4 host unreachable", r: reply6, in: from4(3, 1, 0, sent4), want: to6(1, 0, 0, seen6)},
		{name: "IPv4 protocol unreachable", r: reply6, in: from4(3, 2, 0, sent4), want: to6(4, 1, 6, seen6)},
		{name: "IPv4 port unreachable", r: reply6, in: from4(3, 3, 0, sent4), want: to6(1, 4, 0, seen6)},
		{name: "IPv4 fragmentation needed", r: reply6, in: from4(3, 4, 1400, sent4), want: to6(2, 0, 1420, seen6)},
		{name: "IPv4 fragmentation needed below what IPv6 knows", r: reply6, in: from4(3, 4, 576, sent4), want: to6(2, 0, 1280, seen6)},
		{name: "IPv4 fragmentation needed without an MTU", r: reply6, in: from4(3, 4, 0, long4()), want: to6(2, 0, 1492+20, long6())},
		{name: "IPv4 prohibited", r: reply6, in: from4(3, 13, 0, sent4), want: to6(1, 1, 0, seen6)},
		{name: "IPv4 precedence violation", r: reply6, in: from4(3, 14, 0, sent4)},
		{name: "IPv4 source quench", r: reply6, in: from4(4, 0, 0, sent4)},
		{name: "IPv4 time exceeded", r: reply6, in: from4(11, 1, 0, sent4), want: to6(3, 1, 0, seen6)},
		{name: "a wrong checksum", r: reply6, in: with(from4(11, 1, 0, sent4), 22, 0)},
		{name: "four bytes of the embedded transport header", r: reply6, in: from4(3, 3, 0, sent4[:24]), want: to6(1, 4, 0, seen6[:44])},
		{name: "IPv4 extensions are cut", r: reply6, in: from4(3, 3, 32<<16, append(sent4[:128:128], 0x20, 0, 1, 2)), want: to6(1, 4, 0, seen6[:148])},
		{name: "an embedded first fragment of IPv4", r: reply6, in: from4(11, 0, 0, parts4[0]), want: to6(3, 0, 0, embedFragment(parts4[0]))},
		{name: "no longer than 1280 bytes of IPv6", r: reply6, in: from4(3, 3, 0, pt.TCP(lip4, rs4, pt.Pad(1400), pt.DF)), want: to6(1, 4, 0, embed6(pt.TCP(lip4, rs4, pt.Pad(1400)), pt.TCP(client6, vip6, pt.Pad(1400)))[:1232])},

		{name: "IPv6 no route", r: reply4, in: from6(1, 0, 0, sent6[:1000]), want: to4(3, 1, 0, seen4[:980])},
		{name: "IPv6 prohibited", r: reply4, in: from6(1, 1, 0, sent6[:1000]), want: to4(3, 10, 0, seen4[:980])},
		{name: "IPv6 address unreachable", r: reply4, in: from6(1, 3, 0, sent6[:1000]), want: to4(3, 1, 0, seen4[:980])},
		{name: "IPv6 port unreachable", r: reply4, in: from6(1, 4, 0, sent6[:44]), want: to4(3, 3, 0, seen4[:24])},
		{name: "IPv6 failed policy", r: reply4, in: from6(1, 5, 0, sent6[:1000])},
		{name: "IPv6 packet too big", r: reply4, in: from6(2, 0, 1280, sent6[:1232]), want: to4(3, 4, 1260, seen4[:1212])},
		{name: "IPv6 packet too big with a number no IPv4 has", r: reply4, in: from6(2, 0, 1<<31, sent6[:100]), want: to4(3, 4, 65535, seen4[:80])},
		{name: "IPv6 packet too big with zero", r: reply4, in: from6(2, 0, 0, sent6[:100]), want: to4(3, 4, 68, seen4[:80])},
		{name: "IPv6 time exceeded", r: reply4, in: from6(3, 0, 0, sent6[:100]), want: to4(11, 0, 0, seen4[:80])},
		{name: "IPv6 hop limit in error", r: reply4, in: from6(4, 0, 7, sent6[:100]), want: to4(12, 0, 8<<24, seen4[:80])},
		{name: "IPv6 flow label in error", r: reply4, in: from6(4, 0, 2, sent6[:100])},
		{name: "IPv6 next header unknown", r: reply4, in: from6(4, 1, 6, sent6[:100]), want: to4(3, 2, 0, seen4[:80])},
		{name: "IPv6 option unknown", r: reply4, in: from6(4, 2, 40, sent6[:100])},
		{name: "IPv6 extensions are cut", r: reply4, in: from6(1, 4, 16<<24, append(sent6[:128:128], 0x20, 0, 1, 2)), want: to4(3, 3, 0, seen4[:108])},
		{name: "extension headers of the embedded packet are left out", r: reply4, in: from6(1, 4, 0, pt.UDP(lip6, rs6, pt.HopByHop, pt.AtomicFragment)), want: to4(3, 3, 0, embed6(pt.UDP(lip6, rs6), pt.UDP(client4, vip4)))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.Parsed(t, tt.in)
			if !p.IsICMPError() {
				t.Fatal("not an error about a flow")
			}
			why := tt.r.Apply(p)
			if tt.want == nil {
				if why != packet.BadICMP {
					t.Errorf("reason %v", why)
				}
				return
			}
			if why != packet.OK {
				t.Fatal(why)
			}
			got := p.Bytes()
			if got[0]>>4 == 4 {
				if got[6]&0x40 == 0 {
					tt.want = withID(tt.want, got)
				}
				if e := tt.want[28:]; e[6]&0x40 == 0 { // nor is that of the embedded header known
					copy(e[4:6], got[32:34])
					copy(e[10:12], got[38:40])
				}
			}
			diff(t, got, tt.want)
			pt.MustCheck(t, got)
		})
	}
}

func long4() []byte { return pt.TCP(lip4, rs4, pt.Pad(1453), pt.DF)[:500] }
func long6() []byte {
	return embed6(pt.TCP(lip4, rs4, pt.Pad(1453)), pt.TCP(client6, vip6, pt.Pad(1453)))[:520]
}

// embed6 is the packet after with the TCP or UDP checksum of the one before,
// which is of the other family.
func embed6(before, after []byte) []byte {
	size := func(b []byte) int { return map[uint8]int{4: 20, 6: 40}[b[0]>>4] }
	b, from, to := append([]byte(nil), after...), size(before), size(after)
	field := 16
	if after[9] == packet.UDP && to == 20 || after[6] == packet.UDP && to == 40 {
		field = 6
	}
	copy(b[to+field:to+field+2], before[from+field:])
	return b
}

// embedFragment is a first fragment of UDP from lip4 to rs4 as the client of
// IPv6 would have sent it.
func embedFragment(part []byte) []byte {
	b := with6ID(pt.Fragments(pt.UDP(client6, vip6, pt.Pad(100)), 64)[0], 7)
	copy(b[48+6:48+8], part[26:28])
	return b
}

// TestTranslateFamilyAgainstFullSums is TestApplyAgainstFullSums over the
// border between the families.
func TestTranslateFamilyAgainstFullSums(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 5000 {
		six := rnd.IntN(2) == 0
		src, dst := randomAddrPort(rnd, six).String(), randomAddrPort(rnd, six).String()
		r := fullnat(randomAddrPort(rnd, !six).String(), randomAddrPort(rnd, !six).String())
		opts := []pt.Option{pt.Pad(rnd.IntN(90)), pt.Seq(rnd.Uint32())}
		in := pt.TCP(src, dst, opts...)
		switch rnd.IntN(4) {
		case 0:
			in = pt.UDP(src, dst, opts...)
		case 1:
			in = pt.UDP(src, dst, append(opts, pt.NoSum)...)
		case 2:
			in = pt.SCTP(src, dst, 0, opts...)
		}
		p := pt.Parsed(t, in)
		if p.Tuple.Proto != packet.SCTP && rnd.IntN(3) == 0 {
			p = pt.ParsedVNet(t, pt.Partial(in))
		}
		if why := r.Apply(p); why != packet.OK {
			t.Fatalf("%v for %+v\n%s", why, r, pt.Dump(in))
		}
		if err := pt.CheckPacket(p); err != nil {
			t.Fatalf("%v after %+v\nbefore:\n%safter:\n%s", err, r, pt.Dump(in), pt.Dump(p.Bytes()))
		}
	}
}
