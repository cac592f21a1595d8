package health

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// BenchmarkTenThousandChecks is the processor time, in per cent of one core, of
// ten thousand checks every two seconds over loopback, whose both ends the
// kernel charges to us.
func BenchmarkTenThousandChecks(b *testing.B) {
	for _, kind := range []string{"tcp", "http"} {
		b.Run(kind, func(b *testing.B) {
			l, err := net.Listen("tcp4", "0.0.0.0:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			if kind == "http" {
				go http.Serve(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			}
			port := uint16(l.Addr().(*net.TCPAddr).Port)
			o := Options{Type: kind}
			check, err := New(o)
			if err != nil {
				b.Fatal(err)
			}
			var members []Member
			for i := range 10_000 {
				addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), port)
				members = append(members, Member{
					Service: "web", Server: addr, Check: check, Options: o, To: Target{Addr: addr},
					Timing: Timing{Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3},
				})
			}
			m := NewMonitor(MonitorOptions{Log: slog.New(slog.DiscardHandler)})
			m.Set(members)
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error)
			go func() { done <- m.Run(ctx) }()
			<-m.Settled()
			cpu := func() time.Duration {
				var r syscall.Rusage
				if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
					b.Fatal(err)
				}
				return time.Duration(r.Utime.Nano() + r.Stime.Nano())
			}
			before, start := cpu(), time.Now()
			for b.Loop() {
				time.Sleep(time.Second) // what is measured goes on by itself
			}
			spent, took := cpu()-before, time.Since(start)
			cancel()
			<-done
			bad := uint64(0)
			for _, s := range m.Status() {
				bad += s.Bad
			}
			if bad > 0 {
				b.Errorf("%d checks failed", bad)
			}
			b.ReportMetric(100*spent.Seconds()/took.Seconds(), "%core")
			b.ReportMetric(0, "ns/op")
		})
	}
}
