package lb_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// A load makes the same UDP packet from any of a million clients.
type load struct {
	template []byte
	buf      []byte
	p        packet.Packet
}

func newLoad(template []byte) *load {
	return &load{template: template, buf: make([]byte, packet.Headroom+packet.MaxSize)}
}

// from is the packet of client i, parsed. The addresses are such that the sum
// of the IPv4 header stays what it is.
func (l *load) from(tb testing.TB, i uint32) *packet.Packet {
	b := l.buf[packet.Headroom:]
	n := copy(b, l.template)
	high := 0x1000 + i&0x3fff
	addr, ports := b[12:16], b[20:]
	if b[0]>>4 == 6 {
		addr, ports = b[20:24], b[40:]
	}
	binary.BigEndian.PutUint32(addr, high<<16|(0xffff-high))
	binary.BigEndian.PutUint16(ports, uint16(1+i>>14))
	l.p.Reset(l.buf, packet.Headroom, packet.Headroom+n)
	if why := l.p.Parse(); why != packet.OK {
		tb.Fatal(why)
	}
	return &l.p
}

// BenchmarkHandle parses and handles packets of flows picked at random.
func BenchmarkHandle(b *testing.B) {
	const flows = 1_000_000
	client4, client6 := "16.0.239.255:1", "[2001:db8::1000:efff:0:1]:1"
	tests := []struct {
		name string
		d    director
		in   []byte
	}{
		{"dr/ipv4", drDirector, packettest.UDP(client4, web4, packettest.Pad(18))},
		{"dr/ipv6", drDirector, packettest.UDP(client6, web6, packettest.Pad(18))},
		{"nat/ipv4", natDirector, packettest.UDP(client4, web4, packettest.Pad(18))},
		{"nat/ipv6", natDirector, packettest.UDP(client6, web6, packettest.Pad(18))},
		{"tun/ipv4", director{mode: "tun", realServers: []string{rs4}}, packettest.UDP(client4, web4, packettest.Pad(18))},
		{"tun/ipv6", director{mode: "tun", realServers: []string{rs6}}, packettest.UDP(client6, web6, packettest.Pad(18))},
	}
	for _, tt := range tests {
		for _, n := range []uint32{1, flows} {
			b.Run(tt.name+map[bool]string{true: "/one flow", false: "/million flows"}[n == 1], func(b *testing.B) {
				balancer := startWith(b, tt.d.config(b), lb.Options{Flows: 2 * flows})
				l := newLoad(tt.in)
				q := balancer.Queue(0)
				ctx, cancel := context.WithCancel(b.Context())
				var sweeper sync.WaitGroup
				sweeper.Go(func() { _ = balancer.Run(ctx, func() time.Duration { return 0 }) })
				for i := range n {
					if v, why := q.Handle(l.from(b, i), 0); v != packet.Send {
						b.Fatalf("flow %d: %v, %v", i, v, why)
					}
				}
				cancel()
				sweeper.Wait()
				rnd := rand.New(rand.NewPCG(1, 1))
				b.ReportAllocs()
				for b.Loop() {
					if v, why := q.Handle(l.from(b, rnd.Uint32N(n)), 0); v != packet.Send {
						b.Fatalf("%v, %v", v, why)
					}
				}
			})
		}
	}
}

// BenchmarkMemory is one access to memory that no cache has, to judge the
// others by: a lookup among a million flows needs two, one after the other.
func BenchmarkMemory(b *testing.B) {
	const lines = 4 << 20 // 256 MiB
	next := make([][8]uint64, lines)
	order := rand.Perm(lines)
	for i, at := range order {
		next[at][0] = uint64(order[(i+1)%lines])
	}
	at := uint64(0)
	for b.Loop() {
		at = next[at][0]
	}
}
