package fastlane

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// testHop is a way out that any packet of the tests fits.
var testHop = Hop{IfIndex: 1, MTU: 1500, Addr: netip.MustParseAddr("10.2.0.254")}

// open makes a Lane that lives, or skips where the kernel does not let us.
func open(t testing.TB) *Lane {
	t.Helper()
	l, err := Open(Options{Flows: 1024, Accounts: 64})
	if err != nil {
		if os.Geteuid() == 0 || os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// try is Try, for packets that the kernel takes, of an uvs that is alive
// however long the test has taken until here.
func (l *Lane) try(t testing.TB, pkt []byte) (out []byte, carried bool) {
	t.Helper()
	if err := l.Beat(); err != nil {
		t.Fatal(err)
	}
	return l.tryAsItIs(t, pkt)
}

func (l *Lane) tryAsItIs(t testing.TB, pkt []byte) (out []byte, carried bool) {
	t.Helper()
	out, carried, err := l.Try(pkt)
	if err != nil {
		t.Fatal(err)
	}
	return out, carried
}

// goRoad is what the TUN road makes of the packet: the host's kernel
// decrements the TTL, then the engine rewrites.
func goRoad(t testing.TB, pkt []byte, rw *packet.Rewrite) []byte {
	t.Helper()
	pkt = bytes.Clone(pkt)
	if pkt[0]>>4 == 4 {
		pkt[8]--
		binary.BigEndian.PutUint16(pkt[10:], 0)
		binary.BigEndian.PutUint16(pkt[10:], headerSum(pkt[:20]))
	} else {
		pkt[7]--
	}
	p := packettest.Parsed(t, pkt)
	if why := rw.Apply(p); why != packet.OK {
		t.Fatalf("the engine refuses: %v", why)
	}
	buf, start, end := p.Buffer()
	return buf[start:end]
}

func headerSum(h []byte) uint16 {
	var s uint32
	for i := 0; i < len(h); i += 2 {
		s += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// made4 says whether rw makes a new IPv4 header for a packet that has one of
// the given family.
func made4(family uint8, rw *packet.Rewrite) bool {
	if rw.Encap.Kind != packet.NoEncap {
		return rw.Encap.Family == packet.IPv4
	}
	return family == packet.IPv6 && rw.Dst.Family == packet.IPv4
}

// free blanks what two directors need not agree on: the identification of a
// new IPv4 header that may be fragmented, and the checksum that covers it.
func free(pkt []byte) []byte {
	pkt = bytes.Clone(pkt)
	if pkt[6]&0x40 == 0 {
		clear(pkt[4:6])
		clear(pkt[10:12])
	}
	return pkt
}

// same puts the flow of pkt into the lane and compares both roads.
func same(t testing.TB, l *Lane, pkt []byte, rw packet.Rewrite) {
	t.Helper()
	p := packettest.Parsed(t, pkt)
	if err := l.Put(&Entry{Tuple: p.Tuple, Rewrite: rw, Hop: testHop}, l.Generation()); err != nil {
		t.Fatal(err)
	}
	defer l.Delete(&p.Tuple)
	got, carried := l.try(t, pkt)
	if !carried {
		t.Fatalf("the program does not carry\n%s", packettest.Dump(pkt))
	}
	want := goRoad(t, pkt, &rw)
	fresh := made4(p.Tuple.Family, &rw)
	if fresh && headerSum(got[:20]) != 0 {
		t.Fatalf("the header checksum is wrong in\n%s", packettest.Dump(got))
	}
	if fresh {
		got, want = free(got), free(want)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("rewrite %+v of\n%s\nthe lane made\n%s\nthe engine makes\n%s", rw, packettest.Dump(pkt), packettest.Dump(got), packettest.Dump(want))
	}
}

func endpoint(s string) packet.Endpoint { return packet.EndpointFrom(netip.MustParseAddrPort(s)) }

func outer(kind packet.EncapKind, src, dst string, port uint16) packet.Rewrite {
	e := packet.Encap{Kind: kind, Port: port}
	e.Src, e.Family = packet.AddrFrom(netip.MustParseAddr(src))
	e.Dst, _ = packet.AddrFrom(netip.MustParseAddr(dst))
	return packet.Rewrite{Encap: e}
}

func TestLaneMakesWhatTheEngineMakes(t *testing.T) {
	const (
		c4, v4, r4, l4 = "198.51.100.7:40000", "203.0.113.10:80", "10.2.0.11:8080", "10.9.0.1:1025"
		c6, v6, r6, l6 = "[2001:db8:c::7]:40000", "[2001:db8:ff::10]:80", "[2001:db8:2::11]:8080", "[2001:db8:9::1]:1025"
	)
	l := open(t)
	nat := func(dst string) packet.Rewrite { return packet.Rewrite{Dst: endpoint(dst)} }
	natReply := func(src string) packet.Rewrite { return packet.Rewrite{Src: endpoint(src)} }
	full := func(src, dst string) packet.Rewrite {
		return packet.Rewrite{Src: endpoint(src), Dst: endpoint(dst)}
	}
	dr := packet.Rewrite{NextHop: endpoint(r4)}
	payload := packettest.Data("an odd payload!")
	for _, row := range []struct {
		name string
		pkt  []byte
		rw   packet.Rewrite
	}{
		{"dr changes the TTL only", packettest.TCP(c4, v4, payload), dr},
		{"dr of IPv6", packettest.TCP(c6, v6, payload), dr},
		{"nat of TCP", packettest.TCP(c4, v4, payload), nat(r4)},
		{"nat of UDP", packettest.UDP(c4, v4, payload), nat(r4)},
		{"nat of IPv6 TCP", packettest.TCP(c6, v6, payload), nat(r6)},
		{"nat of IPv6 UDP", packettest.UDP(c6, v6, payload), nat(r6)},
		{"nat of a reply", packettest.TCP(r4, c4, payload), natReply(v4)},
		{"nat of an IPv6 reply", packettest.UDP(r6, c6, payload), natReply(v6)},
		{"fullnat of TCP", packettest.TCP(c4, v4, payload), full(l4, r4)},
		{"fullnat of UDP", packettest.UDP(c4, v4, payload), full(l4, r4)},
		{"fullnat of IPv6 TCP", packettest.TCP(c6, v6, payload), full(l6, r6)},
		{"fullnat of an IPv6 reply", packettest.TCP(r6, l6, payload), full(v6, c6)},
		{"fullnat to a real server of IPv6", packettest.TCP(c4, v4, payload, packettest.DF), full(l6, r6)},
		{"its reply", packettest.UDP(r6, l6, payload), full(v4, c4)},
		{"fullnat to a real server of IPv4", packettest.UDP(c6, v6, payload), full(l4, r4)},
		{"its long reply", packettest.TCP(r4, l4, packettest.Pad(1400), packettest.DF), full(v6, c6)},
		{"a long packet from IPv6 to IPv4", packettest.TCP(c6, v6, packettest.Pad(1300)), full(l4, r4)},
		{"ipip", packettest.TCP(c4, v4, payload), outer(packet.IPIP, "10.2.0.1", "10.2.0.11", 0)},
		{"ipip without DF", packettest.UDP(c4, v4, payload), outer(packet.IPIP, "10.2.0.1", "10.2.0.11", 0)},
		{"IPv6 in IPv4", packettest.TCP(c6, v6, payload), outer(packet.IPIP, "10.2.0.1", "10.2.0.11", 0)},
		{"IPv4 in IPv6", packettest.TCP(c4, v4, payload), outer(packet.IPIP, "2001:db8:2::1", "2001:db8:2::11", 0)},
		{"IPv6 in IPv6", packettest.TCP(c6, v6, payload), outer(packet.IPIP, "2001:db8:2::1", "2001:db8:2::11", 0)},
		{"gue", packettest.TCP(c4, v4, payload), outer(packet.GUE, "10.2.0.1", "10.2.0.11", 6080)},
		{"gue over IPv6", packettest.UDP(c6, v6, payload), outer(packet.GUE, "2001:db8:2::1", "2001:db8:2::11", 6080)},
		{"gre", packettest.TCP(c4, v4, payload), outer(packet.GRE, "10.2.0.1", "10.2.0.11", 0)},
		{"gre of IPv6", packettest.TCP(c6, v6, payload), outer(packet.GRE, "10.2.0.1", "10.2.0.11", 0)},
		{"congestion experienced in a tunnel", packettest.TCP(c4, v4, packettest.TOS(0xb7)), outer(packet.IPIP, "10.2.0.1", "10.2.0.11", 0)},
	} {
		t.Run(row.name, func(t *testing.T) { same(t, l, row.pkt, row.rw) })
	}
}

func TestWhatUvsMustSeeGoesUp(t *testing.T) {
	const c4, v4, r4 = "198.51.100.7:40000", "203.0.113.10:80", "10.2.0.11:8080"
	l := open(t)
	rw := packet.Rewrite{Dst: endpoint(r4)}
	for _, proto := range [][]byte{packettest.TCP(c4, v4), packettest.UDP(c4, v4)} {
		if err := l.Put(&Entry{Tuple: packettest.Parsed(t, proto).Tuple, Rewrite: rw, Hop: testHop}, l.Generation()); err != nil {
			t.Fatal(err)
		}
	}
	crossing := packet.Rewrite{Src: endpoint("[2001:db8::1]:1"), Dst: endpoint("[2001:db8::2]:2")}
	if err := l.Put(&Entry{Tuple: packettest.Parsed(t, packettest.UDP(c4, "203.0.113.11:80")).Tuple, Rewrite: crossing, Hop: testHop}, l.Generation()); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 1500-40+1)
	for _, row := range []struct {
		name string
		pkt  []byte
	}{
		{"a SYN", packettest.TCP(c4, v4, packettest.SYN)},
		{"a FIN", packettest.TCP(c4, v4, packettest.FIN)},
		{"an RST", packettest.TCP(c4, v4, packettest.RST)},
		{"no ACK", packettest.TCP(c4, v4, packettest.Flags(0))},
		{"a TTL of 1", packettest.TCP(c4, v4, packettest.TTL(1))},
		{"a TTL of 0", packettest.TCP(c4, v4, packettest.TTL(0))},
		{"too big for the way out", packettest.TCP(c4, v4, packettest.Data(string(big)))},
		{"UDP without a checksum", packettest.UDP(c4, v4, packettest.NoSum)},
		{"a first fragment", packettest.Fragments(packettest.UDP(c4, v4, packettest.Pad(64)), 32)[0]},
		{"a later fragment", packettest.Fragments(packettest.UDP(c4, v4, packettest.Pad(64)), 32)[1]},
		{"an unknown flow", packettest.TCP("198.51.100.7:40001", v4)},
		{"an ICMP error", packettest.Error("198.51.100.7", "203.0.113.10", 3, 4, 1400, packettest.TCP(v4, c4))},
		{"a long packet that may be fragmented, to the other family", packettest.UDP(c4, "203.0.113.11:80", packettest.Pad(1300))},
		{"padding behind the packet", append(packettest.TCP(c4, v4), 0, 0)},
	} {
		t.Run(row.name, func(t *testing.T) {
			out, carried := l.try(t, row.pkt)
			if carried {
				t.Error("the program carries it")
			}
			if !bytes.Equal(out, row.pkt) {
				t.Errorf("changed to\n%s", packettest.Dump(out))
			}
		})
	}
	if _, carried := l.try(t, packettest.TCP(c4, v4)); !carried {
		t.Error("an ordinary packet is not carried: the rows above prove nothing")
	}
}

func TestStaleEntriesAreHarmless(t *testing.T) {
	const c4, v4, r4 = "198.51.100.7:40000", "203.0.113.10:80", "10.2.0.11:8080"
	l := open(t)
	pkt := packettest.TCP(c4, v4)
	tuple := packettest.Parsed(t, pkt).Tuple
	put := func(generation uint32) {
		t.Helper()
		if err := l.Put(&Entry{Tuple: tuple, Rewrite: packet.Rewrite{Dst: endpoint(r4)}, Hop: testHop}, generation); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, want bool) {
		t.Helper()
		if _, carried := l.try(t, pkt); carried != want {
			t.Errorf("%s: carried: %v, want %v", what, carried, want)
		}
	}
	before := l.Generation()
	put(before)
	expect("a fresh entry", true)
	if err := l.Invalidate(); err != nil {
		t.Fatal(err)
	}
	expect("an entry from before the routes changed", false)
	put(before)
	expect("an entry that was made before the routes changed, and put after", false)
	put(l.Generation())
	expect("the entry put anew", true)

	dead := laneControl{Generation: l.generation.Load(), Beat: uint64(clock() - 3*time.Second)}
	if err := l.objects.Control.Put(uint32(0), dead); err != nil {
		t.Fatal(err)
	}
	if _, carried := l.tryAsItIs(t, pkt); carried {
		t.Error("the entry of an uvs that is silent for three seconds is carried")
	}
	expect("the entry of an uvs that beats again", true)
	if err := l.Delete(&tuple); err != nil {
		t.Fatal(err)
	}
	expect("an entry that was taken back", false)
	if err := l.Delete(&tuple); err != nil {
		t.Errorf("taking back what is not there: %v", err)
	}
}

func TestCarriedPacketsAreCounted(t *testing.T) {
	const c4, v4, r4 = "198.51.100.7:40000", "203.0.113.10:80", "10.2.0.11:8080"
	l := open(t)
	pkt := packettest.TCP(c4, v4, packettest.Pad(100))
	tuple := packettest.Parsed(t, pkt).Tuple
	if err := l.Put(&Entry{Tuple: tuple, Rewrite: packet.Rewrite{Dst: endpoint(r4)}, Hop: testHop, Account: 5}, l.Generation()); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.Seen(&tuple); ok {
		t.Error("seen before the first packet")
	}
	before := time.Now()
	for range 3 {
		l.try(t, pkt)
	}
	got, err := l.Count(5)
	if err != nil || got != (Count{3, 3 * uint64(len(pkt))}) {
		t.Errorf("counted %+v, %v; want 3 packets of %d bytes", got, err, len(pkt))
	}
	if ago, ok := l.Seen(&tuple); !ok || ago > time.Since(before) {
		t.Errorf("seen %v ago (%v), want within %v", ago, ok, time.Since(before))
	}
	other := tuple
	other.SrcPort++
	if _, ok := l.Seen(&other); ok {
		t.Error("a flow that the lane does not have was seen")
	}
}

var twinPackets = flag.Int("twin", 20_000, "how many random packets TestRandomPacketsOnBothRoads compares")

// TestRandomPacketsOnBothRoads is the comparison with whatever a packet and a
// rewrite can hold. make twin runs it for a million.
func TestRandomPacketsOnBothRoads(t *testing.T) {
	l := open(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for n := 0; n < *twinPackets; {
		pkt, rw := random(r)
		if packettest.Load(pkt).Parse() != packet.OK {
			continue // a source that cannot be
		}
		same(t, l, pkt, rw)
		n++
	}
}

// random makes a packet that the lane has to carry and a rewrite for it. Its
// checksum may be wrong, and words of zeros and ones are frequent.
func random(r *rand.Rand) ([]byte, packet.Rewrite) {
	v6 := r.IntN(2) == 1
	opts := []packettest.Option{
		packettest.TTL(uint8(2 + r.IntN(254))), packettest.TOS(uint8(r.Uint32())),
		packettest.Data(string(randomBytes(r, r.IntN(200)))),
	}
	if r.IntN(2) == 1 && !v6 {
		opts = append(opts, packettest.DF)
	}
	var pkt []byte
	field := 16
	if r.IntN(2) == 1 {
		pkt = packettest.TCP(randomEndpoint(r, v6), randomEndpoint(r, v6), opts...)
	} else {
		field = 6
		pkt = packettest.UDP(randomEndpoint(r, v6), randomEndpoint(r, v6), opts...)
	}
	if r.IntN(4) == 0 {
		l4 := 20
		if v6 {
			l4 = 40
		}
		binary.BigEndian.PutUint16(pkt[l4+field:], []uint16{0xffff, 1, uint16(1 + r.IntN(0xffff))}[r.IntN(3)])
	}
	switch r.IntN(5) {
	case 0:
		return pkt, packet.Rewrite{NextHop: endpoint("10.2.0.11:0")}
	case 1:
		return pkt, packet.Rewrite{Dst: endpoint(randomEndpoint(r, v6))}
	case 2:
		return pkt, packet.Rewrite{Src: endpoint(randomEndpoint(r, v6))}
	case 3:
		to := r.IntN(2) == 1
		return pkt, packet.Rewrite{Src: endpoint(randomEndpoint(r, to)), Dst: endpoint(randomEndpoint(r, to))}
	}
	kind := packet.IPIP + packet.EncapKind(r.IntN(3))
	if r.IntN(2) == 1 {
		return pkt, outer(kind, "2001:db8:2::1", "2001:db8:2::11", uint16(r.Uint32()))
	}
	return pkt, outer(kind, "10.2.0.1", "10.2.0.11", uint16(r.Uint32()))
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = []byte{0, 0xff, byte(r.Uint32())}[r.IntN(3)]
	}
	return b
}

func randomEndpoint(r *rand.Rand, v6 bool) string {
	port := []uint32{0, 0xffff, r.Uint32() & 0xffff}[r.IntN(3)]
	if v6 {
		return fmt.Sprintf("[%v]:%d", netip.AddrFrom16([16]byte(randomBytes(r, 16))), port)
	}
	return fmt.Sprintf("%v:%d", netip.AddrFrom4([4]byte(randomBytes(r, 4))), port)
}
