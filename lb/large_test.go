//go:build !race

package lb

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// TestTenMillionFlows holds the promises about memory and pauses: at most 128
// bytes a flow in all, by what the kernel counts for the process, and inserts
// that take less than a millisecond while the table grows from nothing. It
// takes 1.5 GiB and a minute, so it asks for UVS_TEST_LARGE=1.
func TestTenMillionFlows(t *testing.T) {
	if os.Getenv("UVS_TEST_LARGE") == "" {
		t.Skip("takes 1.5 GiB of memory; set UVS_TEST_LARGE=1 to run it")
	}
	tests := []struct {
		name  string
		flows int
	}{
		{"the limit that was promised", 10_000_000},
		{"shards that have just grown", 8192*1536 + 400_000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := grow(t, tt.flows)
			t.Logf("%.1f bytes a flow; longest stop %v; longest insert of a single pass %v, %d longer than 1 ms", g.perFlow, g.stop, g.longest, g.over)
			if g.perFlow > 128 {
				t.Errorf("%.1f bytes a flow", g.perFlow)
			}
			if g.stop > time.Millisecond {
				t.Errorf("an insert takes %v in each of %d passes", g.stop, growPasses)
			}
		})
	}
}

// BenchmarkGrow tells the memory per flow and the longest stop on the way to ten
// million flows.
func BenchmarkGrow(b *testing.B) {
	for b.Loop() {
		g := grow(b, 10_000_000)
		b.ReportMetric(g.perFlow, "B/flow")
		b.ReportMetric(float64(g.stop), "longest-ns")
		b.ReportMetric(float64(g.longest), "once-longest-ns")
		b.ReportMetric(float64(g.over), "once-over-1ms")
	}
}

// growPasses is how often a table is filled to find its own stops. Where other
// work takes the processor away during one insert in a thousand, three passes
// leave none of that among ten million.
const growPasses = 3

// A filling is what it took to fill a table.
type filling struct {
	perFlow float64 // bytes, after the first pass

	// stop is the longest insert by the shortest time that it took in any pass.
	// A pass repeats the one before to the last hash, so a stop that the table
	// makes falls on the same insert each time; one that the machine makes, by
	// other work, interrupts or the hypervisor, on another.
	stop time.Duration

	longest time.Duration // insert of all passes, whoever made it wait
	over    int           // inserts of all passes that took more than a millisecond
}

// grow fills tables with NAT flows from nothing.
func grow(tb testing.TB, flows int) (g filling) {
	tb.Helper()
	shortest := make([]uint32, flows) // of each insert, in ns
	for i := range shortest {
		shortest[i] = math.MaxUint32
	}
	seed := rand.Uint64()
	for pass := range growPasses {
		debug.FreeOSMemory()
		before := residentBytes(tb)
		table, set := newTestTable(tb, flows, fakeMode{})
		table.seed = seed
		g.fill(tb, table, set[0], shortest)
		if pass == 0 {
			g.perFlow = float64(residentBytes(tb)-before) / float64(flows)
		}
		table.close()
	}
	g.stop = time.Duration(slices.Max(shortest))
	return g
}

// fill fills one table, with a sweeper as Balancer.Run has it.
func (g *filling) fill(tb testing.TB, table *Table, rs *RealServer, shortest []uint32) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	done, swept := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(swept)
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				table.Sweep(0, sweepBudget)
			case <-done:
				for range 17 {
					table.Sweep(0, sweepBudget)
				}
				return
			}
		}
	}()
	last := time.Now()
	for i := range shortest {
		if _, why := table.add(rs, clientTuple(uint32(i), packet.UDP), UDPNormal, 0); why != packet.OK {
			tb.Fatalf("flow %d: %v", i, why)
		}
		now := time.Now()
		took := now.Sub(last)
		last = now
		shortest[i] = min(shortest[i], uint32(min(took, math.MaxUint32)))
		g.longest = max(g.longest, took)
		if took > time.Millisecond {
			g.over++
		}
	}
	close(done)
	<-swept
}

// residentBytes is the resident set of the process.
func residentBytes(tb testing.TB) int {
	tb.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		tb.Fatal(err)
	}
	pages, err := strconv.Atoi(string(bytes.Fields(b)[1]))
	if err != nil {
		tb.Fatal(fmt.Errorf("/proc/self/statm: %w", err))
	}
	return pages * os.Getpagesize()
}
