package lb

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// persistentConfig is webConfig for TCP and with persistence.
func persistentConfig(servers string, timeout time.Duration) Config {
	c := webConfig(servers)
	s := &c.Services[0]
	s.Listens = append(s.Listens, Listen{VIP: s.Listens[0].VIP, FirstPort: 80, Proto: packet.TCP})
	s.Persistence = Persistence{Timeout: timeout, PrefixV4: 32, PrefixV6: 128}
	return c
}

// tcp sends a segment of client i.
func (b *Balancer) tcp(t *testing.T, queue, i int, port uint16, now time.Duration, o ...packettest.Option) (packet.Verdict, packet.Reason) {
	t.Helper()
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), port).String()
	return b.Queue(queue).Handle(packettest.Parsed(t, packettest.TCP(src, "203.0.113.10:80", o...)), now)
}

// checkTemplates compares what templates and real servers count with what the
// table has. Nobody may use it meanwhile.
func (b *Balancer) checkTemplates(t *testing.T) {
	t.Helper()
	table := b.table
	controlled, templates, flows := map[uint32]uint32{}, map[*load]int64{}, map[*load]int64{}
	for chunk := range table.numChunks() {
		table.eachInChunk(chunk, func(_ *shard, n uint32, e *entry) {
			l := table.servers.get(e.server).load
			if e.state.isTemplate() {
				templates[l]++
				return
			}
			flows[l]++
			if e.flags&flagControlled != 0 {
				controlled[table.links[n]]++
			}
		})
	}
	for chunk := range table.numChunks() {
		table.eachInChunk(chunk, func(_ *shard, n uint32, e *entry) {
			if e.state.isTemplate() {
				if e.local != controlled[n] {
					t.Errorf("template %d counts %d flows and has %d", n, e.local, controlled[n])
				}
				delete(controlled, n)
			}
		})
	}
	if len(controlled) > 0 {
		t.Errorf("flows of templates that are no more: %v", controlled)
	}
	for _, a := range b.accounts {
		for _, rs := range a.servers {
			if rs.flows.Load() != flows[rs.load] || rs.Templates() != templates[rs.load] {
				t.Errorf("%v counts %d flows and %d templates, and has %d and %d", rs.Endpoint.AddrPort(),
					rs.flows.Load(), rs.Templates(), flows[rs.load], templates[rs.load])
			}
		}
	}
}

// TestTemplatesInAFullTable: a flood of clients that do not exist gives up its
// own templates, and never those of clients that had a connection.
func TestTemplatesInAFullTable(t *testing.T) {
	const limit, real, flood = 300, 20, 2000
	b := newTestBalancer(t, Options{Flows: limit})
	b.mustApply(t, persistentConfig("A=1* B=0*", time.Hour))
	for i := range real {
		b.tcp(t, 0, i, 1000, 0, packettest.SYN)
		b.tcp(t, 0, i, 1000, 0)
		b.tcp(t, 0, i, 1000, 0, packettest.RST) // the flow may go, the template stays
	}
	b.mustApply(t, persistentConfig("A=0* B=1*", time.Hour))
	for i := range flood {
		now := time.Second + time.Duration(i)*time.Millisecond
		if v, why := b.tcp(t, 0, 1000+i, 1000, now, packettest.SYN); v != packet.Send {
			t.Fatalf("client %d of the flood: %v %v", i, v, why)
		}
		if n := b.table.Len(); n > limit {
			t.Fatalf("%d entries", n)
		}
	}
	b.checkTemplates(t)
	assured := 0
	for f := range b.Flows(4 * time.Second) {
		if f.State == TemplateAssured && f.Server.Endpoint.Addr[3] == 'A' {
			assured++
		}
	}
	if assured != real {
		t.Errorf("%d of %d clients are remembered", assured, real)
	}
}

// TestTemplateWithFlowsIsNotGivenUp: where each entry is an established flow or
// the template of one, a new client is refused and leaves nothing behind.
func TestTemplateWithFlowsIsNotGivenUp(t *testing.T) {
	const limit = 100
	b := newTestBalancer(t, Options{Flows: limit})
	b.mustApply(t, persistentConfig("A=1*", time.Hour))
	for i := range limit / 2 {
		b.tcp(t, 0, i, 1000, 0, packettest.SYN)
		b.tcp(t, 0, i, 1000, 0)
	}
	for i := range 50 {
		if v, why := b.tcp(t, 0, 1000+i, 1000, time.Minute, packettest.SYN); v != packet.Drop || why != packet.TableFull {
			t.Fatalf("a new client: %v %v", v, why)
		}
	}
	// One template goes with its last flow; a client with one has room for its
	// flow only.
	if v, why := b.tcp(t, 0, 3, 2000, time.Minute, packettest.SYN); v != packet.Drop || why != packet.TableFull {
		t.Fatalf("a known client's second flow: %v %v", v, why)
	}
	b.checkTemplates(t)
	if n := b.table.Len(); n != limit {
		t.Errorf("%d entries, want %d", n, limit)
	}
}

// TestPersistenceUnderTraffic has queues open flows of the same few clients
// while the configuration changes and entries end. At the end every count must
// be that of the table, and then nothing may be left of anything.
func TestPersistenceUnderTraffic(t *testing.T) {
	const queues = 4
	b := newTestBalancer(t, Options{Queues: queues, Flows: 300})
	short, long := 2*time.Second, time.Hour
	quiesced := persistentConfig("A=0 B=1*", long)
	quiesced.Services[0].Policy.ExpireQuiescedTemplates = true
	limited := persistentConfig("A=1 B=1*", short)
	limited.Services[0].RealServers[0].MaxFlows = 3
	configs := []Config{
		persistentConfig("A=1 B=1", short), quiesced, limited, persistentConfig("A=1* C=1", long), webConfig("A=1 B=1*"), {},
	}
	b.mustApply(t, configs[0])
	done := make(chan struct{})
	var control sync.WaitGroup
	control.Go(func() {
		rnd := rand.New(rand.NewPCG(1, 1))
		for {
			select {
			case <-done:
				return
			default:
				b.mustApply(t, configs[rnd.IntN(len(configs))])
				for f := range b.Flows(0) {
					_ = f.Destination()
				}
			}
		}
	})
	var traffic sync.WaitGroup
	for q := range queues {
		traffic.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(q), 2))
			flags := []packettest.Option{packettest.SYN, packettest.SYN, packettest.Flags(packet.ACK), packettest.RST, packettest.FIN}
			for i := range 5000 {
				now := time.Duration(i) * 100 * time.Millisecond
				b.tcp(t, q, rnd.IntN(20), uint16(1000+rnd.IntN(20)), now, flags[rnd.IntN(len(flags))])
				if i%16 == 0 && q == 0 {
					b.table.Sweep(now, 100)
				}
			}
		})
	}
	traffic.Wait()
	close(done)
	control.Wait()
	b.checkTemplates(t)
	b.table.sweepAll(1 << 30)
	b.checkTemplates(t)
	b.table.sweepAll(1 << 31) // the templates that had flows until now
	b.mustApply(t, Config{})
	b.mustApply(t, Config{})
	if len(b.accounts) != 0 || b.table.Len() != 0 {
		t.Errorf("%d services are remembered, %d entries are left", len(b.accounts), b.table.Len())
	}
}

// TestTemplateOfBusyFlowsIsNotGivenUp is about templates that nobody assured:
// exchanges over UDP whose answers do not cross the director.
func TestTemplateOfBusyFlowsIsNotGivenUp(t *testing.T) {
	const limit = 100
	b := newTestBalancer(t, Options{Flows: limit})
	b.mustApply(t, persistentConfig("A=1*", time.Hour))
	udp := func(i int, now time.Duration) packet.Reason {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 1000).String()
		_, why := b.Queue(0).Handle(packettest.Parsed(t, packettest.UDP(src, "203.0.113.10:80")), now)
		return why
	}
	for i := range limit / 2 {
		udp(i, 0)
	}
	for i := range 50 {
		if why := udp(1000+i, time.Second); why != packet.TableFull {
			t.Fatalf("while all flows are busy, a new client: %v", why)
		}
	}
	b.checkTemplates(t)
	b.table.sweepAll(tickOf(time.Minute))
	for i := range 50 {
		if why := udp(1000+i, time.Minute); why != packet.OK {
			t.Fatalf("once the flows are idle, a new client: %v", why)
		}
	}
	b.checkTemplates(t)
}

// TestTwoQueuesChooseForAClient: both have found no template; the first choice
// holds.
func TestTwoQueuesChooseForAClient(t *testing.T) {
	b := newTestBalancer(t, Options{Flows: 100})
	b.mustApply(t, persistentConfig("A=1* B=1*", time.Hour))
	svc := b.byName["web"]
	key := svc.persistent.key(&packet.Addr{1}, packet.IPv4, nil)
	var chosen []choice
	for _, rs := range svc.set {
		rs.acquire()
		c, why := b.table.addTemplate(svc, &key, key.Hash(b.table.seed), rs, 0)
		if why != packet.OK || !c.server.Same(svc.set[0]) {
			t.Errorf("%v; went to %v", why, c.server.Endpoint.AddrPort())
		}
		chosen = append(chosen, c)
	}
	if n := b.table.Len(); n != 1 {
		t.Errorf("%d entries, want one template", n)
	}
	if first, second := svc.set[0].flows.Load(), svc.set[1].flows.Load(); first != 2 || second != 0 {
		t.Errorf("%d and %d flows count, want both with the first choice", first, second)
	}
	for _, c := range chosen {
		b.table.unchoose(c)
	}
	b.checkTemplates(t)
}

// TestDropEntryAndTemplates: what a flood has left is dropped, but neither
// who has a flow nor who had a connection (ip_vs_random_dropentry).
func TestDropEntryAndTemplates(t *testing.T) {
	b := newTestBalancer(t, Options{Flows: 100})
	b.mustApply(t, persistentConfig("A=1*", time.Hour))
	b.tcp(t, 0, 1, 1000, 0, packettest.SYN)
	b.tcp(t, 0, 2, 1000, 0, packettest.SYN)
	b.tcp(t, 0, 2, 1000, 0)
	b.tcp(t, 0, 2, 1000, 0, packettest.RST)
	b.table.sweepAll(tickOf(70 * time.Second)) // both flows have ended
	b.tcp(t, 0, 3, 1000, 70*time.Second, packettest.SYN)
	b.tcp(t, 0, 3, 1000, 70*time.Second)
	for chunk := range b.table.numChunks() {
		b.table.dropFrom(chunk, tickOf(71*time.Second), new([todropPackets + 1]int8))
	}
	var left []byte
	for f := range b.Flows(71 * time.Second) {
		if f.State.isTemplate() {
			left = append(left, f.Tuple.Src[3])
		}
	}
	slices.Sort(left)
	if !slices.Equal(left, []byte{2, 3}) {
		t.Errorf("the templates of clients %v are left, want those of 2 and 3", left)
	}
	b.checkTemplates(t)
}
