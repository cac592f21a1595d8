//go:build !race

package lb

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// TestTenMillionFlows holds the promises about memory and pauses: at most 128
// bytes a flow in all, by what the kernel counts for the process, and inserts
// that take less than a millisecond while the table grows from nothing. It
// takes 1.5 GiB and half a minute, so it asks for UVS_TEST_LARGE=1.
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
			t.Logf("%.1f bytes a flow; longest insert %v, %d longer than 1 ms", g.perFlow, g.longest, g.over)
			if g.perFlow > 128 {
				t.Errorf("%.1f bytes a flow", g.perFlow)
			}
			// Interrupts are charged to the thread that they hit, so a few are not
			// the table's; a growth that took too long would do so in thousands of
			// shards.
			if g.over > 100 {
				t.Errorf("%d inserts took more than 1 ms of CPU time", g.over)
			}
		})
	}
}

// BenchmarkGrow tells the memory per flow and the longest inserts on the way to ten
// million flows.
func BenchmarkGrow(b *testing.B) {
	for b.Loop() {
		g := grow(b, 10_000_000)
		b.ReportMetric(g.perFlow, "B/flow")
		b.ReportMetric(float64(g.longest), "longest-ns")
		b.ReportMetric(float64(g.over), "over-1ms")
	}
}

// A filling is what it took to fill a table.
type filling struct {
	perFlow float64       // bytes
	longest time.Duration // CPU time of the longest insert
	over    int           // inserts that took more than a millisecond of CPU time
}

// grow fills a table with NAT flows from nothing.
func grow(tb testing.TB, flows int) (g filling) {
	tb.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	debug.FreeOSMemory()
	before := residentBytes(tb)
	table, set := newTestTable(tb, flows, fakeMode{})
	done, swept := make(chan struct{}), make(chan struct{})
	go func() { // as Balancer.Run does
		defer close(swept)
		tick := time.NewTicker(sweepEvery)
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
	last := threadTime(tb)
	for i := range uint32(flows) {
		if _, why := table.add(set[0], clientTuple(i, packet.UDP), UDPNormal, 0); why != packet.OK {
			tb.Fatalf("flow %d: %v", i, why)
		}
		now := threadTime(tb)
		g.longest = max(g.longest, now-last)
		if now-last > time.Millisecond {
			g.over++
		}
		last = now
	}
	close(done)
	<-swept
	g.perFlow = float64(residentBytes(tb)-before) / float64(flows)
	return g
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

// threadTime is the CPU time that the thread has used, so that the work of
// others on the machine does not count.
func threadTime(tb testing.TB) time.Duration {
	tb.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
