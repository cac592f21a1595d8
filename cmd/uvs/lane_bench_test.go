package main

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
	"github.com/uvs-project/uvs/stack/fastlane"
)

// A busyLane is the fast lane, in which every flow had a packet within the last
// half minute: it asks the kernel and answers otherwise.
type busyLane struct {
	*fastlane.Lane
	tb    testing.TB
	asked int
}

func (l *busyLane) Offer(o *lb.Offer) bool {
	e := fastlane.Entry{Tuple: o.Tuple, Rewrite: o.Rewrite, Account: o.Account, Hop: fastlane.Hop{IfIndex: 1, MTU: 1500, Addr: netip.MustParseAddr("10.0.0.21")}}
	if err := l.Put(&e, l.Generation()); err != nil {
		l.tb.Fatal(err)
	}
	return true
}

func (l *busyLane) Withdraw(t *packet.Tuple) { _ = l.Delete(t) }

func (l *busyLane) Seen(t *packet.Tuple) (time.Duration, bool) {
	l.asked++
	l.Lane.Seen(t)
	return time.Duration(t.Src[3]) * time.Second / 8, true
}

func (l *busyLane) Invalidate() { _ = l.Lane.Invalidate() }

func (l *busyLane) Count(account uint32) (packets, bytes uint64) {
	c, err := l.Lane.Count(account)
	if err != nil {
		l.tb.Fatal(err)
	}
	return c.Packets, c.Bytes
}

// BenchmarkMillionFlowsInTheLane tells how much of a core uvs needs to keep the
// timers and the counters of a million flows of nat that the lane carries, with
// the default timeouts. They began evenly spread over one lifetime, and each
// iteration is one second of the balancer's clock.
func BenchmarkMillionFlowsInTheLane(b *testing.B) {
	b.Run("tcp", func(b *testing.B) { millionFlows(b, packet.TCP, 900*time.Second) })
	b.Run("udp", func(b *testing.B) { millionFlows(b, packet.UDP, 300*time.Second) })
}

func millionFlows(b *testing.B, proto uint8, lifetime time.Duration) {
	const flows, servers = 1_000_000, 100
	f, err := fastlane.Open(fastlane.Options{Flows: flows, Accounts: 2 * (servers + 1)})
	if err != nil {
		b.Skip(err)
	}
	defer f.Close()
	lane := &busyLane{Lane: f, tb: b}
	balancer, err := lb.New(lb.Options{Flows: 2 * flows, Offload: lane, OfferEvery: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer balancer.Close()
	if err := balancer.Apply(natService(b, proto, servers)); err != nil {
		b.Fatal(err)
	}
	const client, vip = "198.51.100.7:40000", "203.0.113.10:80"
	now := time.Duration(0)
	handle := func(pkt []byte, from uint32, reply *packet.Tuple) packet.Endpoint {
		p := packettest.Parsed(b, pkt)
		if binary.BigEndian.PutUint32(p.Tuple.Src[:], from); reply != nil {
			p.Tuple = *reply
		}
		if v, why := balancer.Queue(0).Handle(p, now); v != packet.Send {
			b.Fatal(v, why)
		}
		to, family := p.Destination()
		return packet.Endpoint{Addr: to, Family: family}
	}
	for i := range uint32(flows) {
		from := 100<<24 + i
		if due := lifetime / flows * time.Duration(i); due-now > time.Second/16 {
			now = due
			balancer.Tick(now)
		}
		if proto == packet.UDP {
			handle(packettest.UDP(client, vip), from, nil)
			handle(packettest.UDP(client, vip), from, nil)
			continue
		}
		rs := handle(packettest.TCP(client, vip, packettest.SYN), from, nil)
		reply := packet.Tuple{Src: rs.Addr, SrcPort: 80, DstPort: 40000, Proto: proto, Family: packet.IPv4}
		binary.BigEndian.PutUint32(reply.Dst[:], from)
		handle(packettest.TCP(vip, client, packettest.SYNACK), 0, &reply)
		handle(packettest.TCP(client, vip), from, nil)
	}
	if s := balancer.Stats().Flows; s.Now != flows || s.Offered != flows {
		b.Fatalf("%d flows, %d of them offered", s.Now, s.Offered)
	}
	for info := range balancer.Flows(now) {
		if !lane.Has(&info.Tuple) {
			b.Fatalf("the lane lacks %+v", info)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	lane.asked = 0
	began, seconds := threadTime(b), 0
	for b.Loop() {
		for range 16 {
			now += time.Second / 16
			balancer.Tick(now)
		}
		seconds++
	}
	b.ReportMetric(100*(threadTime(b)-began).Seconds()/float64(seconds), "%-of-a-core")
	b.ReportMetric(float64(lane.asked)/float64(seconds), "asked/s")
	if s := balancer.Stats().Flows; s.Now != flows {
		b.Errorf("%d flows are left of those that the lane carries", s.Now)
	}
}

// natService has so many real servers, 10.0.0.1 and on.
func natService(b *testing.B, proto uint8, servers int) lb.Config {
	b.Helper()
	s := lb.ServiceConfig{Name: "web", Policy: lb.DefaultPolicy(), Listens: []lb.Listen{{VIP: netip.MustParseAddr("203.0.113.10"), FirstPort: 80, Proto: proto}}}
	var err error
	if s.Scheduler, err = sched.New("rr", sched.Options{}); err != nil {
		b.Fatal(err)
	}
	for i := range servers {
		rs := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)}), 80)
		m, err := modes.New("nat", modes.Options{Listens: s.Listens, RealServer: rs})
		if err != nil {
			b.Fatal(err)
		}
		s.RealServers = append(s.RealServers, lb.RealServerConfig{Address: rs, Weight: 1, Mode: m})
	}
	return lb.Config{Services: []lb.ServiceConfig{s}}
}

// threadTime is the time that this thread has had a processor, in the kernel
// too.
func threadTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
