package sched

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// counts is how many slots each of n has.
func counts(slots []uint16, n int) []int {
	c := make([]int, n)
	for _, s := range slots {
		c[s]++
	}
	return c
}

// wishes are preferences for a table of size slots that a generator draws.
func wishes(r *rand.Rand, n, size int) []preference {
	w := make([]preference, n)
	for i := range w {
		w[i] = preference{first: r.Uint32N(uint32(size)), skip: r.Uint32N(uint32(size-1)) + 1}
	}
	return w
}

func equal(n int) []int { return slices.Repeat([]int{1}, n) }

// TestSlotsPublished: whole tables that others printed.
func TestSlotsPublished(t *testing.T) {
	paper := []preference{{3, 4}, {0, 2}, {3, 1}}
	dgryski := []preference{{2, 4}, {0, 5}, {1, 2}}
	tests := []struct {
		name   string
		wishes []preference
		want   []uint16
	}{
		{name: "the paper's table 1", wishes: paper, want: []uint16{1, 0, 1, 0, 2, 2, 0}},
		{name: "the paper's table 1 without the second", wishes: []preference{paper[0], paper[2]}, want: []uint16{0, 0, 0, 0, 1, 1, 1}},
		{name: "go-maglev", wishes: dgryski, want: []uint16{1, 2, 0, 2, 0, 1, 0}},
		{name: "go-maglev without the second", wishes: []preference{dgryski[0], dgryski[2]}, want: []uint16{0, 1, 0, 1, 0, 1, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			byWeight, inTurns := newSlotTable(7, tt.wishes), newSlotTable(7, tt.wishes)
			byWeight.fillByWeight(equal(len(tt.wishes)))
			inTurns.fillInTurns(equal(len(tt.wishes)))
			if diff := cmp.Diff(tt.want, byWeight.slots); diff != "" {
				t.Errorf("by weight (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, inTurns.slots); diff != "" {
				t.Errorf("in turns (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSlotsPerWeight: how many slots others say that weights give. They do not
// depend on the preferences.
func TestSlotsPerWeight(t *testing.T) {
	tests := []struct {
		name    string
		size    int
		weights []int
		want    []int
	}{
		{name: "Cilium", size: 1021, weights: []int{2, 13, 111, 10}, want: []int{16, 98, 832, 75}},
		{name: "Envoy", size: 65537, weights: []int{1, 2}, want: []int{21846, 43691}},
		{name: "Envoy, six in seven slots", size: 7, weights: equal(6), want: []int{2, 1, 1, 1, 1, 1}},
		{name: "Katran's first, seven slots", size: 7, weights: []int{2, 1}, want: []int{4, 3}},
		{name: "one alone", size: 251, weights: []int{7}, want: []int{251}},
		{name: "one that hardly weighs anything has a slot", size: 251, weights: []int{65535, 1}, want: []int{250, 1}},
		{name: "more real servers than slots", size: 3, weights: equal(5), want: []int{1, 1, 1, 0, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			for range 10 {
				table := newSlotTable(tt.size, wishes(r, len(tt.weights), tt.size))
				table.fillByWeight(tt.weights)
				if diff := cmp.Diff(tt.want, counts(table.slots, len(tt.weights))); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestFillByWeightAgainstRounds: the lists of who is due against a plain walk
// over all in every round.
func TestFillByWeightAgainstRounds(t *testing.T) {
	const size = 1021
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		n := 1 + r.IntN(50)
		weights := make([]int, n)
		for i := range weights {
			weights[i] = 1 + r.IntN(1<<r.IntN(17))
		}
		w := wishes(r, n, size)
		got := newSlotTable(size, w)
		got.fillByWeight(weights)

		want := make([]int, size)
		for i := range want {
			want[i] = -1
		}
		at := make([]int, n)
		had := make([]int, n)
		var waiting []int // all, whoever had a slot last at the end
		for i := range n {
			waiting = append(waiting, i)
		}
		left := size
		for round := 1; left > 0; round++ {
			for _, i := range slices.Clone(waiting) {
				if left == 0 || round*weights[i] < had[i]*slices.Max(weights) {
					continue
				}
				slot := func() int { return (int(w[i].first) + at[i]*int(w[i].skip)) % size }
				for want[slot()] >= 0 {
					at[i]++
				}
				want[slot()] = i
				had[i]++
				left--
				waiting = append(slices.DeleteFunc(waiting, func(o int) bool { return o == i }), i)
			}
		}
		for i := range want {
			if int(got.slots[i]) != want[i] {
				t.Fatalf("seed %d, weights %v: slot %d has %d, want %d", seed, weights, i, got.slots[i], want[i])
			}
		}
	}
}

// TestMaglevDisruption holds the tables to the measurements of an independent
// implementation: with real servers lost, how many slots of the others move,
// in per cent of the table.
func TestMaglevDisruption(t *testing.T) {
	tests := []struct {
		size, n, lose int
		collateral    float64
	}{
		{16381, 10, 1, 0.48},
		{16381, 100, 1, 1.35},
		{16381, 100, 5, 1.92},
		{16381, 100, 10, 2.14},
		{16381, 1000, 1, 0.58},
		{16381, 1000, 10, 3.59},
		{16381, 1000, 50, 6.60},
		{16381, 1000, 100, 7.35},
		{65537, 10, 1, 0.22},
		{65537, 100, 1, 0.55},
		{65537, 100, 5, 0.87},
		{65537, 100, 10, 1.00},
		{65537, 400, 1, 0.93},
		{65537, 400, 4, 1.33},
		{65537, 400, 20, 1.93},
		{65537, 400, 40, 2.15},
		{65537, 1000, 1, 0.56},
		{65537, 1000, 10, 2.29},
		{65537, 1000, 50, 3.25},
		{65537, 1000, 100, 3.53},
	}
	const rounds = 2
	for _, tt := range tests {
		moved := 0
		for round := range rounds {
			set := someServers(tt.n, round)
			before := tableOf(t, tt.size, set)
			after := tableOf(t, tt.size, set[tt.lose:])
			for i, was := range before {
				if after[i] != was && !slices.Contains(set[:tt.lose], was) {
					moved++
				}
			}
		}
		got := 100 * float64(moved) / float64(rounds*tt.size)
		t.Logf("%d slots, %d of %d lost: %.2f%% moved, published %.2f%%", tt.size, tt.lose, tt.n, got, tt.collateral)
		if got > tt.collateral*1.2 {
			t.Errorf("%d slots, %d of %d lost: %.2f%% of the slots moved from one to another that stayed, want at most %.2f%%",
				tt.size, tt.lose, tt.n, got, tt.collateral*1.2)
		}
	}
}
