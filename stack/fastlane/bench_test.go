package fastlane

import (
	"testing"
	"time"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// BenchmarkMillionFlows is what the lane costs uvs for each of a million flows
// of two directions: once to put it in, and once per lifetime to ask when it
// was last seen.
func BenchmarkMillionFlows(b *testing.B) {
	const entries = 2_000_000
	l, err := Open(Options{Flows: entries / 2, Accounts: 64})
	if err != nil {
		b.Skip(err)
	}
	defer l.Close()
	e := Entry{Rewrite: packet.Rewrite{Dst: endpoint("10.2.0.11:8080")}, Hop: testHop}
	e.Tuple = packettest.Parsed(b, packettest.TCP("198.51.100.7:40000", "203.0.113.10:80")).Tuple
	began := time.Now()
	for i := range entries {
		e.Tuple.Src = packet.Addr{byte(i >> 16), byte(i >> 8), byte(i), 1}
		if err := l.Put(&e); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(time.Since(began).Nanoseconds())/entries, "ns/put")
	i := uint32(0)
	for b.Loop() {
		i = (i + 1_000_003) % entries
		e.Tuple.Src = packet.Addr{byte(i >> 16), byte(i >> 8), byte(i), 1}
		l.Seen(&e.Tuple)
	}
}
