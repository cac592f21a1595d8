package realserver

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
	"github.com/uvs-project/uvs/stack"
)

const (
	client4, client6 = "192.0.2.2:4000", "[2001:db8::2]:4000"
	vip4, vip6       = "203.0.113.10:80", "[2001:db8:a::10]:80"
	other4           = "203.0.113.11:80"
)

func vips() map[packet.Endpoint]bool {
	set := map[packet.Endpoint]bool{}
	for _, s := range []string{vip4, vip6} {
		set[packet.EndpointFrom(netip.AddrPortFrom(netip.MustParseAddrPort(s).Addr(), 0))] = true
	}
	return set
}

// testReader is a reader that writes into memory, and a function that has it
// unpack a batch of payloads of a socket.
func testReader(s *socket) (r *reader, tun *stack.MemTUN, unpack func(payloads ...[]byte)) {
	tun = stack.NewMemTUN(1)
	r = newReader(s, tun.Queues()[0], vips())
	return r, tun, func(payloads ...[]byte) {
		for i, b := range payloads {
			copy(r.batch.buffers[i][packet.Headroom:], b)
			r.batch.msgs[i].len = uint32(len(b))
			r.batch.msgs[i].hdr.SetControllen(0)
		}
		if err := r.unpack(len(payloads)); err != nil {
			panic(err) // a MemTUN does not vanish
		}
	}
}

// written is what a MemTUN was given up to now, without virtio-net headers.
func written(tun *stack.MemTUN) [][]byte {
	var list [][]byte
	for {
		select {
		case b := <-tun.Written(0):
			list = append(list, b)
		default:
			return list
		}
	}
}

var (
	rawIPIP4 = &socket{kind: packet.IPIP, proto: protoIPIP, header: true}
	rawIPIP6 = &socket{kind: packet.IPIP, proto: protoIPv6}
	rawGRE   = &socket{kind: packet.GRE, proto: protoGRE}
	udpGUE   = &socket{kind: packet.GUE, proto: packet.UDP}
)

func TestUnpack(t *testing.T) {
	outer := func(inner []byte, opts ...pt.Option) []byte { return pt.IP("10.0.0.1", "10.0.0.2", 4, inner, opts...) }
	prefixed := func(inner []byte, head ...byte) []byte { return append(head, inner...) }
	request4, request6 := pt.TCP(client4, vip4, pt.SYN), pt.TCP(client6, vip6, pt.SYN)
	tests := []struct {
		name   string
		socket *socket
		in     []byte
		want   []byte // nil: dropped, and why says so
		why    packet.Reason
	}{
		{name: "IPv4 in IPv4", socket: rawIPIP4, in: outer(request4), want: request4},
		{name: "the outer header may have options", socket: rawIPIP4, in: outer(request4, pt.IPOptions(1, 1, 1, 0)), want: request4},
		{name: "IPv6 from a socket that keeps the outer header", socket: rawIPIP6, in: request6, want: request6},
		{name: "IPv4 in GRE", socket: rawGRE, in: prefixed(request4, 0, 0, 8, 0), want: request4},
		{name: "IPv6 in GUE", socket: udpGUE, in: prefixed(request6, 0, 41, 0, 0), want: request6},
		{name: "a congestion mark outside comes inside", socket: rawIPIP4, in: outer(pt.TCP(client4, vip4, pt.TOS(2)), pt.TOS(3)), want: pt.TCP(client4, vip4, pt.TOS(3))},
		{name: "an ICMP error to the VIP", socket: rawIPIP4, in: outer(pt.Error("192.0.2.1", "203.0.113.10", 3, 4, 1400, pt.TCP(vip4, client4))), want: pt.Error("192.0.2.1", "203.0.113.10", 3, 4, 1400, pt.TCP(vip4, client4))},

		{name: "an address that is no VIP", socket: rawIPIP4, in: outer(pt.TCP(client4, other4)), why: packet.NoService},
		{name: "an ICMP error about a VIP to another address", socket: rawIPIP4, in: outer(pt.Error("192.0.2.1", "203.0.113.11", 3, 4, 1400, pt.TCP(vip4, client4))), why: packet.NoService},
		{name: "a packet that claims to come from the VIP", socket: rawIPIP4, in: outer(pt.TCP(vip4, vip4)), why: packet.BadSource},
		{name: "a packet that claims to come from a loopback", socket: rawIPIP4, in: outer(pt.TCP("127.0.0.1:1", vip4)), why: packet.BadSource},
		{name: "IPv6 in a packet of protocol 4", socket: rawIPIP4, in: outer(request6), why: packet.BadTunnel},
		{name: "a tunnel in the tunnel", socket: rawIPIP4, in: outer(outer(request4)), why: packet.NoService},
		{name: "an inner packet that was cut short", socket: rawIPIP4, in: outer(pt.TCP(client4, vip4, pt.Pad(9)))[:50], why: packet.Truncated},
		{name: "nothing at all", socket: udpGUE, in: nil, why: packet.Truncated},
		{name: "an inner header with a wrong checksum", socket: rawIPIP4, in: outer(pt.TCP(client4, vip4, pt.WrongIPSum)), why: packet.BadIPChecksum},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, tun, unpack := testReader(tt.socket)
			unpack(tt.in)
			var want [][]byte
			wantStats := Stats{Packets: 1}
			if tt.want != nil {
				want = [][]byte{pt.Plain(tt.want)}
				wantStats.Writes, wantStats.Bytes = 1, uint64(len(tt.want))
			} else {
				wantStats.Dropped[tt.why] = 1
			}
			if diff := cmp.Diff(want, written(tun)); diff != "" {
				t.Errorf("written (-want +got):\n%s", diff)
			}
			var got Stats
			r.addTo(&got)
			if got != wantStats {
				t.Errorf("stats %+v, want %+v", got, wantStats)
			}
		})
	}
}

func TestUnpackMerges(t *testing.T) {
	segment := func(src string, seq uint32, opts ...pt.Option) []byte {
		return pt.TCP(src, vip4, append([]pt.Option{pt.Seq(seq), pt.DF, pt.Pad(100)}, opts...)...)
	}
	outer := func(inner []byte) []byte { return pt.IP("10.0.0.1", "10.0.0.2", 4, inner) }
	other := "192.0.2.3:4000"
	r, tun, unpack := testReader(rawIPIP4)
	unpack(
		outer(segment(client4, 1)), outer(segment(other, 1)), outer(segment(client4, 101)), // two super-packets
		outer(segment(other, 101)), outer(segment(client4, 201)), outer(segment(other, 201)),
		outer(segment(client4, 401)), // does not follow
	)
	got := map[string][]int{} // segments of each write, by client
	for _, b := range written(tun) {
		p := pt.ParsedVNet(t, b)
		if err := pt.CheckPacket(p); err != nil {
			t.Error(err)
		}
		client := netip.AddrPortFrom(p.Tuple.Src.Netip(p.Tuple.Family), p.Tuple.SrcPort).String()
		got[client] = append(got[client], p.Segments())
	}
	if diff := cmp.Diff(map[string][]int{client4: {3, 1}, other: {3}}, got); diff != "" {
		t.Errorf("segments of each write (-want +got):\n%s", diff)
	}
	var s Stats
	r.addTo(&s)
	if s.Packets != 7 || s.Writes != 3 {
		t.Errorf("stats %+v, want 7 packets in 3 writes", s)
	}
}

func TestUnpackKeepsTheOrderOfEachFlow(t *testing.T) {
	const flows, each = 2*openFlows + 3, 2 // more than can be merged at the same time
	var batch [][]byte
	for n := range each {
		for f := range flows {
			batch = append(batch, pt.IP("10.0.0.1", "10.0.0.2", 4, pt.UDP(fmt.Sprintf("192.0.2.2:%d", 4000+f), vip4, pt.Pad(n))))
		}
	}
	_, tun, unpack := testReader(rawIPIP4)
	unpack(batch...)
	seen := map[uint16]int{}
	for _, b := range written(tun) {
		p := pt.ParsedVNet(t, b)
		if n := p.Len() - 28; n != seen[p.Tuple.SrcPort] {
			t.Errorf("port %d: packet %d where %d is due", p.Tuple.SrcPort, n, seen[p.Tuple.SrcPort])
		}
		seen[p.Tuple.SrcPort]++
	}
	for f := range flows {
		if n := seen[uint16(4000+f)]; n != each {
			t.Errorf("port %d: %d packets written, want %d", 4000+f, n, each)
		}
	}
}

func TestUnpackKeepsWhatTheKernelMerged(t *testing.T) {
	super := pt.Super(pt.TCP(client4, vip4, pt.Seq(1), pt.DF, pt.Pad(9000)), 1440)
	_, tun, unpack := testReader(rawIPIP4)
	unpack(pt.IP("10.0.0.1", "10.0.0.2", 4, super[packet.VNetLen:]))
	if diff := cmp.Diff([][]byte{super}, written(tun)); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
}

// nowhere is a queue that takes everything.
type nowhere struct{ stack.Queue }

func (nowhere) Write([]byte) error { return nil }

// BenchmarkUnpack is what a packet of full size costs besides the system calls
// that receive and write it.
func BenchmarkUnpack(b *testing.B) {
	r := newReader(rawIPIP4, nowhere{}, vips())
	fill := func(seq uint32) {
		for i := range batchSize {
			inner := pt.TCP(client4, vip4, pt.Seq(seq), pt.DF, pt.Pad(1400))
			seq += 1400
			outer := pt.IP("10.0.0.1", "10.0.0.2", 4, inner)
			copy(r.batch.buffers[i][packet.Headroom:], outer)
			r.batch.msgs[i].len = uint32(len(outer))
		}
	}
	b.ReportAllocs()
	for done := 0; done < b.N; done += batchSize {
		b.StopTimer()
		fill(1) // merging changes the first one
		b.StartTimer()
		if err := r.unpack(batchSize); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzUnpack has no answer to compare with: nothing may panic, and nothing may
// be written but valid packets to a VIP.
func FuzzUnpack(f *testing.F) {
	f.Add(uint8(0), pt.IP("10.0.0.1", "10.0.0.2", 4, pt.TCP(client4, vip4)))
	f.Add(uint8(1), pt.TCP(client6, vip6))
	f.Add(uint8(2), append([]byte{0, 0, 8, 0}, pt.UDP(client4, vip4)...))
	f.Add(uint8(3), append([]byte{0, 4, 0, 0}, pt.UDP(client4, vip4)...))
	sockets := []*socket{rawIPIP4, rawIPIP6, rawGRE, udpGUE}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		s := sockets[int(which)%len(sockets)]
		if len(b) > packet.MaxSize || s.header && (len(b) < 20 || int(b[0]&0x0f)*4 > len(b) || b[0]&0x0f < 5) {
			t.Skip("no such packet comes from the kernel")
		}
		_, tun, unpack := testReader(s)
		unpack(b)
		for _, w := range written(tun) {
			p := pt.ParsedVNet(t, w)
			if addr, family := p.Destination(); !vips()[packet.Endpoint{Addr: addr, Family: family}] {
				t.Errorf("written to %v", addr.Netip(family))
			}
		}
	})
}
