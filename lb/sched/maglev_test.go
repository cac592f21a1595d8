package sched

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// someServers are n real servers of weight 1; another round has others.
func someServers(n, round int) []*lb.RealServer {
	set := make([]*lb.RealServer, n)
	for i := range set {
		e := packet.Endpoint{Port: 80, Family: packet.IPv4}
		binary.BigEndian.PutUint32(e.Addr[:], 10<<24|uint32(round)<<16|uint32(i))
		set[i] = &lb.RealServer{Endpoint: e, Weight: 1, LastWeight: 1}
	}
	return set
}

func mustBuild(tb testing.TB, name string, o Options, set []*lb.RealServer, before lb.Scheduler) lb.Scheduler {
	tb.Helper()
	build, err := New(name, o)
	if err != nil {
		tb.Fatal(err)
	}
	return build(set, before)
}

// tableOf is who has each slot.
func tableOf(tb testing.TB, size int, set []*lb.RealServer) []*lb.RealServer {
	tb.Helper()
	s := mustBuild(tb, "maglev", Options{Maglev: Maglev{Slots: size}}, set, nil).(*maglev)
	owners := make([]*lb.RealServer, size)
	for i, n := range s.slots {
		owners[i] = s.set[n]
	}
	return owners
}

func TestMaglevSpread(t *testing.T) {
	for _, size := range []int{251, 16381, 65537} {
		for _, n := range []int{1, 3, 10, 100, 250} {
			c := counts(mustBuild(t, "maglev", Options{Maglev: Maglev{Slots: size}}, someServers(n, 0), nil).(*maglev).slots, n)
			if slices.Max(c)-slices.Min(c) > 1 {
				t.Errorf("%d slots, %d real servers: between %d and %d slots", size, n, slices.Min(c), slices.Max(c))
			}
		}
	}
}

func TestMaglevWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		set := someServers(2+r.IntN(30), 0)
		sum := 0
		for _, rs := range set {
			rs.Weight = 1 + r.IntN(1000)
			sum += rs.Weight
		}
		s := mustBuild(t, "maglev", Options{}, set, nil).(*maglev)
		for i, n := range counts(s.slots, len(s.set)) {
			want := float64(len(s.slots)) * float64(s.set[i].Weight) / float64(sum)
			// A light one may be ahead by a slot, and all light ones
			// together take that from the heavy.
			if d := float64(n) - want; d > 1.5 || d < -float64(len(set)) {
				t.Errorf("weight %d of %d: %d slots, want %.1f", s.set[i].Weight, sum, n, want)
			}
		}
	}
}

// TestMaglevDependsOnTheSetAlone: neither order nor past nor who has weight 0
// change a choice.
func TestMaglevDependsOnTheSetAlone(t *testing.T) {
	set := someServers(20, 0)
	for i, rs := range set {
		rs.Weight = i%3 + 1
	}
	want := mustBuild(t, "maglev", Options{}, set, nil).(*maglev)

	shuffled := slices.Clone(set)
	rand.Shuffle(len(set), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	drained := someServers(1, 1)
	drained[0].Weight = 0
	grown := mustBuild(t, "maglev", Options{}, append(someServers(3, 2), set...), nil)
	for name, got := range map[string]lb.Scheduler{
		"in another order":          mustBuild(t, "maglev", Options{}, shuffled, nil),
		"with one of weight 0":      mustBuild(t, "maglev", Options{}, append(drained, set...), nil),
		"after others were removed": mustBuild(t, "maglev", Options{}, set, grown),
		"unchanged":                 mustBuild(t, "maglev", Options{}, set, want),
	} {
		if !slices.Equal(want.slots, got.(*maglev).slots) {
			t.Errorf("%s the table is another", name)
		}
	}
	if again := mustBuild(t, "maglev", Options{}, set, want).(*maglev); &again.slots[0] != &want.slots[0] {
		t.Error("the table of an unchanged set is built anew")
	}
	changed := someServers(20, 0)
	if again := mustBuild(t, "maglev", Options{}, changed, want).(*maglev); slices.Equal(again.slots, want.slots) {
		t.Error("changed weights leave the table as it was")
	}
}

// TestMaglevFields: only the chosen fields of a tuple matter, and each of
// them does.
func TestMaglevFields(t *testing.T) {
	set := someServers(100, 0)
	base := packet.Tuple{Src: packet.Addr{192, 0, 2, 1}, Dst: packet.Addr{203, 0, 113, 10}, SrcPort: 1234, DstPort: 80, Proto: packet.TCP, Family: packet.IPv4}
	change := map[string]func(*packet.Tuple, int){
		"src":      func(t *packet.Tuple, n int) { t.Src[3] = byte(n) },
		"src_port": func(t *packet.Tuple, n int) { t.SrcPort = uint16(n) },
		"dst":      func(t *packet.Tuple, n int) { t.Dst[15] = byte(n) },
		"dst_port": func(t *packet.Tuple, n int) { t.DstPort = uint16(n) },
		"proto":    func(t *packet.Tuple, n int) { t.Proto = uint8(n) },
	}
	for _, fields := range [][]string{nil, {"src"}, {"src", "src_port"}, {"dst", "dst_port", "proto"}} {
		s := mustBuild(t, "maglev", Options{Maglev: Maglev{Fields: fields}}, set, nil)
		for _, field := range MaglevFields() {
			seen := map[*lb.RealServer]bool{}
			for n := range 50 {
				tuple := base
				change[field](&tuple, n)
				seen[s.Pick(&tuple, 0)] = true
			}
			matters := len(fields) == 0 || slices.Contains(fields, field)
			if matters && len(seen) < 25 || !matters && len(seen) != 1 {
				t.Errorf("fields %v: 50 values of %s lead to %d real servers", fields, field, len(seen))
			}
		}
	}
}

func TestMaglevKey(t *testing.T) {
	set := someServers(10, 0)
	one := mustBuild(t, "maglev", Options{Maglev: Maglev{Key: "one"}}, set, nil).(*maglev)
	other := mustBuild(t, "maglev", Options{Maglev: Maglev{Key: "other"}}, set, one).(*maglev)
	same := 0
	for i := range one.slots {
		if one.set[one.slots[i]] == other.set[other.slots[i]] {
			same++
		}
	}
	if same > len(one.slots)/5 {
		t.Errorf("with another key %d of %d slots are the same, want about a tenth", same, len(one.slots))
	}
}

func TestMaglevRefuses(t *testing.T) {
	for _, tt := range []struct {
		o    Maglev
		want string
	}{
		{Maglev{Slots: 65536}, "scheduler maglev: slots: 65536 is not a prime up to 5000011"},
		{Maglev{Slots: -7}, "scheduler maglev: slots: -7 is not a prime up to 5000011"},
		{Maglev{Slots: 5000077}, "scheduler maglev: slots: 5000077 is not a prime up to 5000011"},
		{Maglev{Fields: []string{"src", "ttl"}}, `scheduler maglev: fields: "ttl" is none of src, src_port, dst, dst_port, proto`},
		{Maglev{MaxLoad: 100}, "scheduler maglev: max_load: 100 is not above 100, nor 0 for no bound"},
	} {
		if _, err := New("maglev", Options{Maglev: tt.o}); err == nil || err.Error() != tt.want {
			t.Errorf("%+v: %v, want %s", tt.o, err, tt.want)
		}
	}
}
