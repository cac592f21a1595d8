package lb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// defend makes a balancer with one service and d.
func defended(tb testing.TB, o Options, d Defence) *Balancer {
	tb.Helper()
	b := newTestBalancer(tb, o)
	b.mustApply(tb, webConfig("A=1"))
	if err := b.SetDefence(d); err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestDropPacketDropsEveryNthPacketThatWouldOpenAFlow(t *testing.T) {
	tests := []struct {
		name string
		d    Defence
		want string // what becomes of new clients' packets
	}{
		{"off", Defence{}, "sssssssssssss"},
		{"always, one in four: the first and then every fourth, as IPVS", Defence{DropPacket: DefenceAlways, DropRate: 4}, "dsssdsssdsssd"},
		{"always, as IPVS when nothing is set: one in ten", Defence{DropPacket: DefenceAlways}, "dsssssssssdss"},
		{"auto without pressure", Defence{DropPacket: DefenceAuto}, "sssssssssssss"},
		{"the other defences drop no packet", Defence{DropEntry: DefenceAlways, SecureTCP: DefenceAlways}, "sssssssssssss"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := defended(t, Options{Flows: 1000}, tt.d)
			var got strings.Builder
			for port := range uint16(len(tt.want)) {
				v := b.send(t, 0, port+1, 0)
				got.WriteByte(v.String()[0])
				// Packets of a flow, and those that cannot open one, do not count.
				if v == packet.Send && b.send(t, 0, port+1, 0) != packet.Send {
					t.Errorf("flow %d: the second packet was dropped", port)
				}
				b.Queue(0).Handle(packettest.Parsed(t, packettest.UDP("198.51.100.7:1", "192.0.2.1:80")), 0)
			}
			if got.String() != tt.want {
				t.Errorf("%s, want %s", got.String(), tt.want)
			}
			if n := b.Stats().Reasons[packet.Overload]; n != uint64(strings.Count(tt.want, "d")) {
				t.Errorf("%d counted", n)
			}
		})
	}
}

func TestDropPacketCountsOverAllQueues(t *testing.T) {
	const queues, each, rate = 4, 1000, 7
	b := defended(t, Options{Queues: queues, Flows: 10_000}, Defence{DropPacket: DefenceAlways, DropRate: rate})
	var all sync.WaitGroup
	for q := range queues {
		all.Go(func() {
			for i := range each {
				b.send(t, q, uint16(1+q*each+i), 0)
			}
		})
	}
	all.Wait()
	if got, want := b.Stats().Reasons[packet.Overload], uint64(queues*each+rate-1)/rate; got != want {
		t.Errorf("%d of %d dropped, want %d", got, queues*each, want)
	}
}

// TestDefenceFollowsThePressure has a table of 1000 flows whose threshold is
// 100, and 64 MiB as the memory's.
func TestDefenceFollowsThePressure(t *testing.T) {
	const mib = 1 << 20
	auto := Defence{DropEntry: DefenceAuto, DropPacket: DefenceAuto, SecureTCP: DefenceAuto}
	on := func(rate int, flows, memory bool) DefenceState {
		return DefenceState{DropEntry: true, SecureTCP: true, DropRate: rate, FewFlows: flows, LowMemory: memory}
	}
	type look struct {
		flows int   // in the table
		free  int64 // bytes
		want  DefenceState
	}
	tests := []struct {
		name  string
		d     Defence
		looks []look // one a second
		told  int    // changes
	}{
		{"the table fills and empties", auto, []look{
			{900, 999 * mib, DefenceState{}},
			{901, 999 * mib, on(100, true, false)},
			{950, 999 * mib, on(2, true, false)},
			{1000, 999 * mib, on(2, true, false)}, // never all
			{880, 999 * mib, on(0, true, false)},  // until a quarter more is free
			{875, 999 * mib, DefenceState{}},
		}, 2},
		{"memory runs out", auto, []look{
			{0, 64 * mib, DefenceState{}},
			{0, 63 * mib, on(64, false, true)},
			{0, 32 * mib, on(2, false, true)},
			{0, 1 * mib, on(1, false, true)}, // as IPVS: nobody is let in
			{0, 80 * mib, DefenceState{}},
		}, 2},
		{"the worse pressure counts", auto, []look{
			{901, 32 * mib, on(2, true, true)},
		}, 1},
		{"what is off stays off", Defence{DropEntry: DefenceAuto}, []look{
			{950, 999 * mib, DefenceState{DropEntry: true, FewFlows: true}},
		}, 1},
		{"what is always on does not look", Defence{DropPacket: DefenceAlways, DropRate: 5}, []look{
			{950, 1 * mib, DefenceState{DropRate: 5}},
		}, 1},
		{"thresholds of one's own", Defence{DropPacket: DefenceAuto, FreeFlows: 500, FreeMemory: 8 * mib}, []look{
			{499, 8 * mib, DefenceState{}},
			{501, 8 * mib, DefenceState{DropRate: 500, FewFlows: true}},
		}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			free := int64(999 * mib)
			var told []DefenceState
			b := newTestBalancer(t, Options{
				Flows:     1000,
				Memory:    func() (int64, bool) { return free, true },
				OnDefence: func(s DefenceState) { told = append(told, s) },
			})
			if err := b.SetDefence(tt.d); err != nil {
				t.Fatal(err)
			}
			for i, l := range tt.looks {
				b.table.live.Store(int64(l.flows))
				free = l.free
				for tick := range 16 { // only the first one of a second looks
					b.Tick(time.Duration(1+i)*time.Second + time.Duration(tick)*sweepEvery)
				}
				// The rate between the thresholds is not of interest.
				got := b.Stats().Defence
				if l.want.DropRate == 0 && got.is(on(1, true, false)) {
					got.DropRate = 0
				}
				if diff := cmp.Diff(l.want, got); diff != "" {
					t.Errorf("second %d (-want +got):\n%s", i, diff)
				}
			}
			b.table.live.Store(0)
			if len(told) != tt.told {
				t.Errorf("told of %d changes, want %d: %+v", len(told), tt.told, told)
			}
			if got := b.table.secure.Load(); got != b.Stats().Defence.SecureTCP {
				t.Errorf("the other TCP table is on: %v", got)
			}
		})
	}
}

func TestSetDefenceRefuses(t *testing.T) {
	b := newTestBalancer(t, Options{Flows: 10})
	for _, d := range []Defence{{DropEntry: 3}, {DropPacket: 3}, {SecureTCP: 3}, {DropRate: -1}, {FreeFlows: -1}, {FreeMemory: -1}} {
		if b.SetDefence(d) == nil {
			t.Errorf("%+v was taken", d)
		}
	}
}

// TestDropEntryEndsWhatAFloodMade makes a thousand flows of each kind and
// visits the whole table some times over.
func TestDropEntryEndsWhatAFloodMade(t *testing.T) {
	const each = 1000
	kinds := []struct {
		name     string
		proto    uint8
		state    State
		requests int
		age      time.Duration
		low, up  int // how many may be left
	}{
		{"SYN_RECV goes", packet.TCP, TCPSynRecv, 1, 0, 0, 0},
		{"SYNACK goes", packet.TCP, TCPSynAck, 1, 0, 0, 0},
		{"INIT1 goes", packet.SCTP, SCTPInit1, 1, 0, 0, 0},
		{"INIT goes", packet.SCTP, SCTPInit, 1, 0, 0, 0},
		{"FIN_WAIT stays", packet.TCP, TCPFinWait, 1, 70 * time.Second, each, each},
		{"CLOSE_WAIT stays", packet.TCP, TCPCloseWait, 1, 0, each, each},
		{"an established flow that is idle for less than a minute stays", packet.TCP, TCPEstablished, 3, 59 * time.Second, each, each},
		{"one that is idle for longer goes", packet.TCP, TCPEstablished, 3, 62 * time.Second, 0, 0},
		{"one of more than eight packets stays", packet.TCP, TCPEstablished, 9, 62 * time.Second, each, each},
		{"an idle UDP flow goes", packet.UDP, UDPNormal, 8, 62 * time.Second, 0, 0},
		{"a busy one stays", packet.UDP, UDPNormal, 1, 59 * time.Second, each, each},
		{"an SCTP association that is idle goes", packet.SCTP, SCTPEstablished, 2, 62 * time.Second, 0, 0},
	}
	const now = 100 * time.Second
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			b := defended(t, Options{Flows: 100_000}, Defence{DropEntry: DefenceAlways})
			b.defence.random = rand.New(rand.NewPCG(seed, 0))
			rs := b.byName["web"].set[0]
			for i := range uint32(each) {
				key := clientTuple(i, k.proto)
				if _, why := b.table.add(rs, key, k.state, tickOf(now-k.age)); why != packet.OK {
					t.Fatal(why)
				}
				for range k.requests - 1 {
					if _, _, ok := b.table.find(key, eventKeep, false, tickOf(now-k.age)); !ok {
						t.Fatal("not found")
					}
				}
			}
			b.dropEntries(now)
			first := each - b.table.Len()
			for range 2000 {
				b.dropEntries(now)
			}
			if left := b.table.Len(); left < k.low || left > k.up {
				t.Errorf("%d left, want %d to %d", left, k.low, k.up)
			}
			if k.up == 0 && first > each/4 {
				t.Errorf("%d went at the first visit of a thirty-second part", first)
			}
			if n := b.Stats().Flows.Dropped; int(n) != each-b.table.Len() {
				t.Errorf("%d counted", n)
			}
		})
	}
}

// TestEstablishedFlowsGoInProportion follows todrop_entry of IPVS: of the idle
// flows that have had n packets, one in n is dropped at a visit.
func TestEstablishedFlowsGoInProportion(t *testing.T) {
	const each = 840
	for n := 1; n <= todropPackets; n++ {
		b := defended(t, Options{Flows: each}, Defence{})
		rs := b.byName["web"].set[0]
		for i := range uint32(each) {
			key := clientTuple(i, packet.UDP)
			b.table.add(rs, key, UDPNormal, 0)
			for range n - 1 {
				b.table.find(key, eventKeep, false, 0)
			}
		}
		for chunk := range b.table.numChunks() {
			b.table.dropFrom(chunk, tickOf(61*time.Second), &b.defence.spared)
		}
		if gone := each - b.table.Len(); gone != each/n {
			t.Errorf("%d packets: %d of %d went, want one in %d", n, gone, each, n)
		}
	}
}

// TestAFloodLeavesConnectionsAlone has clients with connections, and clients
// that open new ones with an answer every 10 ms, while ten times as many SYNs
// as the table holds come from nobody. No connection may be lost or refused.
func TestAFloodLeavesConnectionsAlone(t *testing.T) {
	const limit, connections, flood, answer = 4000, 1000, 40_000, 10 * time.Millisecond
	for _, d := range []Defence{{}, {DropEntry: DefenceAuto, SecureTCP: DefenceAuto}} {
		t.Run(fmt.Sprintf("%+v", d), func(t *testing.T) {
			b := newTestBalancer(t, Options{Flows: limit})
			c := webConfig("A=1")
			c.Services[0].Listens[0].Proto = packet.TCP
			c.Services[0].RealServers[0].Mode = fakeMode{} // replies to the client's own port
			b.mustApply(t, c)
			if err := b.SetDefence(d); err != nil {
				t.Fatal(err)
			}
			const vip, server = "203.0.113.10:80", "10.0.0.65:80"
			send := func(src, dst string, now time.Duration, o ...packettest.Option) packet.Verdict {
				v, _ := b.Queue(0).Handle(packettest.Parsed(t, packettest.TCP(src, dst, o...)), now)
				return v
			}
			client := func(i int) string { return fmt.Sprintf("198.51.%d.%d:40000", 100+i/250, 1+i%250) }
			connect := func(i int, now time.Duration) bool {
				return send(client(i), vip, now, packettest.SYN) == packet.Send &&
					send(server, client(i), now+answer, packettest.SYNACK) == packet.Send &&
					send(client(i), vip, now+answer, packettest.Flags(packet.ACK)) == packet.Send &&
					send(server, client(i), now+answer, packettest.Flags(packet.ACK)) == packet.Send // what counts with secure_tcp
			}
			for i := range connections {
				if !connect(i, 0) {
					t.Fatalf("connection %d was not made", i)
				}
			}
			random := rand.New(rand.NewPCG(1, 2))
			now := answer
			opened := connections
			for i := range flood {
				now += 100 * time.Microsecond
				from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, byte(random.Uint32()), byte(random.Uint32()), 1}), uint16(1+random.Uint32N(60_000)))
				send(from.String(), vip, now, packettest.SYN)
				if i%100 == 0 {
					if !connect(opened, now) {
						t.Fatalf("after %d SYNs a new connection was not made", i)
					}
					opened++
				}
				if i%500 == 0 {
					b.Tick(now)
				}
			}
			for i := range opened {
				if send(client(i), vip, now, packettest.Flags(packet.ACK)) != packet.Send || send(server, client(i), now) != packet.Send {
					t.Errorf("connection %d is lost", i)
				}
			}
			s := b.Stats()
			if s.Flows.Now > limit || s.Reasons[packet.TableFull] != 0 {
				t.Errorf("%d flows, %d refused", s.Flows.Now, s.Reasons[packet.TableFull])
			}
			t.Logf("%d connections lived; %d flows evicted, %d dropped", opened, s.Flows.Evicted, s.Flows.Dropped)
		})
	}
}
