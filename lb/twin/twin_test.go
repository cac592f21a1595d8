// Package twin holds a second balancer in the plainest words, and a test that
// gives both the same packets.
//
//	source ──pkt──┬─ bytes ─► lb.Queue.Handle ─► result ─┐
//	              └─────────► model.judge ◄──────────────┘
//
// The model keeps its flows in maps and writes every packet anew. It shares
// no code with what it judges but the names of things.
package twin

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

var (
	packets = flag.Int("packets", 200_000, "how many packets to compare")
	seed    = flag.Uint64("seed", 1, "of the random numbers; 0: a new one")
)

// packetsOfAWorld is how many packets one random configuration, and what
// becomes of it, sees.
const packetsOfAWorld = 20_000

// TestTwin gives random packets to a balancer with random configurations, and
// has the model judge each. To see a failure again, run it with the seed that
// it prints; since uvs draws numbers of its own, the same may come a little
// earlier or later.
func TestTwin(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("%d packets; -seed %d", *packets, *seed)
	sum := map[string]int{}
	for world := 0; world*packetsOfAWorld < *packets; world++ {
		w := newWorld(t, rand.New(rand.NewPCG(*seed, uint64(world))))
		for step := range packetsOfAWorld {
			if err := w.step(step); err != nil {
				t.Fatalf("-seed %d, world %d, packet %d, at %v:\n%v\n%v", *seed, world, step, w.m.now, err, w.m)
			}
		}
		if err := w.end(); err != nil {
			t.Fatalf("-seed %d, world %d, at its end: %v", *seed, world, err)
		}
		for what, n := range w.saw {
			sum[what] += n
		}
	}
	for what, n := range sum {
		t.Logf("%9d %s", n, what)
	}
}

// A world is one balancer and its model.
type world struct {
	testing.TB
	*rand.Rand
	b      *lb.Balancer
	m      *model
	source *source
	ends   lb.Removed    // how flows of removed real servers end, where they do
	pace   time.Duration // most that passes between two packets as a rule
	buf    []byte

	emitted [][]byte       // resets of the last tick
	saw     map[string]int // packets by what became of them
}

const queues = 3

func newWorld(tb testing.TB, r *rand.Rand) *world {
	tb.Helper()
	m := &model{
		locals:    locals,
		mtu:       map[netip.Addr]int{},
		servers:   map[serverID]*server{},
		flows:     map[key]*flow{},
		replies:   map[key][]*flow{},
		errors:    make([]bucket, queues),
		resets:    make([]bucket, queues),
		ending:    map[load]bool{},
		templates: map[client]*template{},
	}
	w := &world{
		TB: tb, Rand: r, m: m, source: &source{Rand: r, m: m},
		buf: make([]byte, packet.Headroom+packet.MaxSize), saw: map[string]int{},
		ends: []lb.Removed{lb.RemovedReschedule, lb.RemovedReset}[r.IntN(2)],
		pace: []time.Duration{20 * time.Millisecond, 100 * time.Microsecond}[r.IntN(2)],
	}
	m.peek = w.peek
	var err error
	w.b, err = lb.New(lb.Options{Queues: queues, Flows: 100_000, Emit: func(p *packet.Packet) bool {
		w.emitted = append(w.emitted, bytes.Clone(p.Bytes()))
		return true
	}})
	if err != nil {
		tb.Fatal(err)
	}
	for i := range numServers {
		for _, v6 := range []bool{false, true} {
			if r.IntN(3) == 0 {
				m.mtu[serverAddr(i, v6)] = 1280 + r.IntN(240)
				w.b.SetPathMTU(serverAddr(i, v6), m.mtu[serverAddr(i, v6)])
			}
		}
	}
	w.reload()
	return w
}

// step lets some time pass, sometimes changes the configuration, and has one
// packet handled and judged.
func (w *world) step(n int) error {
	switch {
	case w.IntN(3000) == 0:
		w.pass(time.Duration(w.IntN(1200)) * time.Second)
	case w.IntN(200) == 0:
		w.pass(time.Duration(w.IntN(8000)) * time.Millisecond)
	case w.IntN(4) == 0:
		w.pass(time.Duration(w.IntN(int(w.pace))))
	}
	switch w.IntN(1500) {
	case 0:
		w.reload()
	case 1, 2, 3:
		w.update()
	case 4:
		w.defend()
	}
	in := w.source.next()
	q := w.IntN(queues)
	w.m.over = w.overloaded()
	got, err := w.handle(in, q)
	if err != nil {
		return err
	}
	before := len(w.m.flows)
	if err := w.m.judge(in, q, got); err != nil {
		return fmt.Errorf("%w\nin queue %d came %s", err, q, dump(in.bytes()))
	}
	if len(w.m.flows) > before {
		w.source.remember(w.m.flows[in.key()])
	}
	w.saw[fmt.Sprint(got.verdict, " ", got.reason)]++
	return nil
}

func (w *world) pass(d time.Duration) {
	w.m.advance(w.m.now + d)
	if w.IntN(2) == 0 {
		w.tick()
	}
	if d > time.Minute {
		for range 16 { // a sixteenth of the table each
			w.tick()
		}
		w.m.sweep()
	}
}

// tick does what is due, and compares the resets that are sent.
func (w *world) tick() {
	w.emitted = w.emitted[:0]
	w.b.Tick(w.m.now)
	for _, f := range w.m.tick() {
		for end := range 2 {
			i := slices.IndexFunc(w.emitted, func(b []byte) bool { return bytes.Equal(b, f.resets(b)[end]) })
			if i < 0 {
				w.Fatalf("flow %+v was not reset at end %d; sent were\n%x", f, end, w.emitted)
			}
			w.emitted = slices.Delete(w.emitted, i, i+1)
		}
	}
	if len(w.emitted) > 0 {
		w.Fatalf("%d resets too many: %x", len(w.emitted), w.emitted)
	}
}

// handle gives the bytes of a packet to a queue.
func (w *world) handle(in *pkt, q int) (result, error) {
	b := in.bytes()
	copy(w.buf[packet.Headroom:], b)
	batch := make([]packet.Packet, 1)
	p := &batch[0]
	p.Reset(w.buf, packet.Headroom, packet.Headroom+len(b))
	if why := p.Parse(); why != packet.OK {
		return result{}, fmt.Errorf("what was drawn does not parse: %v\n%s", why, packettest.Dump(b))
	}
	if in.later() { // as package stack does
		p.Tuple.SrcPort, p.Tuple.DstPort = in.src.Port(), in.dst.Port()
	}
	if w.IntN(2) == 0 {
		w.b.Queue(q).Prepare(batch)
	}
	asks, tuple := w.IntN(4) == 0, p.Tuple
	var told lb.Explanation
	if asks {
		told = w.b.Explain(tuple, w.m.now)
	}
	v, why := w.b.Queue(q).Handle(p, w.m.now)
	if asks {
		if err := w.foretold(&told, tuple); err != nil {
			return result{}, err
		}
	}
	got := result{verdict: v, reason: why, bytes: p.Bytes(), hop: p.NextHop}
	if v == packet.Send {
		got.source = sourceOf(got.bytes)
	}
	return got, nil
}

// foretold compares what the balancer has explained of a tuple, before a packet
// of it was handled, with the flow that it has by now.
func (w *world) foretold(told *lb.Explanation, t packet.Tuple) error {
	is := w.b.Explain(t, w.m.now)
	if told.Verdict != packet.Send || told.Renewed || told.Ends || told.ByPayload || !is.Known {
		return nil // the tuple alone does not decide
	}
	w.saw["foretold"]++
	was, now := &told.Flow, &is.Flow
	if was.Server.Endpoint != now.Server.Endpoint || was.Local != now.Local || told.Way != is.Way || told.Service != is.Service {
		return fmt.Errorf("explained was %v, real server %v, local %x of %s, known %v; it became %v, %v, %x of %s",
			told.Way, was.Server.Endpoint.AddrPort(), was.Local, told.Service, told.Known, is.Way, now.Server.Endpoint.AddrPort(), now.Local, is.Service)
	}
	return nil
}

// dump is the beginning of a packet.
func dump(b []byte) string {
	lines := strings.SplitAfterN(packettest.Dump(b), "\n", 16)
	return strings.Join(lines[:min(len(lines), 15)], "")
}

// sourceOf is where an unfragmented packet comes from.
func sourceOf(b []byte) netip.AddrPort {
	if b[0]>>4 == 4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), word16(b, 20))
	}
	at := 40
	if b[6] == 44 {
		at = 48
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), word16(b, at))
}

// overloaded asks which real servers are at their upper threshold.
func (w *world) overloaded() (all map[load]string) {
	limited := slices.ContainsFunc(w.m.services, func(s *service) bool {
		return slices.ContainsFunc(s.servers, func(c *serverConfig) bool { return c.most > 0 })
	})
	if !limited {
		return nil
	}
	all = map[load]string{}
	for _, s := range w.b.Stats().Services {
		for _, rs := range s.RealServers {
			flows := rs.ActiveFlows + rs.InactiveFlows
			most, least := int64(rs.MaxFlows), int64(rs.MinFlows)
			if least == 0 {
				least = most - most/4
			}
			if most > 0 {
				if rs.Overloaded && flows < least || !rs.Overloaded && flows >= most {
					w.Fatalf("real server %v with %d flows: overloaded %v; its thresholds are %d and %d", rs.Endpoint, flows, rs.Overloaded, least, most)
				}
			}
			if rs.Overloaded {
				all[load{s.Name, rs.Endpoint.AddrPort()}] = map[bool]string{true: "yes", false: "perhaps"}[flows > least]
			}
		}
	}
	return all
}

// peek finds a flow of the balancer.
func (w *world) peek(k key) (lb.Flow, bool) {
	for f := range w.b.Flows(w.m.now) {
		t := f.Tuple
		if f.State != lb.TemplateNone && f.State != lb.TemplateAssured && t.Proto == k.proto && netip.AddrPortFrom(t.Src.Netip(t.Family), t.SrcPort) == k.src &&
			netip.AddrPortFrom(t.Dst.Netip(t.Family), t.DstPort) == k.dst {
			return f.Flow, true
		}
	}
	return lb.Flow{}, false
}

// reload replaces the whole configuration.
func (w *world) reload() {
	w.tick() // once at least for each configuration
	all := services(w.Rand, w.ends)
	if err := w.b.Apply(config(w, all)); err != nil {
		w.Fatal(err)
	}
	w.m.apply(all)
}

// update changes one service.
func (w *world) update() {
	if len(w.m.services) == 0 {
		return
	}
	w.tick()
	i := w.IntN(len(w.m.services))
	all := append([]*service{}, w.m.services...)
	all[i] = all[i].mutate(w.Rand, w.ends)
	if err := w.b.UpdateService(all[i].config(w)); err != nil {
		w.Fatal(err)
	}
	w.m.apply(all)
}

// defend switches drop_packet.
func (w *world) defend() {
	d := lb.Defence{DropPacket: lb.DefenceOff, DropRate: 1 + w.IntN(5)}
	w.m.dropRate = 0
	if w.IntN(2) == 0 {
		d.DropPacket = lb.DefenceAlways
		w.m.dropRate = d.DropRate
	}
	if err := w.b.SetDefence(d); err != nil {
		w.Fatal(err)
	}
}

// end compares what was counted and what is left.
func (w *world) end() error {
	defer w.b.Close()
	if got := w.b.Stats().Total.Traffic; got != w.m.total {
		return fmt.Errorf("counted %+v, want %+v", got, w.m.total)
	}
	left := 0
	for f := range w.b.Flows(w.m.now) {
		if f.State == lb.TemplateNone || f.State == lb.TemplateAssured {
			continue
		}
		left++
		t := f.Tuple
		k := key{netip.AddrPortFrom(t.Src.Netip(t.Family), t.SrcPort), netip.AddrPortFrom(t.Dst.Netip(t.Family), t.DstPort), t.Proto}
		if want := w.m.flows[k]; want == nil || want.ends-tick(w.m.now) != tick(f.Left) {
			return fmt.Errorf("flow %v, %v, %v left; the model has %+v", k, f.State, f.Left, want)
		}
	}
	if left != len(w.m.flows) {
		return fmt.Errorf("%d flows are left, want %d", left, len(w.m.flows))
	}
	for range 3 { // a template has another minute after its last flow
		w.m.advance(w.m.now + 2000*time.Second)
		for range 64 {
			w.b.Tick(w.m.now)
		}
	}
	if n := w.b.Stats().Flows.Now; n != 0 {
		return fmt.Errorf("%d flows outlive all", n)
	}
	return nil
}

// String is the configuration in force.
func (m *model) String() string {
	var t strings.Builder
	for _, s := range m.services {
		t.WriteString(s.String())
	}
	fmt.Fprintf(&t, "path MTUs %v, drop rate %d, %d flows\n", m.mtu, m.dropRate, len(m.flows))
	return t.String()
}
