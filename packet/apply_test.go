package packet_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

// The rewrites of the modes, in the terms of package modes.
func natRequest(rs string) packet.Rewrite { return packet.Rewrite{Dst: endpoint(rs)} }
func natReply(vip string) packet.Rewrite  { return packet.Rewrite{Src: endpoint(vip)} }
func fullnat(src, dst string) packet.Rewrite {
	return packet.Rewrite{Src: endpoint(src), Dst: endpoint(dst)}
}
func dr(rs string) packet.Rewrite { return packet.Rewrite{NextHop: endpoint(rs)} }

func TestApplyNAT(t *testing.T) {
	opts := pt.IPOptions(7, 3, 4, 0)
	tests := []struct {
		name string
		r    packet.Rewrite
		in   []byte
		want []byte
		why  packet.Reason
	}{
		{name: "nat: an IPv4 TCP request gets the real server's address and port", r: natRequest(rs4),
			in: pt.TCP(client4, vip4, pt.SYN), want: pt.TCP(client4, rs4, pt.SYN)},
		{name: "nat: an IPv6 TCP request gets the real server's address and port", r: natRequest(rs6),
			in: pt.TCP(client6, vip6, pt.SYN), want: pt.TCP(client6, rs6, pt.SYN)},
		{name: "nat: an IPv4 reply gets the VIP and its port", r: natReply(vip4),
			in: pt.TCP(rs4, client4, pt.Pad(777)), want: pt.TCP(vip4, client4, pt.Pad(777))},
		{name: "nat: an IPv6 reply gets the VIP and its port", r: natReply(vip6),
			in: pt.TCP(rs6, client6, pt.Pad(777)), want: pt.TCP(vip6, client6, pt.Pad(777))},
		{name: "fullnat: an IPv4 request gets both", r: fullnat(lip4, rs4),
			in: pt.TCP(client4, vip4, pt.Pad(9)), want: pt.TCP(lip4, rs4, pt.Pad(9))},
		{name: "fullnat: an IPv6 request gets both", r: fullnat(lip6, rs6),
			in: pt.UDP(client6, vip6, pt.Pad(9)), want: pt.UDP(lip6, rs6, pt.Pad(9))},
		{name: "TTL, TOS, id, DF and options pass unchanged", r: natRequest(rs4),
			in: pt.TCP(client4, vip4, pt.TTL(3), pt.TOS(0xb8), pt.ID(99), pt.DF, opts), want: pt.TCP(client4, rs4, pt.TTL(3), pt.TOS(0xb8), pt.ID(99), pt.DF, opts)},
		{name: "flow label, class and extension headers pass unchanged", r: natRequest(rs6),
			in:   pt.UDP(client6, vip6, pt.FlowLabel(0x12345), pt.TOS(0xb8), pt.HopByHop, pt.Routing(0), pt.AtomicFragment),
			want: pt.UDP(client6, rs6, pt.FlowLabel(0x12345), pt.TOS(0xb8), pt.HopByHop, pt.Routing(0), pt.AtomicFragment)},
		{name: "a wrong TCP checksum stays wrong by the same amount", r: natRequest(rs4),
			in: pt.TCP(client4, vip4, pt.WrongSum), want: wrongBy(pt.TCP(client4, vip4), pt.TCP(client4, vip4, pt.WrongSum), pt.TCP(client4, rs4))},
		{name: "an IPv4 UDP datagram without a checksum gets one, as IPVS gives it", r: natRequest(rs4),
			in: pt.UDP(client4, vip4, pt.NoSum, pt.Data("odd")), want: pt.UDP(client4, rs4, pt.Data("odd"))},
		{name: "an IPv6 UDP datagram without a checksum gets one, as IPVS gives it", r: natRequest(rs6),
			in: pt.UDP(client6, vip6, pt.NoSum, pt.Data("odd")), want: pt.UDP(client6, rs6, pt.Data("odd"))},
		{name: "SCTP gets a new CRC when the port changes", r: natRequest(rs4),
			in: pt.SCTP(client4, vip4, 1, pt.Pad(30)), want: pt.SCTP(client4, rs4, 1, pt.Pad(30))},
		{name: "SCTP over IPv6 gets a new CRC when the port changes", r: natRequest(rs6),
			in: pt.SCTP(client6, vip6, 1, pt.Pad(30)), want: pt.SCTP(client6, rs6, 1, pt.Pad(30))},
		{name: "a wrong CRC is repaired when the port changes", r: natRequest(rs4),
			in: pt.SCTP(client4, vip4, 1, pt.WrongSum), want: pt.SCTP(client4, rs4, 1)},
		{name: "a wrong CRC stays where only the address changes", r: natRequest("10.0.0.21:80"),
			in: pt.SCTP(client4, vip4, 1, pt.WrongSum), want: pt.SCTP(client4, "10.0.0.21:80", 1, pt.WrongSum)},
		{name: "an IPv4 echo gets the address", r: natRequest(rs4),
			in: pt.Echo(host(client4), host(vip4)), want: pt.Echo(host(client4), host(rs4))},
		{name: "an IPv6 echo gets the address", r: natRequest(rs6),
			in: pt.Echo(host(client6), host(vip6)), want: pt.Echo(host(client6), host(rs6))},
		{name: "an unknown protocol gets the address", r: natRequest(rs4),
			in: pt.IP(host(client4), host(vip4), 89, []byte("abc")), want: pt.IP(host(client4), host(rs4), 89, []byte("abc"))},
		{name: "19 bytes of TCP cannot be translated", r: natRequest(rs4),
			in: pt.Cut(pt.TCP(client4, vip4), 39), why: packet.Truncated},
		{name: "7 bytes of UDP cannot be translated", r: natRequest(rs6),
			in: pt.Cut(pt.UDP(client6, vip6), 47), why: packet.Truncated},
		{name: "11 bytes of SCTP cannot be translated", r: natRequest(rs4),
			in: pt.Cut(pt.SCTP(client4, vip4, 1), 31), why: packet.Truncated},
		{name: "11 bytes of SCTP cannot be translated where the port stays either", r: natRequest("10.0.0.21:80"),
			in: pt.Cut(pt.SCTP(client4, vip4, 1), 31), why: packet.Truncated},
		{name: "a first fragment of SCTP cannot have another port", r: natRequest(rs4),
			in: pt.Fragments(pt.SCTP(client4, vip4, 0, pt.Pad(100)), 48)[0], why: packet.CannotTranslate},
		{name: "one endpoint of the other family is not enough", r: natRequest(rs6),
			in: pt.TCP(client4, vip4), why: packet.CannotTranslate},
		{name: "dr: four bytes of TCP pass untouched", r: dr(rs4),
			in: pt.Cut(pt.TCP(client4, vip4), 24), want: pt.Cut(pt.TCP(client4, vip4), 24)},
		{name: "dr: wrong checksums pass untouched", r: dr(rs4),
			in: pt.UDP(client4, vip4, pt.WrongSum), want: pt.UDP(client4, vip4, pt.WrongSum)},
		{name: "dr: a datagram without a checksum keeps none", r: dr(rs6),
			in: pt.UDP(client6, vip6, pt.NoSum), want: pt.UDP(client6, vip6, pt.NoSum)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.Parsed(t, tt.in)
			tuple := p.Tuple
			if why := tt.r.Apply(p); why != tt.why {
				t.Fatalf("reason %v, want %v", why, tt.why)
			}
			if tt.why == packet.OK {
				diff(t, p.Bytes(), tt.want)
			}
			if p.Tuple != tuple {
				t.Errorf("Apply changed the tuple")
			}
		})
	}
}

func diff(t *testing.T, got, want []byte) {
	t.Helper()
	if d := cmp.Diff(pt.Dump(want), pt.Dump(got)); d != "" {
		t.Errorf("packet (-want +got):\n%s", d)
	}
}

// wrongBy gives good a TCP checksum that is wrong by as much as wrong's is
// against right's.
func wrongBy(right, wrong, good []byte) []byte {
	at := func(b []byte) uint32 { return uint32(binary.BigEndian.Uint16(b[36:])) }
	s := at(good) + at(wrong) + 0xffff - at(right)
	s = s&0xffff + s>>16
	good = append([]byte(nil), good...)
	binary.BigEndian.PutUint16(good[36:], uint16(s&0xffff+s>>16))
	return good
}

func TestApplyFragments(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in, want []byte
		r        packet.Rewrite
	}{
		{name: "IPv4", in: pt.UDP(client4, vip4, pt.Pad(200)), want: pt.UDP(client4, rs4, pt.Pad(200)), r: natRequest(rs4)},
		{name: "IPv6", in: pt.UDP(client6, vip6, pt.Pad(200)), want: pt.UDP(client6, rs6, pt.Pad(200)), r: natRequest(rs6)},
		{name: "IPv4 TCP", in: pt.TCP(client4, vip4, pt.Pad(200)), want: pt.TCP(lip4, rs4, pt.Pad(200)), r: fullnat(lip4, rs4)},
		{name: "IPv4 without a checksum, which cannot be made from a part", in: pt.UDP(client4, vip4, pt.Pad(200), pt.NoSum), want: pt.UDP(client4, rs4, pt.Pad(200), pt.NoSum), r: natRequest(rs4)},
		{name: "SCTP where the port stays", in: pt.SCTP(client4, vip4, 0, pt.Pad(100)), want: pt.SCTP(client4, "10.0.0.21:80", 0, pt.Pad(100)), r: natRequest("10.0.0.21:80")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := pt.Fragments(tt.want, 64)
			for i, in := range pt.Fragments(tt.in, 64) {
				p := pt.Parsed(t, in)
				if why := tt.r.Apply(p); why != packet.OK {
					t.Fatalf("fragment %d: %v", i, why)
				}
				diff(t, p.Bytes(), want[i])
			}
		})
	}
}

func TestApplyNextHop(t *testing.T) {
	p := pt.Parsed(t, pt.TCP(client4, vip4))
	if a, f := p.Destination(); a != addr(vip4) || f != packet.IPv4 {
		t.Errorf("before: goes to %v", a.Netip(f))
	}
	r := dr(rs4)
	if why := r.Apply(p); why != packet.OK {
		t.Fatal(why)
	}
	diff(t, p.Bytes(), pt.TCP(client4, vip4))
	if a, f := p.Destination(); a != addr(rs4) || f != packet.IPv4 || p.NextHop != endpoint(rs4) {
		t.Errorf("after: goes to %v", a.Netip(f))
	}
}

// TestChecksumEdges holds the cases of RFC 1624 in which the checksum comes
// out as zero or came as ffff.
func TestChecksumEdges(t *testing.T) {
	field := func(b []byte, off int, v uint16) []byte {
		b = append([]byte(nil), b...)
		binary.BigEndian.PutUint16(b[off:], v)
		return b
	}
	// A payload word chosen so that the translated packet's checksum is zero.
	zeroSum := func(build func(src, dst string, opts ...pt.Option) []byte, off int) (in, out []byte) {
		for i := range 1 << 16 {
			data := pt.Data(string([]byte{byte(i >> 8), byte(i)}))
			out = build(client4, rs4, data)
			if c := binary.BigEndian.Uint16(out[off:]); c == 0 || c == 0xffff {
				return build(client4, vip4, data), out
			}
		}
		t.Fatal("no payload gives a checksum of zero")
		return nil, nil
	}
	tcpIn, tcpOut := zeroSum(pt.TCP, 36)
	udpIn, udpOut := zeroSum(pt.UDP, 26)
	for _, tt := range []struct {
		name     string
		in, want []byte
	}{
		{"a TCP checksum that comes out as zero is sent as zero", tcpIn, field(tcpOut, 36, 0)},
		{"a UDP checksum that comes out as zero is sent as ffff", udpIn, field(udpOut, 26, 0xffff)},
		{"a UDP checksum that is made and comes out as zero is sent as ffff", field(udpIn, 26, 0), field(udpOut, 26, 0xffff)},
		{"a TCP checksum of ffff counts as zero", field(pt.TCP(client4, vip4), 36, 0xffff), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == nil {
				zero := pt.Parsed(t, field(tt.in, 36, 0))
				r := natRequest(rs4)
				r.Apply(zero)
				tt.want = zero.Bytes()
			}
			p := pt.Parsed(t, tt.in)
			r := natRequest(rs4)
			r.Apply(p)
			diff(t, p.Bytes(), tt.want)
		})
	}
}

func TestCompleteChecksumZero(t *testing.T) {
	for i := range 1 << 16 {
		in := pt.UDP(client4, vip4, pt.Data(string([]byte{byte(i >> 8), byte(i)})))
		if in[26] != 0xff || in[27] != 0xff {
			continue
		}
		p := pt.ParsedVNet(t, pt.Partial(in))
		p.CompleteChecksum()
		diff(t, p.Bytes(), in)
		return
	}
	t.Fatal("no payload gives a checksum of zero")
}

// TestApplyAgainstFullSums compares the incremental checksums of random
// packets with sums taken anew over the whole packet.
func TestApplyAgainstFullSums(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 20000 {
		six := rnd.IntN(2) == 0
		src, dst := randomAddrPort(rnd, six), randomAddrPort(rnd, six)
		to, from := randomAddrPort(rnd, six), randomAddrPort(rnd, six)
		var r packet.Rewrite
		if rnd.IntN(3) > 0 {
			r.Dst = packet.EndpointFrom(to)
		}
		if rnd.IntN(3) > 0 || r.Dst.Family == 0 {
			r.Src = packet.EndpointFrom(from)
		}
		opts := []pt.Option{pt.Pad(rnd.IntN(90)), pt.Seq(rnd.Uint32()), pt.TTL(uint8(rnd.Uint32()))}
		var in []byte
		switch rnd.IntN(4) {
		case 0:
			in = pt.TCP(src.String(), dst.String(), opts...)
		case 1:
			in = pt.UDP(src.String(), dst.String(), opts...)
		case 2:
			in = pt.UDP(src.String(), dst.String(), append(opts, pt.NoSum)...)
		default:
			in = pt.SCTP(src.String(), dst.String(), 0, opts...)
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
		if p.VNet.Flags&packet.VNetNeedsCsum != 0 {
			p.CompleteChecksum()
			if err := pt.CheckPacket(p); err != nil {
				t.Fatalf("completed: %v after %+v\n%s", err, r, pt.Dump(p.Bytes()))
			}
		}
	}
}

// randomAddrPort favours the words 0000 and ffff, at which one's complement
// sums go wrong.
func randomAddrPort(rnd *rand.Rand, six bool) netip.AddrPort {
	word := func() uint16 { return [4]uint16{0, 0xffff, uint16(rnd.Uint32()), uint16(rnd.Uint32())}[rnd.IntN(4)] }
	var b [16]byte
	for i := 0; i < 16; i += 2 {
		binary.BigEndian.PutUint16(b[i:], word())
	}
	if six {
		b[0] = 0x20
		return netip.AddrPortFrom(netip.AddrFrom16(b), word())
	}
	b[0] = 10
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:4])), word())
}
