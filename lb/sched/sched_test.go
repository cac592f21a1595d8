package sched_test

import (
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// A bench sends new flows to one service and names the real servers that got
// them.
type bench struct {
	tb      testing.TB
	b       *lb.Balancer
	build   lb.NewScheduler
	now     time.Duration
	clients uint32
}

func newBench(tb testing.TB, scheduler string, o sched.Options) *bench {
	tb.Helper()
	build, err := sched.New(scheduler, o)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := lb.New(lb.Options{Flows: 100_000})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(b.Close)
	return &bench{tb: tb, b: b, build: build}
}

// apply configures real servers in the order of their names A, B, C …, as
// "A=4 B=3"; the name is the last byte of the address. "A=4<9" has an upper
// threshold of 9.
func (b *bench) apply(servers string) {
	b.tb.Helper()
	s := b.service()
	for f := range strings.FieldsSeq(servers) {
		name, weight, _ := strings.Cut(f, "=")
		weight, upper, _ := strings.Cut(weight, "<")
		b.add(&s, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, name[0]}), 80), number(weight))
		s.RealServers[len(s.RealServers)-1].MaxFlows = number(upper)
	}
	if err := b.b.Apply(lb.Config{Services: []lb.ServiceConfig{s}}); err != nil {
		b.tb.Fatal(err)
	}
}

// number reads digits; none are 0.
func number(digits string) (n int) {
	for _, c := range digits {
		n = n*10 + int(c-'0')
	}
	return n
}

func (b *bench) service() lb.ServiceConfig {
	return lb.ServiceConfig{
		Name:      "web",
		Listens:   []lb.Listen{{VIP: netip.MustParseAddr("203.0.113.10"), FirstPort: 80, Proto: packet.TCP}},
		Scheduler: b.build,
	}
}

func (b *bench) add(s *lb.ServiceConfig, a netip.AddrPort, weight int) {
	b.tb.Helper()
	m, err := modes.New("nat", modes.Options{Listens: s.Listens, RealServer: a})
	if err != nil {
		b.tb.Fatal(err)
	}
	s.RealServers = append(s.RealServers, lb.RealServerConfig{Address: a, Weight: weight, Mode: m})
}

// picks opens n flows; a flow that no real server takes is a dash.
func (b *bench) picks(n int) string {
	b.tb.Helper()
	var got strings.Builder
	for range n {
		if b.clients++; uint16(b.clients) == 20 {
			b.clients++ // FTP's data port, which opens no flow
		}
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(b.clients >> 24), byte(b.clients >> 16)}), uint16(b.clients)).String()
		p := packettest.Parsed(b.tb, packettest.TCP(client, "203.0.113.10:80", packettest.SYN))
		switch _, why := b.b.Queue(0).Handle(p, b.now); why {
		case packet.OK:
			got.WriteByte(p.Bytes()[19])
		default:
			got.WriteByte('-')
		}
	}
	return got.String()
}

// TestPicks: the sequences of wrr come from IPVS's algorithm worked by hand and
// from recordings of the kernel; a space in want is where the next
// configuration comes in.
func TestPicks(t *testing.T) {
	tests := []struct {
		name      string
		scheduler string
		configs   []string
		want      string
	}{
		{name: "rr: the newest real server is first", scheduler: "rr",
			configs: []string{"A=1 B=1 C=1"}, want: "CBACBA"},
		{name: "rr: weights do not matter but 0", scheduler: "rr",
			configs: []string{"A=9 B=0 C=1"}, want: "CACACA"},
		{name: "rr: nobody has a weight", scheduler: "rr",
			configs: []string{"A=0 B=0"}, want: "--"},
		{name: "rr: an unchanged configuration goes on where it stood", scheduler: "rr",
			configs: []string{"A=1 B=1 C=1", "A=1 B=1 C=1"}, want: "CB ACBA"},
		{name: "rr: a new real server goes to the head and has its turn there", scheduler: "rr",
			configs: []string{"A=1 B=1 C=1", "A=1 B=1 C=1 D=1"}, want: "CB ADCBA"},
		{name: "rr: the one after a removed one comes next", scheduler: "rr",
			configs: []string{"A=1 B=1 C=1", "A=1 C=1"}, want: "CB ACAC"},
		{name: "rr: a drained one is passed over", scheduler: "rr",
			configs: []string{"A=1 B=1 C=1", "A=1 B=0 C=1"}, want: "CB ACAC"},
		{name: "rr: the order of the configuration does not move those that are there", scheduler: "rr",
			configs: []string{"A=1 B=1 C=1", "C=1 A=1 B=1"}, want: "CBA CBA"},
		{name: "rr: the first configuration has no real server", scheduler: "rr",
			configs: []string{"", "A=1"}, want: "- AA"},

		{name: "wrr: weights 1 2 4, recorded", scheduler: "wrr",
			configs: []string{"A=1 B=2 C=4"}, want: "CBACCCBCBACCCB"},
		{name: "wrr: weights 4 3 2", scheduler: "wrr",
			configs: []string{"A=4 B=3 C=2"}, want: "CBAABACBACBAABACBA"},
		{name: "wrr: weights 4 3 2 the other way round", scheduler: "wrr",
			configs: []string{"C=2 B=3 A=4"}, want: "ABCAABABCABC"},
		{name: "wrr: weights 100 50", scheduler: "wrr",
			configs: []string{"A=100 B=50"}, want: "BAABAABAA"},
		{name: "wrr: weights 5 1 1", scheduler: "wrr",
			configs: []string{"A=5 B=1 C=1"}, want: "CBAAAAACBA"},
		{name: "wrr: weight 0 gets nothing", scheduler: "wrr",
			configs: []string{"A=2 B=0 C=1"}, want: "CAACAA"},
		{name: "wrr: nobody has a weight", scheduler: "wrr",
			configs: []string{"A=0 B=0"}, want: "--"},
		{name: "wrr: an unchanged configuration goes on where it stood", scheduler: "wrr",
			configs: []string{"A=1 B=2 C=4", "A=1 B=2 C=4"}, want: "CBACC CBCBACCCB"},
		{name: "wrr: a changed weight starts at the head with the same threshold", scheduler: "wrr",
			configs: []string{"A=1 B=2 C=4", "A=1 B=3 C=4"}, want: "CBACC CBCBCBAC"},
		{name: "wrr: so does a changed threshold of flows", scheduler: "wrr",
			configs: []string{"A=1 B=1 C=1", "A=1 B=1<99 C=1"}, want: "CB CBAC"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.scheduler, sched.Options{})
			for i, want := range strings.Fields(tt.want) {
				b.apply(tt.configs[i])
				if got := b.picks(len(want)); got != want {
					t.Errorf("configuration %d: picks %s, want %s", i, got, want)
				}
			}
		})
	}
}

func TestAnotherSchedulerStartsFresh(t *testing.T) {
	b := newBench(t, "rr", sched.Options{})
	b.apply("A=1 B=2 C=4")
	b.picks(2)
	var err error
	if b.build, err = sched.New("wrr", sched.Options{}); err != nil {
		t.Fatal(err)
	}
	b.apply("A=1 B=2 C=4")
	// As ipvsadm -E does: the whole list is there, so it starts at the top.
	if got, want := b.picks(7), "CCCBCBA"; got != want {
		t.Errorf("picks %s, want %s", got, want)
	}
}

func TestNewNamesTheChoice(t *testing.T) {
	for _, tt := range []struct {
		scheduler string
		flags     []string
		want      string
	}{
		{"fair", nil, `scheduler "fair": none of dh, fo, lblc, lblcr, lc, maglev, mh, nq, ovf, rr, sed, sh, twos, wlc, wrr`},
		{"wlc", []string{"flag-1", "sh-port"}, `scheduler wlc: flag "sh-port": none of flag-1, flag-2, flag-3`},
		{"sh", []string{"mh-port"}, `scheduler sh: flag "mh-port": none of flag-1, flag-2, flag-3, sh-fallback, sh-port`},
		{"mh", []string{""}, `scheduler mh: flag "": none of flag-1, flag-2, flag-3, mh-fallback, mh-port`},
	} {
		if _, err := sched.New(tt.scheduler, sched.Options{Flags: tt.flags}); err == nil || err.Error() != tt.want {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}

// TestFlagsByNumber: flag-1 and flag-2 are the flags that have names.
func TestFlagsByNumber(t *testing.T) {
	set := servers(t, 5, one)
	drained := *set[0]
	drained.Weight = 0
	set = append([]*lb.RealServer{&drained}, set[1:]...)
	for name, byName := range map[string][]string{"sh": {"sh-fallback", "sh-port"}, "mh": {"mh-fallback", "mh-port"}} {
		for i := range byName {
			named := build(t, name, sched.Options{Flags: byName[i : i+1]})(set, nil)
			numbered := build(t, name, sched.Options{Flags: []string{"flag-1", "flag-2"}[i : i+1]})(set, nil)
			plain := build(t, name, sched.Options{Flags: []string{"flag-3"}})(set, nil)
			differs := false
			for n := range 1000 {
				tuple := client(n)
				want := named.Pick(&tuple, 0)
				if got := numbered.Pick(&tuple, 0); got != want {
					t.Fatalf("%s: client %d: %v with %s, %v by number", name, n, want, byName[i], got)
				}
				differs = differs || plain.Pick(&tuple, 0) != want
			}
			if !differs {
				t.Errorf("%s does nothing", byName[i])
			}
		}
	}
}

// TestLastWeight: mh gives slots to a drained real server for the weight that
// it had, in whatever scheduler's time, but to none that came without one.
func TestLastWeight(t *testing.T) {
	refused := func(scheduler string, configs ...string) bool {
		b := newBench(t, scheduler, sched.Options{})
		for i, c := range configs {
			if i == len(configs)-1 {
				b.build = build(t, "mh", sched.Options{Flags: []string{"mh-port"}})
			}
			b.apply(c)
		}
		return strings.Contains(b.picks(200), "-")
	}
	for _, tt := range []struct {
		name      string
		scheduler string
		configs   []string
		want      bool
	}{
		{"drained", "mh", []string{"A=1 B=1", "A=1 B=0"}, true},
		{"drained two reloads ago", "mh", []string{"A=1 B=1", "A=1 B=0", "A=2 B=0"}, true},
		{"drained under wlc", "wlc", []string{"A=1 B=1", "A=1 B=0", "A=1 B=0"}, true},
		{"new without a weight", "mh", []string{"A=1", "A=1 B=0"}, false},
		{"away in between", "mh", []string{"A=1 B=1", "A=1", "A=1 B=0"}, false},
	} {
		if got := refused(tt.scheduler, tt.configs...); got != tt.want {
			t.Errorf("%s: clients are refused: %v", tt.name, got)
		}
	}
}

// TestDrainedForAMoment: in rr's list a drained real server keeps the place of
// the last turn.
func TestDrainedForAMoment(t *testing.T) {
	b := newBench(t, "rr", sched.Options{})
	b.apply("A=1 B=1 C=1")
	b.picks(2)
	b.apply("A=1 B=0 C=1")
	b.apply("A=1 B=1 C=1")
	if got, want := b.picks(4), "ACBA"; got != want {
		t.Errorf("picks %s, want %s", got, want)
	}
}

// TestConcurrentPicks: several queues share the turns without losing one.
func TestConcurrentPicks(t *testing.T) {
	const workers, each = 4, 7 * 1000
	set := []*lb.RealServer{{Weight: 4}, {Weight: 2}, {Weight: 1}}
	for _, tt := range []struct {
		scheduler string
		want      [3]int64
	}{
		{"rr", [3]int64{workers*each/3 + 1, workers * each / 3, workers * each / 3}},
		{"wrr", [3]int64{workers * each / 7 * 4, workers * each / 7 * 2, workers * each / 7}},
	} {
		t.Run(tt.scheduler, func(t *testing.T) {
			build, err := sched.New(tt.scheduler, sched.Options{})
			if err != nil {
				t.Fatal(err)
			}
			s := build(set, nil)
			var counts [3]atomic.Int64
			var wg sync.WaitGroup
			for range workers {
				wg.Go(func() {
					for range each {
						rs := s.Pick(&packet.Tuple{}, 0)
						for i := range set {
							if set[i] == rs {
								counts[i].Add(1)
							}
						}
					}
				})
			}
			wg.Wait()
			for i := range counts {
				if got := counts[i].Load(); got != tt.want[i] {
					t.Errorf("weight %d: %d picks, want %d", set[i].Weight, got, tt.want[i])
				}
			}
		})
	}
}
