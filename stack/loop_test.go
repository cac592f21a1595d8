package stack

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// A handlerFunc is a Handler for a test.
type handlerFunc func(p *packet.Packet, now time.Duration) (packet.Verdict, packet.Reason)

func (f handlerFunc) Prepare([]packet.Packet) {}

func (f handlerFunc) Handle(p *packet.Packet, now time.Duration) (packet.Verdict, packet.Reason) {
	return f(p, now)
}

// rewrite applies rw to everything and sends it.
func rewrite(rw packet.Rewrite) handlerFunc {
	return func(p *packet.Packet, _ time.Duration) (packet.Verdict, packet.Reason) {
		if why := rw.Apply(p); why != packet.OK {
			return packet.Drop, why
		}
		return packet.Send, packet.OK
	}
}

// dnat sends everything to dst.
func dnat(dst string) handlerFunc { return rewrite(packet.Rewrite{Dst: parseEndpoint(dst)}) }

func verdict(v packet.Verdict) handlerFunc {
	return func(*packet.Packet, time.Duration) (packet.Verdict, packet.Reason) { return v, packet.OK }
}

// start runs a road until the test ends.
func start(t *testing.T, tun TUN, h Handler, o Options) *Road {
	t.Helper()
	r, err := New(tun, func(int) Handler { return h }, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// next is the next packet written to a queue, with its virtio-net header.
func next(t *testing.T, tun *MemTUN, queue int) []byte {
	t.Helper()
	select {
	case b := <-tun.Written(queue):
		return b
	case <-time.After(patience):
		t.Fatalf("no packet was written in %v", patience)
		return nil
	}
}

// drop drops everything for a reason.
func drop(why packet.Reason) Handler {
	return handlerFunc(func(*packet.Packet, time.Duration) (packet.Verdict, packet.Reason) { return packet.Drop, why })
}

func TestRoadVerdicts(t *testing.T) {
	in := packettest.TCP("192.0.2.1:1234", "203.0.113.10:80", packettest.SYN)
	marker := packettest.UDP("192.0.2.9:9", "203.0.113.10:9")
	out := packettest.TCP("192.0.2.1:1234", "10.0.0.1:8080", packettest.SYN)
	tests := []struct {
		name    string
		in      []byte // with its virtio-net header
		handler Handler
		want    []byte // nil: nothing comes out
		stats   QueueStats
		why     packet.Reason // that is counted
	}{
		{name: "send: the rewritten packet is written to the TUN device", in: packettest.Plain(in), handler: dnat("10.0.0.1:8080"),
			want: packettest.Plain(out), stats: QueueStats{Packets: 1, Sent: 1, ByKernel: 1}},
		{name: "send: a super-packet keeps its virtio-net header", in: packettest.Super(packettest.TCP("192.0.2.1:1234", "203.0.113.10:80", packettest.Pad(9000)), 1448), handler: dnat("10.0.0.1:8080"),
			want: packettest.Super(packettest.TCP("192.0.2.1:1234", "10.0.0.1:8080", packettest.Pad(9000)), 1448), stats: QueueStats{Packets: 1, Sent: 1, ByKernel: 1}},
		{name: "return: the packet is written back unchanged", in: packettest.Plain(in), handler: verdict(packet.Return),
			want: packettest.Plain(in), stats: QueueStats{Packets: 1, Returned: 1}},
		{name: "drop: nothing comes out", in: packettest.Plain(in), handler: drop(packet.NotSYN),
			stats: QueueStats{Packets: 1}, why: packet.NotSYN},
		{name: "a truncated packet is dropped and counted", in: packettest.Plain(in[:12]), handler: dnat("10.0.0.1:8080"),
			stats: QueueStats{Packets: 1}, why: packet.Truncated},
		{name: "a read shorter than a virtio-net header is dropped and counted", in: []byte{0, 0, 0}, handler: dnat("10.0.0.1:8080"),
			stats: QueueStats{Packets: 1}, why: packet.Truncated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tun := NewMemTUN(1)
			isMarker := func(p *packet.Packet, now time.Duration) (packet.Verdict, packet.Reason) {
				if p.Tuple.Proto == packet.UDP {
					return packet.Return, packet.OK
				}
				return tt.handler.Handle(p, now)
			}
			// The marker behind the packet tells when the packet is through.
			tun.Inject(0, tt.in)
			tun.InjectPacket(0, marker)
			r := start(t, tun, handlerFunc(isMarker), Options{})
			got := next(t, tun, 0)
			if tt.want != nil {
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("written packet (-want +got):\n%s", diff)
				}
				got = next(t, tun, 0)
			}
			if diff := cmp.Diff(packettest.Plain(marker), got); diff != "" {
				t.Errorf("marker (-want +got):\n%s", diff)
			}
			waitStats(t, r, func(s QueueStats) bool { return s.Returned > tt.stats.Returned })
			s := r.Stats().Queues[0]
			want := tt.stats
			want.Packets, want.Returned = want.Packets+1, want.Returned+1 // the marker
			if tt.why != packet.OK {
				want.Dropped[tt.why] = 1
			}
			s.Bytes, s.Batches, s.Waits = 0, 0, 0
			if diff := cmp.Diff(want, s); diff != "" {
				t.Errorf("stats (-want +got):\n%s", diff)
			}
		})
	}
}

// waitStats returns once the first queue's counters are as wanted.
func waitStats(t *testing.T, r *Road, ok func(QueueStats) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !ok(r.Stats().Queues[0]) {
		select {
		case <-ctx.Done():
			t.Fatalf("the counters did not come: %+v", r.Stats().Queues[0])
		case <-time.After(time.Millisecond):
		}
	}
}

func TestRoadKeepsTheOrderOfAQueue(t *testing.T) {
	tun := NewMemTUN(2)
	start(t, tun, dnat("10.0.0.1:8080"), Options{})
	const n = 3 * maxBatch
	for i := range n {
		tun.InjectPacket(1, packettest.TCP("192.0.2.1:1234", "203.0.113.10:80", packettest.Seq(uint32(i)), packettest.Pad(i*100)))
	}
	for i := range n {
		want := packettest.TCP("192.0.2.1:1234", "10.0.0.1:8080", packettest.Seq(uint32(i)), packettest.Pad(i*100))
		if got := next(t, tun, 1)[packet.VNetLen:]; !bytes.Equal(got, want) {
			t.Fatalf("packet %d:\n%swant:\n%s", i, packettest.Dump(got), packettest.Dump(want))
		}
	}
}

// A brokenTUN has a queue whose Read fails.
type brokenTUN struct{ *MemTUN }

type brokenQueue struct{ Queue }

var errBroken = errors.New("broken")

func (t brokenTUN) Queues() []Queue {
	qs := t.MemTUN.Queues()
	qs[0] = brokenQueue{qs[0]}
	return qs
}

func (brokenQueue) Read([]byte) (int, error) { return 0, errBroken }

func TestRoadEndsWhenAQueueFails(t *testing.T) {
	r, err := New(brokenTUN{NewMemTUN(2)}, func(int) Handler { return verdict(packet.Drop) }, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Run(context.Background()); !errors.Is(err, errBroken) {
		t.Errorf("Run: %v, want %v", err, errBroken)
	}
}

func TestRoadRefusesAnUnknownEgress(t *testing.T) {
	if _, err := New(NewMemTUN(1), nil, Options{Egress: "xdp"}); err == nil {
		t.Error("no error")
	}
}

func TestBatchNoAllocs(t *testing.T) {
	tun := &loopback{b: packettest.Plain(packettest.UDP("192.0.2.1:1234", "203.0.113.10:80", packettest.Pad(18)))}
	l := newLoop(tun, dnat("10.0.0.1:8080"), &Road{start: time.Now()}, Options{})
	if n := testing.AllocsPerRun(100, func() {
		if _, err := l.batch(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per batch, want none", n)
	}
}

// A loopback queue always has the same packet.
type loopback struct{ b []byte }

func (q *loopback) Read(b []byte) (int, error) { return copy(b, q.b), nil }
func (q *loopback) Write([]byte) error         { return nil }
func (q *loopback) Wait() error                { return nil }
func (q *loopback) Wake() error                { return nil }

func BenchmarkBatch(b *testing.B) {
	tun := &loopback{b: packettest.Plain(packettest.UDP("192.0.2.1:1234", "203.0.113.10:80", packettest.Pad(18)))}
	l := newLoop(tun, dnat("10.0.0.1:8080"), &Road{start: time.Now()}, Options{})
	for b.Loop() {
		if _, err := l.batch(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/maxBatch, "ns/packet")
}

// A preparedHandler drops everything and notes what it was told.
type preparedHandler struct{ prepared, handled []uint16 }

func (h *preparedHandler) Prepare(batch []packet.Packet) {
	for i := range batch {
		h.prepared = append(h.prepared, batch[i].Tuple.SrcPort)
	}
}

func (h *preparedHandler) Handle(p *packet.Packet, _ time.Duration) (packet.Verdict, packet.Reason) {
	h.handled = append(h.handled, p.Tuple.SrcPort)
	if len(h.prepared) < 3 {
		panic("handled before the batch was prepared")
	}
	return packet.Drop, packet.NotSYN
}

func TestBatchIsPreparedBeforeItIsHandled(t *testing.T) {
	tun, h := NewMemTUN(1), new(preparedHandler)
	l := newLoop(tun.queues[0], h, &Road{start: time.Now(), fragments: newFragments()}, Options{})
	for i := range uint16(4) {
		p := packettest.UDP(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 1000+i).String(), "203.0.113.10:53")
		if i == 1 {
			p = p[:10] // no packet: neither prepared nor handled
		}
		tun.InjectPacket(0, p)
	}
	if drained, err := l.batch(); !drained || err != nil {
		t.Fatalf("drained %v, %v", drained, err)
	}
	want := []uint16{1000, 1002, 1003}
	if diff := cmp.Diff([][]uint16{want, want}, [][]uint16{h.prepared, h.handled}); diff != "" {
		t.Errorf("prepared and handled (-want +got):\n%s", diff)
	}
}
