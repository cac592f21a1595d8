package stack

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

func TestInject(t *testing.T) {
	error4 := packettest.Error("10.0.0.254", "192.0.2.1", 3, 1, 0, packettest.UDP("192.0.2.1:1", "10.0.0.1:2"))
	request := packettest.UDP("192.0.2.1:1234", "203.0.113.10:80", packettest.Pad(1000))
	tests := []struct {
		name  string
		in    []byte
		h     Handler
		want  []byte // nil: nothing is written
		stats QueueStats
	}{
		{name: "what the handler sends goes by the kernel", in: request, h: dnat("10.0.0.1:8080"),
			want:  packettest.UDP("192.0.2.1:1234", "10.0.0.1:8080", packettest.Pad(1000)),
			stats: QueueStats{Packets: 1, Sent: 1, ByKernel: 1}},
		{name: "what it gives back goes nowhere", in: error4, h: verdict(packet.Return), stats: QueueStats{Packets: 1, Returned: 1}},
		{name: "what it drops is counted", in: error4, h: drop(packet.BadICMP), stats: QueueStats{Packets: 1, Dropped: [packet.NumReasons]uint64{packet.BadICMP: 1}}},
		{name: "what is no packet is dropped", in: error4[:12], h: verdict(packet.Send), stats: QueueStats{Packets: 1, Dropped: [packet.NumReasons]uint64{packet.Truncated: 1}}},
		{name: "what is longer than any packet is dropped", in: make([]byte, packet.MaxSize+1), h: verdict(packet.Send), stats: QueueStats{Packets: 1, Dropped: [packet.NumReasons]uint64{packet.TooBig: 1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := &recordQueue{}
			b := newBeside(q, tt.h)
			b.inject(tt.in, 0)
			var got []byte
			for _, w := range q.written {
				got = append(got, w[packet.VNetLen:]...)
			}
			tt.stats.Batches, tt.stats.Bytes = 1, uint64(len(tt.in))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("written (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.stats, b.count.stats()); diff != "" {
				t.Errorf("stats (-want +got):\n%s", diff)
			}
		})
	}
}
