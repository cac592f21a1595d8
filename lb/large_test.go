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
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			debug.FreeOSMemory()
			before := residentBytes(t)
			table, set := newTestTable(t, tt.flows, fakeMode{})
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
			var longest time.Duration
			over := 0
			start, last := time.Now(), threadTime(t)
			first := last
			for i := range uint32(tt.flows) {
				if _, why := table.add(set[0], clientTuple(i, packet.UDP), UDPNormal, 0); why != packet.OK {
					t.Fatalf("flow %d: %v", i, why)
				}
				now := threadTime(t)
				longest = max(longest, now-last)
				if now-last > time.Millisecond {
					over++
				}
				last = now
			}
			used := threadTime(t) - first
			close(done)
			<-swept
			perFlow := float64(residentBytes(t)-before) / float64(tt.flows)
			t.Logf("%.1f bytes a flow; %v to insert one, of which %v CPU time; longest %v, %d longer than 1 ms",
				perFlow, time.Since(start)/time.Duration(tt.flows), used/time.Duration(tt.flows), longest, over)
			if perFlow > 128 {
				t.Errorf("%.1f bytes a flow", perFlow)
			}
			// Interrupts are charged to the thread that they hit, so a few are not
			// the table's; a growth that took too long would do so in thousands of
			// shards.
			if over > 100 {
				t.Errorf("%d inserts took more than 1 ms of CPU time", over)
			}
		})
	}
}

// residentBytes is the resident set of the process.
func residentBytes(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(string(bytes.Fields(b)[1]))
	if err != nil {
		t.Fatal(fmt.Errorf("/proc/self/statm: %w", err))
	}
	return pages * os.Getpagesize()
}

// threadTime is the CPU time that the thread has used, so that the work of
// others on the machine does not count.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
