package lb

import (
	"testing"
	"time"
)

// TestRatesFollowIPVS compares the estimator with what ip_vs_est.c computes by
// hand: 2^10 times the rate for packets, 2^5 times for bytes, a quarter of the
// way at each sample, rounded as ip_vs_read_estimator rounds.
func TestRatesFollowIPVS(t *testing.T) {
	tests := []struct {
		name    string
		packets []uint64 // in each sample
		want    []uint64 // a second, after each
	}{
		// 200 packets are 100 a second: 25, 43.75, 57.8 and so on.
		{"a steady stream is approached by quarters", []uint64{200, 200, 200, 200}, []uint64{25, 44, 58, 68}},
		{"one packet is a rate of nothing", []uint64{1, 0}, []uint64{0, 0}},
		{"two packets in two seconds are rounded down at first", []uint64{2, 2, 2, 2, 2}, []uint64{0, 0, 1, 1, 1}},
		{"a burst fades by quarters", []uint64{8000, 0, 0}, []uint64{1000, 750, 562}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m meter
			var sum Traffic
			for i, n := range tt.packets {
				sum.Flows += n
				sum.RequestPackets += n
				sum.ReplyPackets += n
				sum.RequestBytes += n * 100
				sum.ReplyBytes += n * 100
				m.sample(sum)
				r := m.rates()
				if w := tt.want[i]; r.Flows != w || r.RequestPackets != w || r.ReplyPackets != w {
					t.Errorf("sample %d: %+v, want %d", i, r, w)
				}
				if r.RequestBytes != r.ReplyBytes || r.RequestBytes/100 > tt.want[i]+1 || r.RequestBytes/100+1 < tt.want[i] {
					t.Errorf("sample %d: %d and %d bytes a second, want about %d00", i, r.RequestBytes, r.ReplyBytes, tt.want[i])
				}
			}
		})
	}
}

// TestMeasured sends datagrams and says what the service, its real server and
// the total tell after each step.
func TestMeasured(t *testing.T) {
	const size = 20 + 8 // bytes of a datagram without data
	b := newTestBalancer(t, Options{Flows: 1000})
	b.mustApply(t, webConfig("A=1"))
	for port := range uint16(40) {
		b.send(t, 0, 1000+port, 0)
		b.send(t, 0, 1000+port, 0)
	}
	check := func(when string, total, sinceZero Traffic, rates Rates) {
		t.Helper()
		s := b.Stats()
		for what, got := range map[string]Measured{
			"real server": s.Services[0].RealServers[0].Measured, "service": s.Services[0].Measured, "total": s.Total,
		} {
			if want := (Measured{total, sinceZero, rates}); got != want {
				t.Errorf("%s, %s:\n got %+v\nwant %+v", when, what, got, want)
			}
		}
	}
	sent := Traffic{Flows: 40, RequestPackets: 80, RequestBytes: 80 * size}
	check("at once", sent, sent, Rates{})

	b.Tick(1900 * time.Millisecond)
	check("before the first sample", sent, sent, Rates{})

	b.Tick(2 * time.Second)
	check("after it", sent, sent, Rates{Flows: 5, RequestPackets: 10, RequestBytes: 10 * size})

	b.Tick(4 * time.Second)
	check("after another", sent, sent, Rates{Flows: 4, RequestPackets: 7, RequestBytes: 210})

	if err := b.Zero("webb"); err == nil {
		t.Error("a service that does not exist was zeroed")
	}
	if err := b.Zero(""); err != nil {
		t.Fatal(err)
	}
	check("zeroed", sent, Traffic{}, Rates{})

	b.send(t, 0, 1000, 5*time.Second)
	one := Traffic{RequestPackets: 1, RequestBytes: size}
	sent.add(one)
	check("a packet later", sent, one, Rates{})

	b.Tick(time.Hour) // the flow's end
	check("much later", sent, one, Rates{})
}

func TestTheTotalKeepsWhatWasRemoved(t *testing.T) {
	b := newTestBalancer(t, Options{Flows: 1000})
	b.mustApply(t, webConfig("A=1"))
	b.send(t, 0, 1000, 0)
	want := b.Stats().Total
	b.mustApply(t, Config{})
	for range 17 {
		b.Tick(400 * time.Second) // a sixteenth of the table each
	}
	b.mustApply(t, Config{})
	if len(b.accounts) != 0 {
		t.Errorf("%d accounts are kept", len(b.accounts))
	}
	if got := b.Stats().Total.Traffic; got != want.Traffic || got.Flows != 1 {
		t.Errorf("total %+v, want %+v", got, want.Traffic)
	}
}
