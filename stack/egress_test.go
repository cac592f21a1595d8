package stack

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// mapRoutes are routes of a test. What is asked for is counted.
type mapRoutes struct {
	hops  map[string]*Hop
	asked int
}

func (r *mapRoutes) Lookup(dst packet.Endpoint, _ uint32) *Hop {
	return r.hops[dst.Addr.Netip(dst.Family).String()]
}

func (r *mapRoutes) Resolve(*Hop) { r.asked++ }

// recordQueue records what is written to it.
type recordQueue struct {
	loopback
	written [][]byte
}

func (q *recordQueue) Write(b []byte) error {
	q.written = append(q.written, append([]byte(nil), b...))
	return nil
}

// through carries packets, with their virtio-net headers, through a loop. What
// leaves by link fails to be sent, as there is no socket.
func through(t *testing.T, h Handler, o Options, now time.Duration, in ...[]byte) (written [][]byte, s QueueStats) {
	t.Helper()
	q := &recordQueue{}
	l := newLoop(q, h, &Road{fragments: newFragments()}, o)
	if o.Routes != nil {
		l.egress.link = &sender{batch: newFrameBatch(&linkSocket{fd: -1}), tally: &l.tally, count: &l.count}
	}
	for _, b := range in {
		buf := make([]byte, packet.Headroom-packet.VNetLen+len(b))
		copy(buf[packet.Headroom-packet.VNetLen:], b)
		p := &l.packets[0]
		p.Reset(buf, packet.Headroom, len(buf))
		if l.accept(p) {
			l.carry(l.packets[:1], now)
		}
	}
	l.egress.flush()
	l.count.publish(&l.tally)
	return q.written, l.count.stats()
}

func TestEgressWays(t *testing.T) {
	known, unknown := NewNeighbour(netip.MustParseAddr("10.0.0.1")), NewNeighbour(netip.MustParseAddr("10.0.0.1"))
	known.Set(MAC{2, 0, 0, 0, 0, 1})
	dr := packet.Rewrite{NextHop: parseEndpoint("10.0.0.1:0")}
	nat := packet.Rewrite{Dst: parseEndpoint("10.0.0.1:8080")}
	in := packettest.Plain(packettest.TCP("192.0.2.1:1234", "203.0.113.10:80", packettest.Pad(1000)))
	whole := packettest.Plain(packettest.TCP("192.0.2.1:1234", "203.0.113.10:80", packettest.Pad(1000), packettest.DF))
	in6 := packettest.Plain(packettest.TCP("[2001:db8::1]:1234", "[2001:db8:a::10]:80", packettest.Pad(1000)))
	super := packettest.Super(packettest.TCP("192.0.2.1:1234", "203.0.113.10:80", packettest.Pad(9000)), 1460)
	tests := []struct {
		name  string
		mode  EgressMode
		rw    packet.Rewrite
		hop   *Hop // to 10.0.0.1
		in    []byte
		want  QueueStats
		why   packet.Reason
		asked int
	}{
		{name: "nat, no route: by the kernel", rw: nat, in: in, want: QueueStats{ByKernel: 1}},
		{name: "nat, the link's MTU is too small: by the kernel", rw: nat, hop: &Hop{MTU: 1039, Neighbour: known}, in: in, want: QueueStats{ByKernel: 1}},
		{name: "nat, a segment of the super-packet is too big: by the kernel", rw: nat, hop: &Hop{MTU: 1499, Neighbour: known}, in: super, want: QueueStats{ByKernel: 1}},
		{name: "nat, the segments fit: by link", rw: nat, hop: &Hop{MTU: 1500, Neighbour: known}, in: super, want: QueueStats{}, why: packet.SendFailed},
		{name: "nat, auto, neighbour unknown: by the kernel, which asks", rw: nat, hop: &Hop{MTU: 1500, Neighbour: unknown}, in: in, want: QueueStats{ByKernel: 1}},
		{name: "nat, link, neighbour unknown: waits and asks", mode: EgressLink, rw: nat, hop: &Hop{MTU: 1500, Neighbour: unknown}, in: in, want: QueueStats{Waited: 1}, asked: 1},
		{name: "nat, kernel: by the kernel though the hop is known", mode: EgressKernel, rw: nat, hop: &Hop{MTU: 1500, Neighbour: known}, in: in, want: QueueStats{ByKernel: 1}},
		{name: "dr, no route: dropped, as the kernel would send it back to us", rw: dr, in: in, why: packet.NoRoute},
		{name: "dr, too big: dropped", rw: dr, hop: &Hop{MTU: 1039, Neighbour: known}, in: whole, why: packet.TooBig},
		{name: "dr, too big, IPv6: dropped", rw: packet.Rewrite{NextHop: parseEndpoint("10.0.0.1:0")}, hop: &Hop{MTU: 1059, Neighbour: known}, in: in6, why: packet.TooBig},
		{name: "dr, too big and without DF: leaves in fragments", rw: dr, hop: &Hop{MTU: 600, Neighbour: NewNeighbour(netip.Addr{})}, in: in, want: QueueStats{Waited: 2}, asked: 1},
		{name: "dr, segments too big and without DF: they leave in fragments", rw: dr, hop: &Hop{MTU: 1000, Neighbour: NewNeighbour(netip.Addr{})}, in: super, want: QueueStats{Waited: 13}, asked: 1},
		{name: "dr, kernel: by link all the same", mode: EgressKernel, rw: dr, hop: &Hop{MTU: 1500, Neighbour: NewNeighbour(netip.Addr{})}, in: in, want: QueueStats{Waited: 1}, asked: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			routes := &mapRoutes{hops: map[string]*Hop{}}
			if tt.hop != nil {
				routes.hops["10.0.0.1"] = tt.hop
			}
			_, got := through(t, rewrite(tt.rw), Options{Egress: tt.mode, Routes: routes}, 0, tt.in)
			tt.want.Batches, tt.want.Packets, tt.want.Bytes, tt.want.Sent = 1, 1, uint64(len(tt.in)-packet.VNetLen), 1
			if tt.why != packet.OK {
				tt.want.Lost[tt.why] = 1
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || routes.asked != tt.asked {
				t.Errorf("asked %d times, want %d; stats (-want +got):\n%s", routes.asked, tt.asked, diff)
			}
		})
	}
}

func TestEgressSplitsWhatIsEncapsulated(t *testing.T) {
	encap := packet.Encap{Kind: packet.IPIP, Family: packet.IPv4}
	encap.Src, _ = packet.AddrFrom(netip.MustParseAddr("192.0.2.11"))
	encap.Dst, _ = packet.AddrFrom(netip.MustParseAddr("10.0.0.1"))
	for _, tt := range []struct {
		payload, size int
	}{{2 * 1440, 1440}, {64000, 1440}, {60000, 100}, {9000, 8900}} {
		t.Run(fmt.Sprintf("%d bytes in segments of %d", tt.payload, tt.size), func(t *testing.T) {
			in := packettest.Super(packettest.TCP("192.0.2.1:1234", "203.0.113.10:80", packettest.Pad(tt.payload), packettest.Seq(5)), tt.size)
			written, s := through(t, rewrite(packet.Rewrite{Encap: encap}), Options{}, 0, in)
			want := (tt.payload + tt.size - 1) / tt.size
			if len(written) != want || s.ByKernel != uint64(want) || s.Sent != 1 {
				t.Fatalf("%d packets written, want %d: %+v", len(written), want, s)
			}
			sum := 0
			for _, b := range written {
				outer := b[packet.VNetLen:]
				packettest.MustCheck(t, outer)
				p := packettest.Parsed(t, outer)
				if p.Tuple.Proto != 4 || p.Tuple.Dst != encap.Dst || p.Len() > 20+40+tt.size {
					t.Fatalf("packet of %d bytes, protocol %d to %v", p.Len(), p.Tuple.Proto, p.Tuple.Dst)
				}
				sum += p.Len() - 20 - 40
			}
			if sum != tt.payload {
				t.Errorf("%d bytes of payload left, want %d", sum, tt.payload)
			}
		})
	}
}

// TestEgressFragmentsSegments: a super-packet without DF in a tunnel whose path
// is too narrow for its segments leaves in fragments of the outer packets.
func TestEgressFragmentsSegments(t *testing.T) {
	encap := packet.Encap{Kind: packet.IPIP, Family: packet.IPv6}
	encap.Src, _ = packet.AddrFrom(netip.MustParseAddr("2001:db8:d::11"))
	encap.Dst, _ = packet.AddrFrom(netip.MustParseAddr("2001:db8:b::1"))
	h := handlerFunc(func(p *packet.Packet, _ time.Duration) (packet.Verdict, packet.Reason) {
		p.FragmentTo(1400)
		rw := packet.Rewrite{Encap: encap}
		return packet.Send, rw.Apply(p)
	})
	const payload, segment = 60000, 1440
	written, s := through(t, h, Options{}, 0, packettest.Super(packettest.TCP("192.0.2.1:1234", "203.0.113.10:80", packettest.Pad(payload)), segment))
	const segments = (payload + segment - 1) / segment
	if len(written) != 2*segments-1 || s.Sent != 1 { // the last is short
		t.Fatalf("%d packets written, want %d: %+v", len(written), 2*segments-1, s)
	}
	sum := 0
	for _, b := range written {
		outer := b[packet.VNetLen:]
		packettest.MustCheck(t, outer)
		p := packettest.Parsed(t, outer)
		if p.Len() > 1400 || p.Tuple.Dst != encap.Dst {
			t.Fatalf("packet of %d bytes to %v", p.Len(), p.Tuple.Dst)
		}
		if sum += p.Len() - 40; p.Fragment().Is {
			sum -= 8
		}
	}
	if want := payload + segments*40; sum != want {
		t.Errorf("%d bytes of segments left, want %d", sum, want)
	}
}

func TestNeighbourQueueIsBounded(t *testing.T) {
	frame := make([]byte, 100)
	tests := []struct {
		name    string
		frame   []byte
		n       int
		waiting int
	}{
		{name: "in frames", frame: frame, n: maxWaitingFrames + 3, waiting: maxWaitingFrames},
		{name: "in bytes", frame: make([]byte, 100<<10), n: 5, waiting: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, count, asked := NewNeighbour(netip.Addr{}), new(counters), 0
			for range tt.n {
				if n.wait(waitingFrame{frame: tt.frame, count: count}) {
					asked++
				}
			}
			want := QueueStats{Waited: uint64(tt.waiting)}
			want.Lost[packet.QueueFull] = uint64(tt.n - tt.waiting)
			if diff := cmp.Diff(want, count.stats()); diff != "" || asked != 1 {
				t.Errorf("asked %d times, want once; stats (-want +got):\n%s", asked, diff)
			}
			n.Fail()
			want.Lost[packet.NoNeighbour] = uint64(tt.waiting)
			if diff := cmp.Diff(want, count.stats()); diff != "" {
				t.Errorf("after Fail (-want +got):\n%s", diff)
			}
			if !n.wait(waitingFrame{frame: tt.frame, count: count}) {
				t.Error("after Fail nobody asks again")
			}
		})
	}
}

func TestNeighbourThatNobodyResolvesIsAskedAgain(t *testing.T) {
	n, count := NewNeighbour(netip.Addr{}), new(counters)
	frame := make([]byte, 100)
	for _, step := range []struct {
		at   time.Duration
		asks bool
	}{{0, true}, {time.Second, false}, {maxWaitingTime, false}, {maxWaitingTime + 1, true}, {maxWaitingTime + 2, false}} {
		if asks := n.wait(waitingFrame{frame: frame, since: step.at, count: count}); asks != step.asks {
			t.Errorf("at %v: asks %v, want %v", step.at, asks, step.asks)
		}
	}
	if got := count.lost[packet.NoNeighbour].Load(); got != 1 {
		t.Errorf("%d frames dropped, want the one that waited too long", got)
	}
}
