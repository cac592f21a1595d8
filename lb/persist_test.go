package lb_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// A scene is a director of persistent services whose clients say one after
// the other which real server they got.
type scene struct {
	t   *testing.T
	b   *lb.Balancer
	c   lb.Config
	now time.Duration
}

// newScene has one service "web" over three real servers of mode dr, rr.
func newScene(t *testing.T, p lb.Persistence, listens ...string) *scene {
	t.Helper()
	b, err := lb.New(lb.Options{Flows: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	s := &scene{t: t, b: b}
	s.add("web", p, listens...)
	s.apply()
	return s
}

func (s *scene) add(name string, p lb.Persistence, listens ...string) *lb.ServiceConfig {
	s.t.Helper()
	build, err := sched.New("rr", sched.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	c := lb.ServiceConfig{Name: name, Scheduler: build, Persistence: p}
	for _, l := range listens {
		addr, proto, _ := strings.Cut(l, "/")
		a := netip.MustParseAddrPort(addr)
		c.Listens = append(c.Listens, lb.Listen{VIP: a.Addr(), FirstPort: a.Port(), Proto: map[string]uint8{"tcp": packet.TCP, "udp": packet.UDP}[proto]})
	}
	for _, rip := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8:b::1", "2001:db8:b::2", "2001:db8:b::3"} {
		s.server(&c, "dr", netip.AddrPortFrom(netip.MustParseAddr(rip), 0))
	}
	s.c.Services = append(s.c.Services, c)
	return &s.c.Services[len(s.c.Services)-1]
}

func (s *scene) server(c *lb.ServiceConfig, mode string, a netip.AddrPort) {
	s.t.Helper()
	if !hasFamily(c.Listens, a.Addr()) {
		return
	}
	m, err := modes.New(mode, modes.Options{Listens: c.Listens, RealServer: a})
	if err != nil {
		s.t.Fatal(err)
	}
	c.RealServers = append(c.RealServers, lb.RealServerConfig{Address: a, Weight: 1, Mode: m})
}

func hasFamily(listens []lb.Listen, a netip.Addr) bool {
	for _, l := range listens {
		if l.VIP.Is4() == a.Is4() {
			return true
		}
	}
	return false
}

func (s *scene) apply() {
	s.t.Helper()
	if err := s.b.Apply(s.c); err != nil {
		s.t.Fatal(err)
	}
}

// send handles a packet and returns the last digit of the real server's
// address, or what became of the packet.
func (s *scene) send(raw []byte) string {
	s.t.Helper()
	p := packettest.Parsed(s.t, raw)
	v, why := s.b.Queue(0).Handle(p, s.now)
	if v != packet.Send || why != packet.OK {
		return fmt.Sprint(v, " ", why)
	}
	a, family := p.Destination()
	text := a.Netip(family).String()
	return text[len(text)-1:]
}

// syn opens a connection from a client, such as "198.51.100.7:4000", to a VIP's
// port.
func (s *scene) syn(src, dst string) string {
	s.t.Helper()
	return s.send(packettest.TCP(src, dst, packettest.SYN))
}

// wait lets time pass and what is due end.
func (s *scene) wait(d time.Duration) {
	for end := s.now + d; s.now < end; {
		s.now = min(end, s.now+time.Second/16)
		s.b.Tick(s.now)
	}
}

func (s *scene) want(what, got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s went to %s, want %s", what, got, want)
	}
}

const hundred = 100 * time.Second

// everyAddress tells every client from every other.
func everyAddress(d time.Duration) lb.Persistence {
	return lb.Persistence{Timeout: d, PrefixV4: 32, PrefixV6: 128}
}

func TestPersistenceBinds(t *testing.T) {
	type step struct{ src, dst, want string }
	const web, tls = "203.0.113.10:80", "203.0.113.10:443"
	tests := []struct {
		name    string
		p       lb.Persistence
		listens string
		steps   []step
	}{
		{"a client stays and others take turns", everyAddress(hundred), web + "/tcp", []step{
			{"198.51.100.7:1000", web, "3"}, {"198.51.100.7:1001", web, "3"},
			{"198.51.100.8:1000", web, "2"}, {"198.51.100.9:1000", web, "1"}, {"198.51.100.7:1002", web, "3"},
		}},
		{"without persistence the client's flows take turns", lb.Persistence{}, web + "/tcp", []step{
			{"198.51.100.7:1000", web, "3"}, {"198.51.100.7:1001", web, "2"},
		}},
		{"a network is one client", lb.Persistence{Timeout: hundred, PrefixV4: 28}, web + "/tcp", []step{
			{"198.51.100.7:1000", web, "3"}, {"198.51.100.8:1000", web, "3"}, {"198.51.100.16:1000", web, "2"},
			{"198.51.101.7:1000", web, "1"}, {"198.51.100.15:1000", web, "3"},
		}},
		{"a prefix that ends within a byte of IPv6", lb.Persistence{Timeout: hundred, PrefixV6: 45}, "[2001:db8:a::10]:80/tcp", []step{
			{"[2001:db8:0::7]:1000", "[2001:db8:a::10]:80", "3"}, {"[2001:db8:7:ffff::8]:1000", "[2001:db8:a::10]:80", "3"},
			{"[2001:db8:8::7]:1000", "[2001:db8:a::10]:80", "2"},
		}},
		{"prefix 0: all are one client", lb.Persistence{Timeout: hundred}, web + "/tcp", []step{
			{"198.51.100.7:1000", web, "3"}, {"192.0.2.99:1000", web, "3"},
		}},
		{"the listens of a service share it", everyAddress(hundred), web + "/tcp " + tls + "/tcp 203.0.113.11:80/tcp", []step{
			{"198.51.100.7:1000", web, "3"}, {"198.51.100.7:1001", tls, "3"}, {"198.51.100.7:1002", "203.0.113.11:80", "3"},
			{"198.51.100.8:1000", tls, "2"}, {"198.51.100.8:1001", web, "2"},
		}},
		{"every port of the VIP shares it", everyAddress(hundred), "203.0.113.10:0/tcp", []step{
			{"198.51.100.7:1000", web, "3"}, {"198.51.100.7:1001", tls, "3"}, {"198.51.100.7:1002", "203.0.113.10:22", "3"},
			{"198.51.100.8:1000", web, "2"}, {"198.51.100.8:1001", tls, "2"},
		}},
		{"FTP takes the ports of passive data connections, of strangers too", everyAddress(hundred), "203.0.113.10:21/tcp", []step{
			{"198.51.100.7:1000", "203.0.113.10:21", "3"}, {"198.51.100.7:1001", "203.0.113.10:30000", "3"},
			{"198.51.100.8:1000", "203.0.113.10:30000", "2"}, {"198.51.100.8:1001", "203.0.113.10:20", "2"},
			{"198.51.100.8:1002", "203.0.113.10:1023", "pass no_service"},
		}},
		{"FTP without persistence takes its port only", lb.Persistence{}, "203.0.113.10:21/tcp", []step{
			{"198.51.100.7:1000", "203.0.113.10:21", "3"}, {"198.51.100.7:1001", "203.0.113.10:30000", "pass no_service"},
		}},
		{"FTP stands before the service for all ports, even where it takes its port only", lb.Persistence{}, "203.0.113.10:21/tcp 203.0.113.10:0/tcp", []step{
			{"198.51.100.7:1000", "203.0.113.10:21", "3"}, {"198.51.100.7:1001", "203.0.113.10:1023", "2"},
			{"198.51.100.7:1002", "203.0.113.10:30000", "pass no_service"}, {"198.51.100.7:1003", "203.0.113.10:20", "pass no_service"},
		}},
		{"what comes from FTP's data port is no request", everyAddress(hundred), web + "/tcp", []step{
			{"198.51.100.7:20", web, "pass no_service"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, tt.p, strings.Fields(tt.listens)...)
			for i, step := range tt.steps {
				s.want(fmt.Sprintf("step %d: %s to %s", i, step.src, step.dst), s.syn(step.src, step.dst), step.want)
			}
		})
	}
}

// TestACallOfTheRealServersIsForwardedOnce has a real server of SIP call a
// client that is not known: the client sees the VIP, and it counts as a reply.
func TestACallOfTheRealServersIsForwardedOnce(t *testing.T) {
	const sip, rs, client = vip4 + ":5060", rip4 + ":5060", cip4 + ":5060"
	s := newScene(t, lb.Persistence{}, web4+"/tcp")
	c := s.add("sip", lb.Persistence{Timeout: hundred, PrefixV4: 32, Engine: lb.SIPEngine}, sip+"/udp")
	c.RealServers = nil
	s.server(c, "nat", netip.MustParseAddrPort(rs))
	s.apply()
	invite := packettest.Data("INVITE sip:a@example.net SIP/2.0\r\nCall-ID: x@y\r\n\r\n")
	got := handle(t, s.b, packettest.UDP(rs, client, invite), 0)
	if got.verdict != packet.Send || got.reason != packet.OK {
		t.Fatalf("%v, %v", got.verdict, got.reason)
	}
	diff(t, "packet", packettest.UDP(sip, client, invite), got.bytes)
	if n := s.b.Stats().Total.Traffic; n.Flows != 1 || n.RequestPackets != 0 || n.ReplyPackets != 1 {
		t.Errorf("counted %+v", n)
	}
}

// TestTheLastCallerHasTheClient has a real server of SIP call from the VIP a
// client whose port has a flow with another one: what the client answers goes to
// the caller, and other callers are not disturbed.
func TestTheLastCallerHasTheClient(t *testing.T) {
	const sip, one, two, client, other = vip4 + ":5060", rip4 + ":5060", "10.0.0.4:5060", cip4 + ":5060", "198.51.100.8:5060"
	s := newScene(t, lb.Persistence{}, web4+"/tcp")
	c := s.add("sip", lb.Persistence{Timeout: hundred, PrefixV4: 32, Engine: lb.SIPEngine}, sip+"/udp")
	c.RealServers = nil
	s.server(c, "nat", netip.MustParseAddrPort(one))
	s.server(c, "nat", netip.MustParseAddrPort(two))
	s.apply()
	call := func(id string) packettest.Option {
		return packettest.Data("INVITE sip:a@example.net SIP/2.0\r\nCall-ID: " + id + "\r\n\r\n")
	}
	first := s.send(packettest.UDP(client, sip, call("a")))
	s.want("another client's call", s.send(packettest.UDP(other, sip, call("b"))), map[string]string{"3": "4", "4": "3"}[first])
	caller, was := two, one
	if first == "4" {
		caller, was = one, two
	}
	got := handle(t, s.b, packettest.UDP(caller, client, call("c")), 0)
	diff(t, "call", packettest.UDP(sip, client, call("c")), got.bytes)
	s.want("the answer", s.send(packettest.UDP(client, sip, call("c"))), caller[len("10.0.0."):len("10.0.0.")+1])
	s.want("the other client", s.send(packettest.UDP(other, sip, call("b"))), caller[len("10.0.0."):len("10.0.0.")+1])
	got = handle(t, s.b, packettest.UDP(caller, client, packettest.Data("no call")), 0)
	diff(t, "what follows", packettest.UDP(sip, client, packettest.Data("no call")), got.bytes)
	got = handle(t, s.b, packettest.UDP(was, client, call("a")), 0)
	diff(t, "the call that was there before", packettest.UDP(sip, client, call("a")), got.bytes)
	if n := s.b.Stats().Flows.Now; n != 2+3 {
		t.Errorf("%d flows and templates", n)
	}
}

// TestAKeptPortOutlivesTheRealServer removes the real server of a flow to a
// port that its persistent service does not name: packets of both directions go
// on as before.
func TestAKeptPortOutlivesTheRealServer(t *testing.T) {
	s := newScene(t, lb.Persistence{}, "203.0.113.99:80/tcp")
	c := s.add("all", everyAddress(hundred), vip4+":0/udp")
	c.RealServers = nil
	s.server(c, "nat", netip.MustParseAddrPort(rip4+":8080"))
	s.server(c, "nat", netip.MustParseAddrPort("10.0.0.9:8080"))
	c.RealServers[1].Weight = 0
	s.apply()
	for _, when := range []string{"in its service", "removed"} {
		got := handle(t, s.b, packettest.UDP(client4, vip4+":5000"), 0)
		diff(t, when+": request", packettest.UDP(client4, rip4+":5000"), got.bytes)
		got = handle(t, s.b, packettest.UDP(rip4+":5000", client4), 0)
		diff(t, when+": reply", packettest.UDP(vip4+":5000", client4), got.bytes)
		c.RealServers = c.RealServers[1:]
		s.apply()
	}
}
