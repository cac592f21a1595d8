package stack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// offer places a fragment and, where it leads, has the others follow. It says
// whose turn it was, with the ports, and what followed it or made up the whole.
func offer(t *testing.T, f *fragments, b []byte, now time.Duration, count *counters) (turn string, others [][]byte) {
	t.Helper()
	p := packettest.Parsed(t, b)
	key := keyOf(p)
	whose, all := f.place(p, now, count)
	ports := fmt.Sprintf("%d>%d", p.Tuple.SrcPort, p.Tuple.DstPort)
	switch whose {
	case itsOwn:
		return ports, nil
	case asLeader:
		for _, p := range f.follow(key, count) {
			if got := fmt.Sprintf("%d>%d", p.Tuple.SrcPort, p.Tuple.DstPort); got != ports {
				t.Errorf("a follower has the ports %s, its first %s", got, ports)
			}
			others = append(others, p.Bytes())
		}
		return ports + " leads", others
	case allOf:
		for _, b := range all {
			others = append(others, b[packet.Headroom:])
		}
		return "all", others
	}
	return "waits", nil
}

// counted are the drops by reason, in words.
func counted(c *counters) string {
	var s []string
	for r := range c.dropped {
		if n := c.dropped[r].Load(); n != 0 {
			s = append(s, fmt.Sprintf("%d %v", n, packet.Reason(r)))
		}
	}
	return strings.Join(s, ", ")
}

func TestFragments(t *testing.T) {
	const client4, vip4, client6, vip6 = "192.0.2.1:1234", "203.0.113.10:53", "[2001:db8::1]:1234", "[2001:db8:a::10]:53"
	id := packettest.ID(7)
	cut := func(b []byte) [][]byte { return packettest.Fragments(b, 80) }
	v4 := cut(packettest.UDP(client4, vip4, packettest.Pad(200), id))
	v6 := cut(packettest.UDP(client6, vip6, packettest.Pad(200)))
	other := cut(packettest.UDP("192.0.2.1:4321", vip4, packettest.Pad(200), packettest.ID(8)))
	again := cut(packettest.UDP("192.0.2.1:4321", vip4, packettest.Pad(200), id))
	longer := cut(packettest.UDP(client4, vip4, packettest.Pad(400), id))
	shifted := packettest.Fragments(packettest.UDP(client4, vip4, packettest.Pad(200), id), 64)
	noSum := cut(packettest.UDP(client4, vip4, packettest.Pad(200), id, packettest.NoSum))
	sctp := cut(packettest.SCTP(client4, vip4, 0, packettest.Pad(200), id))
	echo := cut(packettest.Echo("2001:db8::1", "2001:db8:a::10", packettest.Pad(200)))
	tiny := packettest.Fragments(packettest.TCP(client4, vip4, packettest.SYN, packettest.Pad(20), id), 16)
	short := packettest.Fragments(packettest.UDP(client4, vip4, packettest.Pad(200), id), 72) // 77 bytes are 72
	type step struct {
		in     []byte
		want   string
		others [][]byte
	}
	tests := []struct {
		name    string
		steps   []step
		dropped string
	}{
		{name: "in order, IPv4", steps: []step{{in: v4[0], want: "1234>53 leads"}, {in: v4[1], want: "1234>53"}, {in: v4[2], want: "1234>53"}}},
		{name: "in order, IPv6", steps: []step{{in: v6[0], want: "1234>53 leads"}, {in: v6[1], want: "1234>53"}, {in: v6[2], want: "1234>53"}}},
		{name: "early ones wait and come in their order", steps: []step{
			{in: v4[2], want: "waits"}, {in: v4[1], want: "waits"}, {in: v4[0], want: "1234>53 leads", others: [][]byte{v4[2], v4[1]}}}},
		{name: "early ones of IPv6 wait", steps: []step{
			{in: v6[1], want: "waits"}, {in: v6[0], want: "1234>53 leads", others: [][]byte{v6[1]}}, {in: v6[2], want: "1234>53"}}},
		{name: "datagrams are told apart", steps: []step{
			{in: v4[1], want: "waits"}, {in: other[0], want: "4321>53 leads"}, {in: other[1], want: "4321>53"},
			{in: v4[0], want: "1234>53 leads", others: [][]byte{v4[1]}}, {in: v4[2], want: "1234>53"}}},
		{name: "the identification of a whole datagram is used again: early ones wait for the new first", steps: []step{
			{in: v4[0], want: "1234>53 leads"}, {in: v4[1], want: "1234>53"}, {in: v4[2], want: "1234>53"},
			{in: again[1], want: "waits"}, {in: again[0], want: "4321>53 leads", others: [][]byte{again[1]}}, {in: again[2], want: "4321>53"}}},
		{name: "what came before is dropped and harms nobody", dropped: "3 fragment_repeated", steps: []step{
			{in: v4[2], want: "waits"}, {in: v4[2], want: "waits"}, {in: v4[0], want: "1234>53 leads", others: [][]byte{v4[2]}},
			{in: v4[0], want: "waits"}, {in: v4[2], want: "waits"}, {in: v4[1], want: "1234>53"}}},
		{name: "an overlap spoils the datagram, behind the first", dropped: "3 fragment_overlap", steps: []step{
			{in: v4[0], want: "1234>53 leads"}, {in: shifted[1], want: "waits"}, {in: v4[1], want: "waits"}, {in: v4[2], want: "waits"}}},
		{name: "an overlap spoils the datagram, before the first", dropped: "4 fragment_overlap", steps: []step{
			{in: v4[1], want: "waits"}, {in: shifted[1], want: "waits"}, {in: v4[0], want: "waits"}, {in: v4[2], want: "waits"}}},
		{name: "a fragment behind the last spoils the datagram", dropped: "2 fragment_overlap", steps: []step{
			{in: v4[0], want: "1234>53 leads"}, {in: v4[2], want: "1234>53"}, {in: longer[3], want: "waits"}, {in: v4[1], want: "waits"}}},
		{name: "a last fragment before others spoils the datagram", dropped: "2 fragment_overlap", steps: []step{
			{in: longer[0], want: "1234>53 leads"}, {in: longer[3], want: "1234>53"}, {in: v4[2], want: "waits"}, {in: longer[1], want: "waits"}}},
		{name: "UDP without a checksum is put together", steps: []step{
			{in: noSum[2], want: "waits"}, {in: noSum[0], want: "waits"}, {in: noSum[1], want: "all", others: noSum}}},
		{name: "SCTP is put together", steps: []step{
			{in: sctp[0], want: "waits"}, {in: sctp[1], want: "waits"}, {in: sctp[2], want: "all", others: sctp}}},
		{name: "a part of eight bytes does not count before others", steps: []step{
			{in: packettest.Cut(v4[0], 20+77), want: "1234>53 leads"}, {in: short[1], want: "1234>53"}, {in: short[2], want: "1234>53"}}},
		{name: "ICMP is put together", steps: []step{
			{in: echo[2], want: "waits"}, {in: echo[1], want: "waits"}, {in: echo[0], want: "all", others: echo}}},
		{name: "TCP whose header is cut in two is put together", steps: []step{
			{in: tiny[0], want: "waits"}, {in: tiny[2], want: "waits"}, {in: tiny[1], want: "all", others: tiny}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, count := newFragments(), new(counters)
			for i, s := range tt.steps {
				got, others := offer(t, f, s.in, 0, count)
				if diff := cmp.Diff(s.others, others); got != s.want || diff != "" {
					t.Errorf("step %d: %s, want %s; others (-want +got):\n%s", i, got, s.want, diff)
				}
			}
			if got := counted(count); got != tt.dropped {
				t.Errorf("dropped %q, want %q", got, tt.dropped)
			}
			if f.waiting != 0 || f.bytes != 0 || f.open.Len() != 0 || len(f.datagrams) != f.settled.Len() {
				t.Errorf("%d fragments of %d bytes still wait, in %d datagrams; %d datagrams in all, %d settled", f.waiting, f.bytes, f.open.Len(), len(f.datagrams), f.settled.Len())
			}
		})
	}
}

// TestFragmentsWaitUntilTheFirstIsDone: a later fragment that another queue
// reads meanwhile would find no flow.
func TestFragmentsWaitUntilTheFirstIsDone(t *testing.T) {
	parts := packettest.Fragments(packettest.UDP("192.0.2.1:1234", "203.0.113.10:53", packettest.Pad(200), packettest.ID(7)), 80)
	f, count := newFragments(), new(counters)
	first := packettest.Parsed(t, parts[0])
	if whose, _ := f.place(first, 0, count); whose != asLeader {
		t.Fatalf("the first does not lead: %v", whose)
	}
	if got, _ := offer(t, f, parts[1], 0, count); got != "waits" {
		t.Errorf("a fragment while the first is with the handler: %s, want it to wait", got)
	}
	if got := f.follow(keyOf(first), count); len(got) != 1 || !bytes.Equal(got[0].Bytes(), parts[1]) {
		t.Errorf("%d fragments follow, want the one that waited", len(got))
	}
	if got, _ := offer(t, f, parts[2], 0, count); got != "1234>53" {
		t.Errorf("a fragment after that: %s", got)
	}
	if got := f.follow(keyOf(first), count); got != nil {
		t.Error("fragments follow twice")
	}
}

func TestFragmentsTimeOut(t *testing.T) {
	parts := packettest.Fragments(packettest.UDP("192.0.2.1:1234", "203.0.113.10:53", packettest.Pad(200), packettest.ID(7)), 80)
	f, count := newFragments(), new(counters)
	offer(t, f, parts[1], 0, count)
	offer(t, f, parts[2], fragmentTime4-1, count)
	if got, followed := offer(t, f, parts[0], fragmentTime4, count); got != "1234>53 leads" || followed != nil {
		t.Errorf("first fragment: %s with %d that waited, want the ports alone", got, len(followed))
	}
	if got, want := counted(count), "2 fragment_timeout"; got != want {
		t.Errorf("dropped %q, want %q", got, want)
	}
	if got, _ := offer(t, f, parts[1], 2*fragmentTime4, count); got != "waits" {
		t.Errorf("fragment after the ports were forgotten: %s, want it to wait", got)
	}
}

func TestFragmentsAreBounded(t *testing.T) {
	// early is the second fragment of datagram number i.
	early := func(i, size int) []byte {
		return packettest.Fragments(packettest.UDP("192.0.2.1:1234", fmt.Sprintf("203.0.113.%d:53", 1+i>>16), packettest.Pad(2*size), packettest.ID(uint16(i))), size)[1]
	}
	one := packettest.Fragments(packettest.UDP("192.0.2.1:1234", "203.0.113.1:53", packettest.Pad(4000)), 16)
	tests := []struct {
		name    string
		in      func(i int) []byte
		n       int // offered
		dropped int
		waiting int
	}{
		{name: "in all that wait", in: func(i int) []byte { return early(i, 16) }, n: maxWaiting + 10, dropped: 10, waiting: maxWaiting},
		{name: "in their bytes", in: func(i int) []byte { return early(i, 32760) }, n: 130, dropped: 3, waiting: maxWaitingInAll / (packet.Headroom + 20 + 32760)},
		{name: "in those of one datagram", in: func(i int) []byte { return one[i+1] }, n: maxWaitingPerDatagram + 5, dropped: maxWaitingPerDatagram + 1, waiting: 4},
		{name: "in the gaps of one datagram", in: func(i int) []byte { return one[2*i] }, n: maxSpans + 5, dropped: 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, count := newFragments(), new(counters)
			for i := range tt.n {
				offer(t, f, tt.in(i), 0, count)
			}
			if n := int(count.dropped[packet.FragmentOverflow].Load()); n != tt.dropped || f.waiting != tt.waiting {
				t.Errorf("dropped %d, want %d; waiting %d, want %d", n, tt.dropped, f.waiting, tt.waiting)
			}
		})
	}
}

func TestSettledDatagramsAreBounded(t *testing.T) {
	f, count := newFragments(), new(counters)
	for i := range maxDatagrams + 100 {
		dst := fmt.Sprintf("203.0.113.%d:53", 1+i>>8)
		offer(t, f, packettest.Fragments(packettest.UDP("192.0.2.1:1234", dst, packettest.Pad(40), packettest.ID(uint16(i))), 16)[0], 0, count)
	}
	if len(f.datagrams) != maxDatagrams || f.settled.Len() != maxDatagrams {
		t.Errorf("%d datagrams in the map and %d in the list, want %d", len(f.datagrams), f.settled.Len(), maxDatagrams)
	}
}

// TestSpans holds spans against a map of single bytes.
func TestSpans(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 2000 {
		var s spans
		came := map[int]bool{}
		last := 0
		for range 40 {
			from := r.IntN(30)
			to := from + r.IntN(8)
			more := r.IntN(6) != 0
			old, end := 0, 0
			for at := range came {
				end = max(end, at+1)
				if from <= at && at < to {
					old++
				}
			}
			want := fits
			switch {
			case from == to, last != 0 && to > last, !more && (to < end || last != 0 && to != last):
				want = overlaps
			case old == to-from:
				want = repeats
			case old > 0:
				want = overlaps
			default:
				for at := from; at < to; at++ {
					came[at] = true
				}
				if !more {
					last = to
				}
			}
			if got := s.add(from, to, more); got != want {
				t.Fatalf("seed %d, round %d: %d-%d %v to %v: %v, want %v", seed, round, from, to, more, s, got, want)
			}
			if s.complete() != (last != 0 && len(came) == last) {
				t.Fatalf("seed %d, round %d: complete is wrong for %v", seed, round, s)
			}
		}
	}
}

// TestRoadPutsTogether: what cannot be rewritten in pieces leaves as a whole,
// in whatever order its fragments come.
func TestRoadPutsTogether(t *testing.T) {
	tests := []struct {
		name     string
		to       string
		in, want []byte
	}{
		{name: "SCTP over IPv4", to: "10.0.0.1:5353",
			in:   packettest.SCTP("192.0.2.1:1234", "203.0.113.10:53", 0, packettest.Pad(300), packettest.ID(7)),
			want: packettest.SCTP("192.0.2.1:1234", "10.0.0.1:5353", 0, packettest.Pad(300), packettest.ID(7))},
		{name: "SCTP over IPv6", to: "[2001:db8:b::1]:5353",
			in:   packettest.SCTP("[2001:db8::1]:1234", "[2001:db8:a::10]:53", 0, packettest.Pad(300)),
			want: packettest.SCTP("[2001:db8::1]:1234", "[2001:db8:b::1]:5353", 0, packettest.Pad(300))},
		{name: "UDP that gets a checksum", to: "10.0.0.1:5353",
			in:   packettest.UDP("192.0.2.1:1234", "203.0.113.10:53", packettest.Pad(300), packettest.NoSum, packettest.DF),
			want: packettest.UDP("192.0.2.1:1234", "10.0.0.1:5353", packettest.Pad(300), packettest.DF)},
		{name: "IPv6 behind a hop-by-hop header", to: "[2001:db8:b::1]:5353",
			in:   packettest.SCTP("[2001:db8::1]:1234", "[2001:db8:a::10]:53", 0, packettest.Pad(300), packettest.HopByHop),
			want: packettest.SCTP("[2001:db8::1]:1234", "[2001:db8:b::1]:5353", 0, packettest.Pad(300), packettest.HopByHop)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parts := packettest.Fragments(tt.in, 120)
			for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}} {
				var in [][]byte
				for _, i := range order {
					in = append(in, packettest.Plain(parts[i]))
				}
				written, s := through(t, dnat(tt.to), Options{}, 0, in...)
				if len(written) != 1 || s.Packets != 3 || s.Sent != 1 {
					t.Fatalf("order %v: %d packets left: %+v", order, len(written), s)
				}
				if diff := cmp.Diff(packettest.Dump(tt.want), packettest.Dump(written[0][packet.VNetLen:])); diff != "" {
					t.Errorf("order %v (-want +got):\n%s", order, diff)
				}
			}
		})
	}
}

// TestRoadCutsAgain: an IPv6 datagram that was put together leaves in fragments
// no longer than those that came.
func TestRoadCutsAgain(t *testing.T) {
	in := packettest.SCTP("[2001:db8::1]:1234", "[2001:db8:a::10]:53", 0, packettest.Pad(4000))
	want := packettest.SCTP("[2001:db8::1]:1234", "[2001:db8:b::1]:5353", 0, packettest.Pad(4000))
	var parts [][]byte
	for _, b := range slices.Backward(packettest.Fragments(in, 1400)) {
		parts = append(parts, packettest.Plain(b))
	}
	written, _ := through(t, dnat("[2001:db8:b::1]:5353"), Options{}, 0, parts...)
	var got []byte
	for i, b := range written {
		b = b[packet.VNetLen:]
		if len(b) > 1448 {
			t.Errorf("fragment %d has %d bytes", i, len(b))
		}
		f := packettest.Parsed(t, b).Fragment()
		if !f.Is || int(f.Offset) != len(got) || f.More != (i < len(written)-1) {
			t.Errorf("fragment %d is %+v behind %d bytes", i, f, len(got))
		}
		got = append(got, b[48:]...)
	}
	if !bytes.Equal(got, want[40:]) {
		t.Errorf("%d bytes arrived, want %d, and the same", len(got), len(want)-40)
	}
}

func TestRoadSendsEarlyFragmentsBehindTheirFirst(t *testing.T) {
	for _, addrs := range [][3]string{
		{"192.0.2.1:1234", "203.0.113.10:53", "10.0.0.1:5353"},
		{"[2001:db8::1]:1234", "[2001:db8:a::10]:53", "[2001:db8:b::1]:5353"},
	} {
		in := packettest.Fragments(packettest.UDP(addrs[0], addrs[1], packettest.Pad(300), packettest.ID(7)), 120)
		out := packettest.Fragments(packettest.UDP(addrs[0], addrs[2], packettest.Pad(300), packettest.ID(7)), 120)
		tun := NewMemTUN(2)
		start(t, tun, dnat(addrs[2]), Options{})
		for _, i := range []int{2, 0, 1} {
			tun.InjectPacket(0, in[i])
		}
		for _, i := range []int{0, 2, 1} {
			if diff := cmp.Diff(out[i], next(t, tun, 0)[packet.VNetLen:]); diff != "" {
				t.Errorf("fragment %d (-want +got):\n%s", i, diff)
			}
		}
	}
}
