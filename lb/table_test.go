package lb

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/uvs-project/uvs/packet"
)

func TestEntryIsOneCacheLine(t *testing.T) {
	if n := unsafe.Sizeof(entry{}); n != 64 {
		t.Errorf("an entry has %d bytes", n)
	}
	if n := unsafe.Sizeof(shard{}); n != 128 {
		t.Errorf("a shard has %d bytes", n)
	}
}

func TestShardBits(t *testing.T) {
	for _, tt := range []struct{ limit, want int }{
		{1, 0}, {256, 0}, {257, 1}, {4096, 4}, {20_000, 6}, {2048 * 64, 6}, {2048*64 + 1, 7}, {10_000_000, 13}, {maxLimit, maxShardBits},
	} {
		if got := shardBits(tt.limit); got != tt.want {
			t.Errorf("shardBits(%d) = %d, want %d", tt.limit, got, tt.want)
		}
	}
}

// A twin is the table in the simplest way: two maps, and every operation
// looks at everything it needs.
type twin struct {
	flows   map[packet.Tuple]*twinFlow
	replies map[packet.Tuple][]packet.Tuple // to the request tuples of their flows, the newest first
	ended   []uint32                        // deadlines that have come
}

type twinFlow struct {
	Flow
	deadline uint32
	reply    packet.Tuple
	replies  bool
}

func (w *twin) remove(key packet.Tuple) {
	f := w.flows[key]
	delete(w.flows, key)
	w.unreply(f, key)
}

// unreply takes the flow of key from those that have its reply tuple.
func (w *twin) unreply(f *twinFlow, key packet.Tuple) {
	if !f.replies {
		return
	}
	w.replies[f.reply] = slices.DeleteFunc(w.replies[f.reply], func(k packet.Tuple) bool { return k == key })
	if len(w.replies[f.reply]) == 0 {
		delete(w.replies, f.reply)
	}
}

func (w *twin) expire(now uint32) {
	maps.DeleteFunc(w.flows, func(key packet.Tuple, f *twinFlow) bool {
		if f.deadline <= now {
			w.unreply(f, key)
			w.ended = append(w.ended, f.deadline)
		}
		return f.deadline <= now
	})
}

// endedSince counts the flows that ended at or after a tick.
func (w *twin) endedSince(since uint32) (n int) {
	for _, at := range w.ended {
		if int32(at-since) >= 0 {
			n++
		}
	}
	return n
}

func (w *twin) lookup(key packet.Tuple, e event, anew bool, now uint32) (Flow, Direction, bool) {
	f, d := w.flows[key], Request
	if f == nil {
		if requests := w.replies[key]; len(requests) > 0 {
			f, d = w.flows[requests[0]], Reply
		}
	}
	if f == nil {
		return Flow{}, 0, false
	}
	if anew && d == Request && f.Server.replaces(&entry{state: f.State, flags: oneSidedFlag(f.Server)}) {
		w.remove(key)
		return Flow{}, 0, false
	}
	if e != eventPeek {
		f.State = f.State.next(e, wayOf(d, f.Server.oneSided), false)
		f.deadline = now + f.Server.service.lifetimes[f.State]
	}
	return f.Flow, d, true
}

func oneSidedFlag(rs *RealServer) uint8 {
	if rs.oneSided {
		return flagOneSided
	}
	return 0
}

func (w *twin) insert(f Flow, now uint32) {
	n := &twinFlow{Flow: f, deadline: now + f.Server.service.lifetimes[f.State]}
	if n.reply, n.replies = f.Server.Mode.ReplyTuple(f); n.replies {
		all := append([]packet.Tuple{f.Tuple}, w.replies[n.reply]...)
		w.replies[n.reply] = all[:min(len(all), len(hints{}.entries))]
	}
	w.flows[f.Tuple] = n
}

// TestTableTwin does the same random things to the table and to its twin.
func TestTableTwin(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const clients = 3000
	table, set := newTestTable(t, 2*clients, fakeMode{}, fakeMode{direct: true}, fakeMode{locals: 4 * clients})
	w := &twin{flows: map[packet.Tuple]*twinFlow{}, replies: map[packet.Tuple][]packet.Tuple{}}
	protos := []uint8{packet.TCP, packet.UDP, packet.SCTP}
	now := uint32(0)
	for step := range 200_000 {
		switch rnd.IntN(100) {
		case 0: // time goes on, sometimes by more than a turn of the wheel
			now += uint32(rnd.IntN(1 << rnd.IntN(15)))
			w.expire(now)
			if rnd.IntN(2) == 0 {
				for range 64 {
					table.Sweep(time.Duration(now)<<tickShift, 1<<20)
				}
				if n := table.Len(); n < len(w.flows) || n > len(w.flows)+w.endedSince(now-1<<slotShift) {
					t.Fatalf("step %d: %d flows after a sweep, want %d and at most those of the last slot", step, n, len(w.flows))
				}
			}
		}
		proto := protos[rnd.IntN(len(protos))]
		client := uint32(rnd.IntN(clients))
		key := clientTuple(client, proto)
		if client < clients/30 { // to VIP ports that lead to the same port of the real server
			key.DstPort += uint16(rnd.IntN(6))
		}
		if rnd.IntN(3) == 0 { // a reply
			if f := w.flows[key]; f != nil && f.replies {
				key = f.reply
			}
		}
		e, anew := randomEvent(rnd, proto)
		got, gotDir, gotOK := table.find(key, e, anew, now)
		want, wantDir, wantOK := w.lookup(key, e, anew, now)
		if got != want || gotDir != wantDir || gotOK != wantOK {
			t.Fatalf("step %d: lookup of %v: %v %v %v, want %v %v %v", step, key, got, gotDir, gotOK, want, wantDir, wantOK)
		}
		if gotOK || !e.opens(false) {
			continue
		}
		rs := set[rnd.IntN(len(set))]
		f, why := table.add(rs, key, first(proto).next(e, wayOf(Request, rs.oneSided), false), now)
		if why != packet.OK {
			t.Fatalf("step %d: insert: %v", step, why)
		}
		if reply, ok := rs.Mode.ReplyTuple(f); ok && rs.Mode.(fakeMode).locals > 0 {
			if _, taken := w.replies[reply]; taken {
				t.Fatalf("step %d: the reply tuple of a new flow belongs to another one", step)
			}
		}
		w.insert(f, now)
	}
	checkTable(t, table, set, w)
}

func randomEvent(rnd *rand.Rand, proto uint8) (event, bool) {
	if rnd.IntN(20) == 0 {
		return eventPeek, false
	}
	switch proto {
	case packet.TCP:
		return tcpEvent([]uint8{packet.SYN, packet.SYN, packet.ACK, packet.ACK | packet.FIN, packet.RST, 0}[rnd.IntN(6)])
	case packet.SCTP:
		return sctpEvent(uint8(rnd.IntN(16)))
	}
	return udpDatagram, false
}

// checkTable compares what the table holds, and what it counts, with the twin.
func checkTable(t *testing.T, table *Table, set []*RealServer, w *twin) {
	t.Helper()
	active := map[*RealServer]int64{}
	flows := map[*RealServer]int64{}
	for _, f := range w.flows {
		flows[f.Server]++
		if states[f.State].active {
			active[f.Server]++
		}
	}
	for _, rs := range set {
		if got := rs.flows.Load(); got < flows[rs] {
			t.Errorf("real server %d counts %d flows, want at least %d", rs.id, got, flows[rs])
		}
	}
	for key, f := range w.flows {
		if got, _, ok := table.find(key, eventPeek, false, f.deadline-1); !ok || got != f.Flow {
			t.Errorf("flow %v: %v %v, want %v", key, got, ok, f.Flow)
		}
		if _, _, ok := table.find(key, eventPeek, false, f.deadline); ok {
			t.Errorf("flow %v is there at its deadline", key)
		}
	}
	// Whatever is left is due; then nothing may be left of anything.
	table.sweepAll(1 << 31)
	for _, rs := range set {
		if rs.flows.Load() != 0 || rs.active.Load() != 0 {
			t.Errorf("real server %d counts %d flows and %d active ones of an empty table", rs.id, rs.flows.Load(), rs.active.Load())
		}
	}
	if table.Len() != 0 {
		t.Errorf("an empty table counts %d flows", table.Len())
	}
	for i := range table.shards {
		s := &table.shards[i]
		if s.keys != 0 || s.live != 0 {
			t.Errorf("shard %d of an empty table has %d keys and %d flows", i, s.keys, s.live)
		}
	}
}

// sweepAll turns every wheel until now.
func (t *Table) sweepAll(now uint32) {
	for id := range uint32(len(t.shards)) {
		for more := true; more; {
			_, more = t.turn(id, now)
		}
	}
}

func TestTableLimit(t *testing.T) {
	const limit = 200
	tests := []struct {
		name  string
		old   func(i int) State // of the flows that fill the table
		idle  time.Duration     // for which they are silent then
		want  packet.Reason
		given func(i int) bool // the flows that may be given up
	}{
		{name: "a SYN that nobody answered goes first", old: func(i int) State {
			return []State{TCPEstablished, TCPTimeWait, TCPSynRecv, UDPNormal}[i%4]
		}, idle: 5 * time.Second, given: func(i int) bool { return i%4 == 2 }},
		{name: "then a closed connection", old: func(i int) State {
			return []State{TCPEstablished, TCPTimeWait, UDPNormal}[i%3]
		}, idle: 5 * time.Second, given: func(i int) bool { return i%3 == 1 }},
		{name: "then an idle UDP flow", old: func(i int) State {
			return []State{TCPEstablished, UDPNormal}[i%2]
		}, idle: 5 * time.Second, given: func(i int) bool { return i%2 == 1 }},
		{name: "a UDP flow under way stays", old: func(int) State { return UDPNormal },
			idle: time.Second, want: packet.TableFull},
		{name: "established and half closed flows stay", old: func(i int) State {
			return []State{TCPEstablished, TCPFinWait, TCPCloseWait, SCTPEstablished}[i%4]
		}, idle: 5 * time.Second, want: packet.TableFull},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table, set := newTestTable(t, limit, fakeMode{})
			for i := range limit {
				if _, why := table.add(set[0], clientTuple(uint32(i), packet.TCP), tt.old(i), 0); why != packet.OK {
					t.Fatalf("flow %d of %d: %v", i, limit, why)
				}
			}
			now := ticks(tt.idle)
			_, why := table.add(set[0], clientTuple(limit, packet.TCP), TCPSynRecv, now)
			if why != tt.want {
				t.Fatalf("one flow more: %v, want %v", why, tt.want)
			}
			lost := 0
			for i := range limit {
				if _, _, ok := table.find(clientTuple(uint32(i), packet.TCP), eventPeek, false, now); !ok {
					lost++
					if tt.given == nil || !tt.given(i) {
						t.Errorf("flow %d, %v, was given up", i, tt.old(i))
					}
				}
			}
			if want := map[bool]int{true: 1}[tt.want == packet.OK]; lost != want {
				t.Errorf("%d flows given up, want %d", lost, want)
			}
			if table.Len() != limit {
				t.Errorf("%d flows, want %d", table.Len(), limit)
			}
		})
	}
}

func TestUDPGivenUpIsTheLongestIdle(t *testing.T) {
	const limit = maxRefile
	table, set := newTestTable(t, limit, fakeMode{})
	for i := range uint32(limit) {
		table.add(set[0], clientTuple(i, packet.UDP), UDPNormal, 0)
	}
	busyUntil := ticks(60 * time.Second)
	for i := range uint32(limit) {
		if i != 3 {
			table.find(clientTuple(i, packet.UDP), eventKeep, true, busyUntil)
		}
	}
	now := busyUntil + ticks(10*time.Second)
	table.sweepAll(now)
	if _, why := table.add(set[0], clientTuple(limit, packet.UDP), UDPNormal, now); why != packet.OK {
		t.Fatal(why)
	}
	if _, _, ok := table.find(clientTuple(3, packet.UDP), eventPeek, false, busyUntil); ok {
		t.Error("the idle flow was kept and another one given up")
	}
}

func TestReplyTupleOfTwoFlows(t *testing.T) {
	table, set := newTestTable(t, 100, fakeMode{}, fakeMode{locals: 3})
	// Two VIP ports that lead to the same port of the real server.
	older, newer := clientTuple(1, packet.TCP), clientTuple(1, packet.TCP)
	newer.DstPort = 443
	for _, key := range []packet.Tuple{older, newer} {
		if _, why := table.add(set[0], key, TCPSynRecv, 0); why != packet.OK {
			t.Fatal(why)
		}
	}
	reply, _ := set[0].Mode.ReplyTuple(Flow{Tuple: older, Server: set[0]})
	if f, d, ok := table.find(reply, eventPeek, false, 0); !ok || d != Reply || f.Tuple != newer {
		t.Errorf("the reply belongs to %v %v, want the newer flow", f.Tuple, ok)
	}
	end := set[0].service.lifetimes[TCPSynRecv]
	table.find(older, tcpACK, false, 1)
	if f, d, ok := table.find(reply, eventPeek, false, end); !ok || d != Reply || f.Tuple != older {
		t.Errorf("once the newer flow has ended the reply belongs to %v %v, want the older one", f.Tuple, ok)
	}

	// Three ports, four flows.
	seen := map[uint32]bool{}
	for i := range uint32(4) {
		f, why := table.add(set[1], clientTuple(10+3*i, packet.TCP), TCPSynRecv, 0)
		if i == 3 {
			if why != packet.NoPort {
				t.Errorf("a flow for which no port is left: %v, want %v", why, packet.NoPort)
			}
			break
		}
		if why != packet.OK || seen[f.Local] {
			t.Errorf("flow %d: %v, port %d", i, why, f.Local)
		}
		seen[f.Local] = true
	}
	if got := set[1].flows.Load(); got != 3 {
		t.Errorf("%d flows counted, want 3", got)
	}
	if table.Len() != 4 {
		t.Errorf("%d flows, want 4", table.Len())
	}
}

// TestTableConcurrent has several queues open, use and end the same flows
// while a sweeper runs. The race detector and the counts at the end say
// whether they came to terms.
func TestTableConcurrent(t *testing.T) {
	const clients, workers, steps = 2000, 4, 30_000
	// The limit is below the number of clients, so there is eviction too.
	table, set := newTestTable(t, clients/2, fakeMode{}, fakeMode{direct: true}, fakeMode{locals: 4 * clients})
	clock := make(chan uint32, workers)
	done := make(chan struct{})
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		var spared [todropPackets + 1]int8
		for {
			select {
			case <-done:
				return
			case now := <-clock:
				table.Sweep(time.Duration(now)<<tickShift, 1000)
				table.dropFrom(int(now)%table.numChunks(), now, &spared)
			}
		}
	}()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for step := range uint32(steps) {
				now := step / 16
				if step%64 == 0 {
					select {
					case clock <- now:
					default:
					}
				}
				key := clientTuple(uint32(rnd.IntN(clients)), packet.TCP)
				e, opens := randomEvent(rnd, packet.TCP)
				f, _, ok := table.find(key, e, opens, now)
				if ok {
					if reply, replies := f.Server.Mode.ReplyTuple(f); replies {
						table.find(reply, tcpACK, false, now)
					}
				} else if opens {
					table.add(set[rnd.IntN(len(set))], key, TCPSynRecv, now)
				}
			}
		})
	}
	wg.Wait()
	close(done)
	<-swept
	checkTable(t, table, set, &twin{})
	st := table.stats()
	if st.Created == 0 || st.Evicted == 0 || st.Expired == 0 || st.Dropped == 0 || st.Created != st.Expired+st.Evicted+st.Dropped {
		t.Errorf("created %d, expired %d, evicted %d, dropped %d", st.Created, st.Expired, st.Evicted, st.Dropped)
	}
}

func TestFlowIsGoneAtItsDeadlineWithoutASweep(t *testing.T) {
	table, set := newTestTable(t, 100, fakeMode{})
	key := clientTuple(1, packet.UDP)
	table.add(set[0], key, UDPNormal, 0)
	end := ticks(300 * time.Second)
	if _, _, ok := table.find(key, eventPeek, false, end-1); !ok {
		t.Error("the flow is gone before its deadline")
	}
	if _, _, ok := table.find(key, eventPeek, false, end); ok {
		t.Error("the flow is there at its deadline")
	}
	if table.Len() != 0 {
		t.Error("a flow found due was not removed")
	}
}

func TestSweepWorksInSmallSteps(t *testing.T) {
	const flows = 1000
	table, set := newTestTable(t, flows, fakeMode{})
	for i := range uint32(flows) {
		table.add(set[0], clientTuple(i, packet.UDP), UDPNormal, 0)
	}
	now := 400 * time.Second
	for calls := 0; table.Len() > 0; calls++ {
		before := table.Len()
		table.Sweep(now, 100)
		if n := before - table.Len(); n > 100+burst {
			t.Fatalf("a sweep with budget 100 freed %d", n)
		}
		if calls > flows {
			t.Fatal("the sweep does not come to an end")
		}
	}
}

func ExampleState_String() {
	fmt.Println(TCPEstablished, UDPNormal, SCTPClosed)
	// Output: established udp closed
}
