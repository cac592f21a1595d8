package sched_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// A recording is a file of vectors: what the kernel's IPVS did, step by step.
// Only what matters to the choice of the real server is read.
type recording struct {
	FlowSets map[string][]recordedFlow `json:"flow_sets"`
	Vectors  []vector
}

type vector struct {
	Name   string
	Sysctl []string
	Rules  []string
	Steps  []step
}

type step struct {
	Op      string
	At      int64  `json:"t_ms"`
	Cmd     string // of ipvsadm
	Proto   string // of flows, with the three below
	Flags   string
	FlowSet string `json:"flow_set"`
	Picks   []int
	Shows   map[string]string // of show
}

// A recordedFlow is source, source port, destination, destination port.
type recordedFlow [4]string

func (f recordedFlow) src() string { return join(f[0], f[1]) }
func (f recordedFlow) dst() string { return join(f[2], f[3]) }

func join(addr, port string) string {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		panic(err)
	}
	return netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(n)).String()
}

func readRecording(tb testing.TB, name string) recording {
	tb.Helper()
	f, err := os.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		tb.Fatal(err)
	}
	var r recording
	if err := json.NewDecoder(z).Decode(&r); err != nil {
		tb.Fatal(err)
	}
	return r
}

// The picks that are no real server's number.
const (
	silence  = 0
	refused  = -1 // a port unreachable to the client
	answered = -2 // a reset to the client
)

// TestVectors plays what was recorded of IPVS's schedulers to a Balancer and
// compares each choice, and the flows that each real server is said to have.
func TestVectors(t *testing.T) {
	r := readRecording(t, "testdata/a-scheduling.json.gz")
	ran, picks := 0, 0
	skipped := map[string]int{}
	for i := range r.Vectors {
		v := &r.Vectors[i]
		t.Run(v.Name, func(t *testing.T) {
			if why := v.cannotRun(); why != "" {
				skipped[why]++
				t.Skip(why)
			}
			ran++
			synctest.Test(t, func(t *testing.T) { picks += play(t, &r, v) })
		})
	}
	t.Logf("%d vectors with %d picks played, skipped: %v", ran, picks, skipped)
	if picks < 30_000 {
		t.Errorf("only %d picks were compared", picks)
	}
}

// cannotRun is what a vector needs that does not exist here, or "".
func (v *vector) cannotRun() string {
	if len(v.Sysctl) > 0 {
		return "a sysctl"
	}
	lines := slices.Clone(v.Rules)
	for _, s := range v.Steps {
		switch s.Op {
		case "ipvsadm":
			lines = append(lines, s.Cmd)
		case "flows", "show", "wait":
		default:
			return "the step " + s.Op
		}
	}
	for _, l := range lines {
		for f := range strings.FieldsSeq(l) {
			switch f {
			case "-o":
				return "one-packet scheduling"
			case "-p":
				return "persistence"
			}
		}
	}
	return ""
}

// A replay is a Balancer that is told what ipvsadm was.
type replay struct {
	t        *testing.T
	b        *lb.Balancer
	services []*replayService // in the order in which they were added
	marked   []lb.Listen      // what the destinations of a firewall mark are
}

type replayService struct {
	name      string // as ipvsadm has it: the option and its value
	listens   []lb.Listen
	scheduler string
	flags     []string
	servers   []replayServer
}

type replayServer struct {
	name   string
	addr   netip.AddrPort
	weight int
	max    int // thresholds
	min    int
}

// play plays v in a synctest bubble and returns how many picks it compared.
func play(t *testing.T, r *recording, v *vector) (picks int) {
	b, err := lb.New(lb.Options{Flows: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	start := time.Now()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx, func() time.Duration { return time.Since(start) }) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	p := &replay{t: t, b: b, marked: destinations(r, v)}
	for _, rule := range v.Rules {
		p.ipvsadm(rule)
	}
	for i, s := range v.Steps {
		time.Sleep(time.Duration(s.At)*time.Millisecond - time.Since(start))
		switch s.Op {
		case "ipvsadm":
			p.ipvsadm(s.Cmd)
		case "flows":
			flows := r.FlowSets[s.FlowSet]
			got := make([]int, len(flows))
			for j, f := range flows {
				got[j] = p.pick(f, &s, time.Since(start))
			}
			picks += len(got)
			if diff := cmp.Diff(s.Picks, got); diff != "" {
				t.Errorf("step %d: picks (-want +got):\n%s", i, diff)
			}
		case "show":
			if list, ok := s.Shows["list"]; ok {
				if diff := cmp.Diff(listed(list), p.listed()); diff != "" {
					t.Errorf("step %d: active and inactive flows (-want +got):\n%s", i, diff)
				}
			}
		}
	}
	return picks
}

// destinations are the listens that stand for a firewall mark on all that
// the vector's flows are sent to.
func destinations(r *recording, v *vector) []lb.Listen {
	var all []lb.Listen
	for _, s := range v.Steps {
		for _, f := range r.FlowSets[s.FlowSet] {
			dst := netip.MustParseAddrPort(f.dst())
			l := lb.Listen{VIP: dst.Addr(), FirstPort: dst.Port(), Proto: protoOf(s.Proto)}
			if !slices.Contains(all, l) {
				all = append(all, l)
			}
		}
	}
	return all
}

func protoOf(name string) uint8 {
	if name == "udp" {
		return packet.UDP
	}
	return packet.TCP
}

// ipvsadm does what the arguments say.
func (p *replay) ipvsadm(args string) {
	p.t.Helper()
	fields := strings.Fields(args)
	command := fields[0]
	option := map[string]string{}
	for i := 1; i < len(fields); i++ {
		if i+1 < len(fields) && !strings.HasPrefix(fields[i+1], "-") {
			option[fields[i]] = fields[i+1]
			i++
			continue
		}
		option[fields[i]] = ""
	}
	s := p.service(option)
	switch command {
	case "-A", "-E":
		s.scheduler, s.flags = option["-s"], nil
		if b := option["-b"]; b != "" {
			s.flags = strings.Split(b, ",")
		}
	case "-a":
		s.servers = append(s.servers, s.server(p.t, option))
	case "-e":
		s.servers[s.find(option["-r"])] = s.server(p.t, option)
	case "-d":
		at := s.find(option["-r"])
		s.servers = slices.Delete(s.servers, at, at+1)
	default:
		p.t.Fatalf("ipvsadm %s", args)
	}
	p.apply()
}

// service finds the service that the options name, or adds it.
func (p *replay) service(option map[string]string) *replayService {
	for _, o := range []string{"-t", "-u", "-f"} {
		value, ok := option[o]
		if !ok {
			continue
		}
		name := o + " " + value
		for _, s := range p.services {
			if s.name == name {
				return s
			}
		}
		s := &replayService{name: name, listens: p.marked}
		if o != "-f" {
			vip := netip.MustParseAddrPort(value)
			s.listens = []lb.Listen{{VIP: vip.Addr(), FirstPort: vip.Port(), Proto: map[string]uint8{"-t": packet.TCP, "-u": packet.UDP}[o]}}
		}
		p.services = append(p.services, s)
		return s
	}
	p.t.Fatalf("no service in %v", option)
	return nil
}

func (s *replayService) find(name string) int {
	return slices.IndexFunc(s.servers, func(rs replayServer) bool { return rs.name == name })
}

// server reads -r, -w, -x and -y. The kernel gives a real server of direct routing
// the port of its service; with a firewall mark it has none.
func (s *replayService) server(t *testing.T, option map[string]string) replayServer {
	rs := replayServer{name: option["-r"], addr: netip.MustParseAddrPort(option["-r"]), weight: 1}
	if rs.addr.Port() != 0 {
		rs.addr = netip.AddrPortFrom(rs.addr.Addr(), s.listens[0].FirstPort)
	}
	for o, to := range map[string]*int{"-w": &rs.weight, "-x": &rs.max, "-y": &rs.min} {
		if v, ok := option[o]; ok {
			var err error
			if *to, err = strconv.Atoi(v); err != nil {
				t.Fatal(err)
			}
		}
	}
	return rs
}

func (p *replay) apply() {
	p.t.Helper()
	var c lb.Config
	for _, s := range p.services {
		build, err := sched.New(s.scheduler, sched.Options{Flags: s.flags})
		if err != nil {
			p.t.Fatal(err)
		}
		sc := lb.ServiceConfig{Name: s.name, Listens: s.listens, Scheduler: build, OnNoServer: lb.AnswerDrop}
		for _, rs := range s.servers {
			m, err := modes.New("dr", modes.Options{Listens: s.listens, RealServer: rs.addr})
			if err != nil {
				p.t.Fatal(err)
			}
			sc.RealServers = append(sc.RealServers, lb.RealServerConfig{
				Address: rs.addr, Weight: rs.weight, MaxFlows: rs.max, MinFlows: rs.min, Mode: m,
			})
		}
		c.Services = append(c.Services, sc)
	}
	if err := p.b.Apply(c); err != nil {
		p.t.Fatal(err)
	}
}

var tcpFlags = map[rune]uint8{'F': packet.FIN, 'S': packet.SYN, 'R': packet.RST, 'A': packet.ACK}

// pick sends one packet of f and says where it went.
func (p *replay) pick(f recordedFlow, s *step, now time.Duration) int {
	p.t.Helper()
	var in []byte
	if s.Proto == "udp" {
		in = packettest.UDP(f.src(), f.dst(), packettest.Data("flow"))
	} else {
		var flags uint8
		for _, c := range s.Flags {
			flags |= tcpFlags[c]
		}
		in = packettest.TCP(f.src(), f.dst(), packettest.Flags(flags))
	}
	pkt := packettest.Parsed(p.t, in)
	switch _, why := p.b.Queue(0).Handle(pkt, now); why {
	case packet.OK:
		return serverNumber(pkt.NextHop.AddrPort().Addr())
	case packet.NoRealServer:
		return refused
	case packet.NotSYN: // the VIP's own TCP answers, but no reset
		if strings.Contains(s.Flags, "R") {
			return silence
		}
		return answered
	default:
		p.t.Fatalf("%v: %v", f, why)
	}
	return silence
}

// serverNumber is N of a real server, 10.2.0.1N or 2001:db8:2::1N.
func serverNumber(a netip.Addr) int {
	b := a.AsSlice()
	n := int(b[len(b)-1])
	if a.Is4() {
		return n - 10
	}
	return n - 0x10
}

// listed reads the flows of each real server, active and inactive, in what
// ipvsadm -Ln printed.
func listed(text string) map[string][2]int64 {
	all := map[string][2]int64{}
	service := ""
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		switch {
		case i < 3: // version and headings
		case f[0] == "->":
			var n [2]int64
			for i := range n {
				n[i], _ = strconv.ParseInt(f[4+i], 10, 64)
			}
			all[service+" "+f[1]] = n
		default:
			service = map[string]string{"TCP": "-t", "UDP": "-u", "FWM": "-f"}[f[0]] + " " + f[1]
		}
	}
	return all
}

func (p *replay) listed() map[string][2]int64 {
	all := map[string][2]int64{}
	for _, s := range p.b.Stats().Services {
		for _, rs := range s.RealServers {
			if !rs.Removed {
				all[fmt.Sprintf("%s %v", s.Name, rs.Endpoint.AddrPort())] = [2]int64{rs.ActiveFlows, rs.InactiveFlows}
			}
		}
	}
	return all
}
