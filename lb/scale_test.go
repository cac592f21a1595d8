//go:build !race

package lb

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// BenchmarkScaleLookup finds flows at random among ten million: one by one,
// and in batches that were prepared as the packet loop does it.
func BenchmarkScaleLookup(b *testing.B) {
	const flows, batch = 10_000_000, 64
	t, _ := filled(b, flows, flows, fakeMode{})
	keys := make([]packet.Tuple, 1<<20)
	for i := range keys {
		keys[i] = clientTuple(rand.Uint32N(flows), packet.UDP)
	}
	hashes := make([]uint64, batch)
	find := func(b *testing.B, k *packet.Tuple, hash uint64) {
		var f Flow
		if _, o := t.lookup(k, hash, udpDatagram, false, 1, &f, nil); o != known {
			b.Fatal("not found")
		}
	}
	// What others on the machine take does not count in the figure cpu-ns/op.
	timed := func(b *testing.B) func() {
		runtime.LockOSThread()
		start := threadTime(b)
		return func() {
			b.ReportMetric(float64(threadTime(b)-start)/float64(b.N), "cpu-ns/op")
			runtime.UnlockOSThread()
		}
	}
	b.Run("alone", func(b *testing.B) {
		defer timed(b)()
		i := 0
		for b.Loop() {
			k := &keys[i%len(keys)]
			find(b, k, k.Hash(t.seed))
			i++
		}
	})
	b.Run("prepared", func(b *testing.B) {
		defer timed(b)()
		i := 0
		for b.Loop() {
			if i%batch == 0 {
				some := keys[i%len(keys):][:batch]
				for j := range some {
					hashes[j] = some[j].Hash(t.seed)
					t.prefetchSlot(hashes[j])
				}
				for _, h := range hashes {
					t.prefetchEntry(h)
				}
			}
			find(b, &keys[i%len(keys)], hashes[i%batch])
			i++
		}
	})
}

// BenchmarkScaleExpiry has 100 000 flows come every second and live for 30, so
// that as many end, and tells how much of a core the sweeper needs.
func BenchmarkScaleExpiry(b *testing.B) {
	const perSecond, ticksPerSecond = 100_000, int(time.Second / sweepEvery)
	t, set := newTestTable(b, 4_000_000, fakeMode{})
	set[0].service.lifetimes = Timeouts{UDPNormal: 30 * time.Second}.lifetimes()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var client uint32
	now, spent := time.Duration(0), time.Duration(0)
	second := func() {
		for range ticksPerSecond {
			now += sweepEvery
			for range perSecond / ticksPerSecond {
				if _, why := t.add(set[0], clientTuple(client, packet.UDP), UDPNormal, tickOf(now)); why != packet.OK {
					b.Fatal(why)
				}
				client++
			}
			start := threadTime(b)
			t.Sweep(now, sweepBudget)
			spent += threadTime(b) - start
		}
	}
	for range 45 { // until as many end as come
		second()
	}
	spent = 0
	seconds, before := 0, t.stats().Expired
	for b.Loop() {
		second()
		seconds++
	}
	b.ReportMetric(float64(t.stats().Expired-before)/float64(seconds), "expired/s")
	b.ReportMetric(100*spent.Seconds()/float64(seconds), "%-of-a-core")
}

// A histogram counts durations, four buckets to each power of two.
type histogram struct {
	buckets [160]int
	total   time.Duration
	longest time.Duration
}

// bucket is the one of d, bound the least duration of a bucket.
func bucketOf(d time.Duration) int {
	n := max(4, uint64(d))
	exp := bits.Len64(n) - 3
	return exp*4 + int(n>>exp&3)
}

func bound(bucket int) time.Duration { return time.Duration(4|bucket&3) << (bucket / 4) }

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(d)]++
	h.total += d
	h.longest = max(h.longest, d)
}

// over counts the durations of at least d, a bound.
func (h *histogram) over(d time.Duration) (n int) {
	for i := bucketOf(d); i < len(h.buckets); i++ {
		n += h.buckets[i]
	}
	return n
}

// perSecond is how often in a second of its time a duration of at least d came.
func (h *histogram) perSecond(d time.Duration) float64 { return float64(h.over(d)) / h.total.Seconds() }

// millisecond is the bound next to one, 1.05 ms.
var millisecond = bound(bucketOf(1048576))

// TestScalePauses measures how long each of ten million packets takes while
// flows come and end by the hundred thousands, and, on the same thread and in
// turns with it, how long a loop that does nothing stands still: that is the
// machine's share. It takes half a minute, so it asks for UVS_TEST_LARGE=1.
// UVS_SCALE_SVG is the file for a picture.
func TestScalePauses(t *testing.T) {
	if os.Getenv("UVS_TEST_LARGE") == "" {
		t.Skip("takes half a minute of a core; set UVS_TEST_LARGE=1 to run it")
	}
	const packets, turn, batch = 10_000_000, 50_000, 50 // batches as the packet loop has them under load
	b := newTestBalancer(t, Options{Flows: 4_000_000})
	c := webConfig("A=1 B=1 C=1")
	c.Services[0].Timeouts[UDPNormal] = 2 * time.Second
	for i := range c.Services[0].RealServers {
		c.Services[0].RealServers[i].Mode = fakeMode{}
	}
	b.mustApply(t, c)
	start := time.Now()
	clock := func() time.Duration { return time.Since(start) }
	ctx, cancel := context.WithCancel(t.Context())
	swept := make(chan error)
	go func() { swept <- b.Run(ctx, clock) }()

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var load, idle, own histogram
	traffic := newPauseTraffic(batch)

	for done := 0; done < packets; done += turn {
		before := load.total
		for range turn / batch {
			traffic.draw(t)
			cpu := threadTime(t)
			now := clock()
			b.Queue(0).Prepare(traffic.packets)
			last := time.Now()
			for i := range traffic.packets {
				if v, why := b.Queue(0).Handle(&traffic.packets[i], now); v != packet.Send {
					t.Fatal(v, why)
				}
				at := time.Now()
				load.add(at.Sub(last))
				last = at
			}
			own.add(threadTime(t) - cpu)
		}
		for last := time.Now(); idle.total < load.total && load.total > before; {
			at := time.Now()
			idle.add(at.Sub(last))
			last = at
		}
	}
	cancel()
	if err := <-swept; err != nil {
		t.Fatal(err)
	}
	flows := b.Stats().Flows
	t.Logf("%d packets in %v: %d flows created, %d expired; %d at the end", packets, load.total.Round(time.Millisecond), flows.Created, flows.Expired, flows.Now)
	for _, h := range []struct {
		name string
		*histogram
	}{{"a packet took", &load}, {"the idle loop stood still for", &idle}} {
		t.Logf("%s at least 16 µs %d times, 131 µs %d times, 1 ms %d times; at most %v", h.name,
			h.over(1<<14), h.over(1<<17), h.over(millisecond), h.longest)
	}
	t.Logf("a batch of %d packets took at most %v of CPU time", batch, own.longest)
	// Twice as often as the machine by itself, and ten times, is still chance.
	if n, noise := load.over(millisecond), idle.over(millisecond); n > 2*noise+10 {
		t.Errorf("%d packets took more than a millisecond; the machine alone stood still %d times", n, noise)
	}
	if file := os.Getenv("UVS_SCALE_SVG"); file != "" {
		if err := os.WriteFile(file, []byte(picture(&load, &idle)), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// A pauseTraffic draws batches of packets of which every fourth is a new client's,
// and the others are of those that came in the last second or so.
type pauseTraffic struct {
	packets []packet.Packet
	bufs    [][]byte
	client  uint32
	random  *rand.Rand
}

func newPauseTraffic(n int) *pauseTraffic {
	f := &pauseTraffic{packets: make([]packet.Packet, n), random: rand.New(rand.NewPCG(1, 2))}
	template := packettest.UDP("16.0.239.255:1", "203.0.113.10:80", packettest.Pad(18))
	for range n {
		buf := make([]byte, packet.Headroom+len(template))
		copy(buf[packet.Headroom:], template)
		f.bufs = append(f.bufs, buf)
	}
	return f
}

// draw fills the batch. The addresses are such that the sum of the IPv4 header
// stays what it is.
func (f *pauseTraffic) draw(tb testing.TB) {
	for i := range f.packets {
		n := f.client
		if i%4 == 0 {
			f.client++
		} else {
			n -= min(f.client, f.random.Uint32N(200_000))
		}
		b := f.bufs[i][packet.Headroom:]
		high := 0x1000 + n&0x3fff
		binary.BigEndian.PutUint32(b[12:16], high<<16|(0xffff-high))
		binary.BigEndian.PutUint16(b[20:22], uint16(100+n>>14))
		f.packets[i].Reset(f.bufs[i], packet.Headroom, len(f.bufs[i]))
		if why := f.packets[i].Parse(); why != packet.OK {
			tb.Fatal(why)
		}
	}
}

// picture draws how often a packet took longer than a time, and the idle loop.
func picture(load, idle *histogram) string {
	const (
		left, right, top, bottom = 70, 690, 30, 330
		lowest, highest          = 64 * time.Nanosecond, 1 << 26 * time.Nanosecond
		lowRate, highRate        = 0.05, 2e7
	)
	log := func(v, low, high, from, to float64) float64 {
		return from + (to-from)*math.Log(v/low)/math.Log(high/low)
	}
	x := func(d time.Duration) float64 { return log(float64(d), float64(lowest), float64(highest), left, right) }
	y := func(rate float64) float64 { return log(max(rate, lowRate), lowRate, highRate, bottom, top) }
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 390" font-family="sans-serif" font-size="12">`+"\n"+
		`<rect width="720" height="390" fill="#fff"/>`+"\n"+
		`<text x="%d" y="18">How often in a second something took at least so long</text>`+"\n", left)
	for d := 100 * time.Nanosecond; d < highest; d *= 10 {
		fmt.Fprintf(&s, `<path d="M%.1f %d V%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(d), top, bottom, x(d), bottom+18, d)
	}
	for _, rate := range []float64{0.1, 1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7} {
		fmt.Fprintf(&s, `<path d="M%d %.1f H%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n", left, y(rate), right, left-6, y(rate)+4, rate)
	}
	for i, line := range []struct {
		h           *histogram
		color, name string
	}{{load, "#c0392b", "a packet of ten million, while flows come and end"}, {idle, "#2c3e50", "a loop that does nothing, on the same thread in turns"}} {
		fmt.Fprintf(&s, `<path fill="none" stroke="%s" stroke-width="2" d="`, line.color)
		for n, b := 0, bucketOf(lowest); b <= bucketOf(line.h.longest); b++ {
			fmt.Fprintf(&s, "%c%.1f %.1f ", "ML"[min(n, 1)], x(bound(b)), y(line.h.perSecond(bound(b))))
			n++
		}
		fmt.Fprintf(&s, `"/>`+"\n"+`<text x="%d" y="%d" fill="%s">%s: at most %v</text>`+"\n", left, bottom+36+16*i, line.color, line.name, line.h.longest.Round(time.Microsecond))
	}
	s.WriteString("</svg>\n")
	return s.String()
}

// threadTime is the CPU time that the thread has used.
func threadTime(tb testing.TB) time.Duration {
	tb.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
