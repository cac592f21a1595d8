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

// A load makes batches of the same UDP packet from any of a million clients,
// each in a buffer of its own as the packet loop has them.
type load struct {
	template []byte
	bufs     []byte
	batch    []packet.Packet
}

const loadBuf = 256 // bytes per packet: headroom and a small packet

func newLoad(template []byte, batch int) *load {
	return &load{template: template, bufs: make([]byte, batch*loadBuf), batch: make([]packet.Packet, batch)}
}

// from makes packet k of the batch the one of client i, parsed. The addresses
// are such that the sum of the IPv4 header stays what it is.
func (l *load) from(tb testing.TB, k int, i uint32) {
	buf := l.bufs[k*loadBuf : (k+1)*loadBuf]
	b := buf[packet.Headroom:]
	n := copy(b, l.template)
	high := 0x1000 + i&0x3fff
	addr, ports := b[12:16], b[20:]
	if b[0]>>4 == 6 {
		addr, ports = b[20:24], b[40:]
	}
	binary.BigEndian.PutUint32(addr, high<<16|(0xffff-high))
	binary.BigEndian.PutUint16(ports, uint16(1000+i>>14)) // not 20, which is no client's
	p := &l.batch[k]
	p.Reset(buf, packet.Headroom, packet.Headroom+n)
	if why := p.Parse(); why != packet.OK {
		tb.Fatal(why)
	}
}

// handle has q handle the batch as the packet loop does.
func (l *load) handle(tb testing.TB, q *lb.Queue) {
	q.Prepare(l.batch)
	for k := range l.batch {
		if v, why := q.Handle(&l.batch[k], 0); v != packet.Send {
			tb.Fatalf("%v, %v", v, why)
		}
	}
}

// maxBatch is the most packets that the loop of package stack reads at a time.
const maxBatch = 64

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
	sizes := []struct {
		name         string
		flows, batch int
	}{
		{"one flow", 1, 1},
		{"million flows", flows, maxBatch},
		{"million flows in batches of 8", flows, 8},
		{"million flows one by one", flows, 1},
	}
	for _, tt := range tests {
		balancer := startWith(b, tt.d.config(b), lb.Options{Flows: 2 * flows})
		q := balancer.Queue(0)
		ctx, cancel := context.WithCancel(b.Context())
		var sweeper sync.WaitGroup
		sweeper.Go(func() { _ = balancer.Run(ctx, func() time.Duration { return 0 }) })
		l := newLoad(tt.in, 1)
		for i := range uint32(flows) {
			l.from(b, 0, i)
			l.handle(b, q)
		}
		cancel()
		sweeper.Wait()
		for _, size := range sizes {
			b.Run(tt.name+"/"+size.name, func(b *testing.B) {
				l := newLoad(tt.in, size.batch)
				rnd := rand.New(rand.NewPCG(1, 1))
				b.ReportAllocs()
				for k := 0; b.Loop(); k++ {
					l.from(b, k%size.batch, rnd.Uint32N(uint32(size.flows)))
					if (k+1)%size.batch == 0 {
						l.handle(b, q)
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
