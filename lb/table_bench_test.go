package lb

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// filled is a table with n NAT flows.
func filled(tb testing.TB, limit, n int, m Mode) (*Table, *RealServer) {
	t, set := newTestTable(tb, limit, m)
	for i := range uint32(n) {
		if _, why := t.add(set[0], clientTuple(i, packet.UDP), UDPNormal, 0); why != packet.OK {
			tb.Fatalf("flow %d: %v", i, why)
		}
		if i%10_000 == 0 {
			t.Sweep(0, sweepBudget) // has memory ready
		}
	}
	return t, set[0]
}

func BenchmarkLookup(b *testing.B) {
	for _, flows := range []int{1, 1_000_000} {
		t, rs := filled(b, 4_000_000, flows, fakeMode{})
		keys := make([]packet.Tuple, 1<<20)
		for _, d := range []Direction{Request, Reply} {
			for i := range keys {
				keys[i] = clientTuple(rand.Uint32N(uint32(flows)), packet.UDP)
				if d == Reply {
					keys[i], _ = rs.Mode.ReplyTuple(Flow{Tuple: keys[i], Server: rs})
				}
			}
			b.Run(fmt.Sprintf("flows=%d/%s", flows, []string{"request", "reply"}[d]), func(b *testing.B) {
				i := 0
				var f Flow
				for b.Loop() {
					k := &keys[i%len(keys)]
					if got, o := t.lookup(k, k.Hash(t.seed), udpDatagram, false, 1, &f, nil); o != known || got != d {
						b.Fatal("not found")
					}
					i++
				}
			})
		}
	}
}

// BenchmarkInsert fills a table from nothing, growth included, by batches as
// the packet loop reads them, or one by one, at the rate at which a sweeper
// can have memory ready.
func BenchmarkInsert(b *testing.B) {
	for _, tt := range []struct {
		name         string
		m            Mode
		flows, batch int
	}{
		{"nat/flows=1000000", fakeMode{}, 1_000_000, 64},
		{"nat/flows=10000000", fakeMode{}, 10_000_000, 64},
		{"nat/flows=10000000/one by one", fakeMode{}, 10_000_000, 1},
		{"dr/flows=1000000", fakeMode{direct: true}, 1_000_000, 64},
		{"dr/flows=10000000", fakeMode{direct: true}, 10_000_000, 64},
	} {
		b.Run(tt.name, func(b *testing.B) {
			batch := make([]packet.Packet, tt.batch)
			for b.Loop() {
				b.StopTimer()
				t, set := newTestTable(b, tt.flows, tt.m)
				q := &Queue{b: &Balancer{table: t}}
				b.StartTimer()
				for i := 0; i < tt.flows; {
					n := min(tt.batch, tt.flows-i)
					for k := range n {
						batch[k].Tuple = clientTuple(uint32(i+k), packet.UDP)
					}
					q.Prepare(batch[:n])
					for k := range n {
						if _, why := t.add(set[0], batch[k].Tuple, UDPNormal, 0); why != packet.OK {
							b.Fatalf("flow %d: %v", i+k, why)
						}
					}
					if i += n; i/10_000 != (i-n)/10_000 {
						b.StopTimer() // the sweeper is another goroutine
						t.Sweep(0, sweepBudget)
						b.StartTimer()
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*tt.flows), "ns/flow")
		})
	}
}

// BenchmarkExpire ends a million flows that are due, by sweeps.
func BenchmarkExpire(b *testing.B) {
	const flows = 1_000_000
	for b.Loop() {
		b.StopTimer()
		t, _ := filled(b, flows, flows, fakeMode{})
		b.StartTimer()
		for t.Len() > 0 {
			t.Sweep(400*time.Second, sweepBudget)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*flows), "ns/flow")
}
