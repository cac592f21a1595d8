package stack

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// offer parses a fragment and places it. It answers with the ports that it
// got, or "waits", and what had waited for it.
func offer(t *testing.T, f *fragments, b []byte, now time.Duration, count *counters) (ports string, waited [][]byte) {
	t.Helper()
	p := packettest.Parsed(t, b)
	ready, waited := f.place(p, now, count)
	if !ready {
		return "waits", nil
	}
	for i := range waited {
		waited[i] = waited[i][packet.Headroom:]
	}
	return fmt.Sprintf("%d>%d", p.Tuple.SrcPort, p.Tuple.DstPort), waited
}

func TestFragmentsFollowTheFirst(t *testing.T) {
	v4 := packettest.Fragments(packettest.UDP("192.0.2.1:1234", "203.0.113.10:53", packettest.Pad(200), packettest.ID(7)), 80)
	v6 := packettest.Fragments(packettest.UDP("[2001:db8::1]:1234", "[2001:db8:a::10]:53", packettest.Pad(200)), 80)
	other := packettest.Fragments(packettest.UDP("192.0.2.1:4321", "203.0.113.10:53", packettest.Pad(200), packettest.ID(8)), 80)
	again := packettest.Fragments(packettest.UDP("192.0.2.1:4321", "203.0.113.10:53", packettest.Pad(200), packettest.ID(7)), 80)
	type step struct {
		in     []byte
		want   string
		waited [][]byte
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{name: "in order, IPv4", steps: []step{{in: v4[0], want: "1234>53"}, {in: v4[1], want: "1234>53"}, {in: v4[2], want: "1234>53"}}},
		{name: "in order, IPv6", steps: []step{{in: v6[0], want: "1234>53"}, {in: v6[1], want: "1234>53"}, {in: v6[2], want: "1234>53"}}},
		{name: "early ones wait and come in their order", steps: []step{
			{in: v4[2], want: "waits"}, {in: v4[1], want: "waits"}, {in: v4[0], want: "1234>53", waited: [][]byte{v4[2], v4[1]}}}},
		{name: "early ones of IPv6 wait", steps: []step{{in: v6[1], want: "waits"}, {in: v6[0], want: "1234>53", waited: [][]byte{v6[1]}}, {in: v6[2], want: "1234>53"}}},
		{name: "datagrams are told apart", steps: []step{
			{in: v4[1], want: "waits"}, {in: other[0], want: "4321>53"}, {in: other[1], want: "4321>53"}, {in: v4[0], want: "1234>53", waited: [][]byte{v4[1]}}}},
		{name: "the identification of a whole datagram is used again: early ones wait for the new first", steps: []step{
			{in: v4[0], want: "1234>53"}, {in: v4[1], want: "1234>53"}, {in: v4[2], want: "1234>53"},
			{in: again[1], want: "waits"}, {in: again[0], want: "4321>53", waited: [][]byte{again[1]}}, {in: again[2], want: "4321>53"}}},
		{name: "a first fragment sent twice is taken twice", steps: []step{
			{in: v4[0], want: "1234>53"}, {in: v4[0], want: "1234>53"}, {in: v4[1], want: "1234>53"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, count := newFragments(), new(counters)
			for i, s := range tt.steps {
				got, waited := offer(t, f, s.in, 0, count)
				if diff := cmp.Diff(s.waited, waited); got != s.want || diff != "" {
					t.Errorf("step %d: %s, want %s; waited (-want +got):\n%s", i, got, s.want, diff)
				}
			}
			if diff := cmp.Diff(QueueStats{}, count.stats()); diff != "" {
				t.Errorf("counted (-want +got):\n%s", diff)
			}
			if f.waiting != 0 || f.bytes != 0 {
				t.Errorf("%d fragments of %d bytes still wait", f.waiting, f.bytes)
			}
		})
	}
}

func TestFragmentsTimeOut(t *testing.T) {
	parts := packettest.Fragments(packettest.UDP("192.0.2.1:1234", "203.0.113.10:53", packettest.Pad(200), packettest.ID(7)), 80)
	f, count := newFragments(), new(counters)
	offer(t, f, parts[1], 0, count)
	offer(t, f, parts[2], fragmentTime-1, count)
	if got, waited := offer(t, f, parts[0], fragmentTime, count); got != "1234>53" || waited != nil {
		t.Errorf("first fragment: %s with %d that waited, want the ports alone", got, len(waited))
	}
	if n := count.dropped[packet.FragmentTimeout].Load(); n != 2 {
		t.Errorf("%d fragments timed out, want 2", n)
	}
	if got, _ := offer(t, f, parts[1], 2*fragmentTime, count); got != "waits" {
		t.Errorf("fragment after the ports were forgotten: %s, want it to wait", got)
	}
}

func TestFragmentsAreBounded(t *testing.T) {
	// early is the second fragment of datagram number i.
	early := func(i, size int) []byte {
		return packettest.Fragments(packettest.UDP("192.0.2.1:1234", fmt.Sprintf("203.0.113.%d:53", 1+i>>16), packettest.Pad(2*size), packettest.ID(uint16(i))), size)[1]
	}
	tests := []struct {
		name    string
		in      func(i int) []byte
		n       int // offered
		dropped int
		waiting int
	}{
		{name: "in all that wait", in: func(i int) []byte { return early(i, 16) }, n: maxEarly + 10, dropped: 10, waiting: maxEarly},
		{name: "in their bytes", in: func(i int) []byte { return early(i, 32760) }, n: 130, dropped: 3, waiting: maxEarlyBytes / (packet.Headroom + 20 + 32760)},
		{name: "in those of one datagram", in: func(int) []byte { return early(0, 16) }, n: maxEarlyPerDatagram + 5, dropped: 5, waiting: maxEarlyPerDatagram},
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

func TestKnownDatagramsAreBounded(t *testing.T) {
	f, count := newFragments(), new(counters)
	for i := range maxDatagrams + 100 {
		dst := fmt.Sprintf("203.0.113.%d:53", 1+i>>8)
		offer(t, f, packettest.Fragments(packettest.UDP("192.0.2.1:1234", dst, packettest.Pad(40), packettest.ID(uint16(i))), 16)[0], 0, count)
	}
	if len(f.datagrams) != maxDatagrams || f.known.Len() != maxDatagrams {
		t.Errorf("%d datagrams in the map and %d in the list, want %d", len(f.datagrams), f.known.Len(), maxDatagrams)
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
