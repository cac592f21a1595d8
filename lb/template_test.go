package lb_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

const (
	webVIP   = "203.0.113.10:80"
	ftpVIP   = "203.0.113.10:21"
	sevenOne = "198.51.100.7:1001"
	sevenTwo = "198.51.100.7:1002"
	eightOne = "198.51.100.8:1001"
)

// templates are those that a listing shows, as client, service, real server,
// state, seconds left and flows.
func (s *scene) templates() (all []string) {
	for f := range s.b.Flows(s.now) {
		if f.State != lb.TemplateNone && f.State != lb.TemplateAssured {
			continue
		}
		t := &f.Tuple
		all = append(all, fmt.Sprintf("%v > %d/%v > %v %v %.0fs %d", t.Src.Netip(t.Family), t.Proto,
			netip.AddrPortFrom(t.Dst.Netip(t.Family), t.DstPort), f.Destination().AddrPort(), f.State, f.Left.Seconds(), f.Flows))
	}
	slices.Sort(all)
	return all
}

func (s *scene) wantTemplates(when string, want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.templates()); diff != "" {
		s.t.Errorf("%s: templates (-want +got):\n%s", when, diff)
	}
}

func (s *scene) weight(server, weight int) {
	s.c.Services[0].RealServers[server-1].Weight = weight
	s.apply()
}

func TestTemplateLivesAsLongAsItsFlows(t *testing.T) {
	s := newScene(t, everyAddress(50*time.Second), webVIP+"/tcp")
	s.want("the first flow", s.syn(sevenOne, webVIP), "3")
	s.wantTemplates("at once", "198.51.100.7 > 6/203.0.113.10:80 > 10.0.0.3:80 none 50s 1")
	s.wait(45 * time.Second)
	s.want("another client", s.syn(eightOne, webVIP), "2")
	s.want("a second flow", s.syn(sevenTwo, webVIP), "3")
	s.wantTemplates("restarted by the second flow",
		"198.51.100.7 > 6/203.0.113.10:80 > 10.0.0.3:80 none 50s 2",
		"198.51.100.8 > 6/203.0.113.10:80 > 10.0.0.2:80 none 50s 1")
	s.wait(54 * time.Second) // the first flow ended at 60 s, the templates were due at 95 s
	s.wantTemplates("due with a flow: 60 s more",
		"198.51.100.7 > 6/203.0.113.10:80 > 10.0.0.3:80 none 56s 1",
		"198.51.100.8 > 6/203.0.113.10:80 > 10.0.0.2:80 none 56s 1")
	s.wait(2 * time.Second)
	s.want("a third flow", s.syn("198.51.100.7:1003", webVIP), "3")
	s.wantTemplates("60 s for good",
		"198.51.100.7 > 6/203.0.113.10:80 > 10.0.0.3:80 none 60s 2",
		"198.51.100.8 > 6/203.0.113.10:80 > 10.0.0.2:80 none 54s 1")
	s.wait(200 * time.Second)
	s.wantTemplates("after all flows have ended")
	if n := s.b.Stats().Flows.Now; n != 0 {
		t.Errorf("%d entries are left", n)
	}
	s.want("the client whom nobody remembers", s.syn(sevenOne, webVIP), "1")
}

func TestTemplateThatIsDueIsFoundBeforeTheWheelComes(t *testing.T) {
	s := newScene(t, everyAddress(50*time.Second), webVIP+"/tcp")
	s.want("with a flow", s.syn(sevenOne, webVIP), "3")
	s.want("without", s.syn(eightOne, webVIP), "2")
	s.send(packettest.TCP(eightOne, webVIP, packettest.RST)) // in SYN_RECV: stays
	s.now = 51 * time.Second
	s.want("with a flow, once it is due", s.syn(sevenTwo, webVIP), "3")
	s.wantTemplates("60 s for good, found by a packet",
		"198.51.100.7 > 6/203.0.113.10:80 > 10.0.0.3:80 none 60s 2",
		"198.51.100.8 > 6/203.0.113.10:80 > 10.0.0.2:80 none 59s 1")
	s.wait(30 * time.Second) // the flows of the start have ended
	s.now = 112 * time.Second
	s.want("without a flow, once it is due", s.syn(eightOne, webVIP), "1")
}

func TestTemplateIsAssuredByAnEstablishedFlow(t *testing.T) {
	const dns = "203.0.113.10:53"
	tests := []struct {
		name    string
		mode    string
		packets [][]byte
		want    string
	}{
		{"a SYN alone does not", "dr", [][]byte{packettest.TCP(sevenOne, dns, packettest.SYN)}, "none"},
		{"nor a SYN that is repeated", "dr", [][]byte{packettest.TCP(sevenOne, dns, packettest.SYN), packettest.TCP(sevenOne, dns, packettest.SYN)}, "none"},
		{"the ACK of the handshake does", "dr", [][]byte{packettest.TCP(sevenOne, dns, packettest.SYN), packettest.TCP(sevenOne, dns)}, "assured"},
		{"an ACK that opens a flow in mid-stream does", "dr", [][]byte{packettest.TCP(sevenOne, dns)}, "assured"},
		{"and a reset takes nothing back", "dr", [][]byte{
			packettest.TCP(sevenOne, dns, packettest.SYN), packettest.TCP(sevenOne, dns), packettest.TCP(sevenOne, dns, packettest.RST)}, "assured"},
		{"datagrams of the client do not", "nat", [][]byte{packettest.UDP(sevenOne, dns), packettest.UDP(sevenOne, dns)}, "none"},
		{"one of the real server does", "nat", [][]byte{packettest.UDP(sevenOne, dns), packettest.UDP("10.0.0.9:53", sevenOne)}, "assured"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, everyAddress(hundred), dns+"/tcp", dns+"/udp")
			c := &s.c.Services[0]
			c.RealServers = nil
			c.Policy.Sloppy = true
			s.server(c, tt.mode, netip.MustParseAddrPort("10.0.0.9:53"))
			s.apply()
			for i, p := range tt.packets {
				if got := s.send(p); got != "9" && got != "7" {
					t.Fatalf("packet %d: %s", i, got)
				}
			}
			s.wantTemplates("then", "198.51.100.7 > 0/0.0.0.0:0 > 10.0.0.9:0 "+tt.want+" 100s 1")
		})
	}
}

func TestTemplateOfARealServerThatLeaves(t *testing.T) {
	leave := func(change func(s *scene)) (s *scene) {
		s = newScene(t, everyAddress(hundred), webVIP+"/tcp")
		s.want("the first flow", s.syn(sevenOne, webVIP), "3")
		change(s)
		s.apply()
		return s
	}
	third := func(s *scene) *lb.RealServerConfig { return &s.c.Services[0].RealServers[2] }

	s := leave(func(s *scene) { third(s).Weight = 0 })
	s.want("weight 0: the client", s.syn(sevenTwo, webVIP), "3")
	s.want("weight 0: another one", s.syn(eightOne, webVIP), "2")

	s = leave(func(s *scene) { third(s).Weight = 0; s.c.Services[0].Policy.ExpireQuiescedTemplates = true })
	s.want("weight 0, quiesced templates expire: the client", s.syn(sevenTwo, webVIP), "2")
	s.wantTemplates("the old one is unusable beside the new one",
		"198.51.100.7 > 6/203.0.113.10:65535 > 10.0.0.3:65535 none 100s 1",
		"198.51.100.7 > 6/203.0.113.10:80 > 10.0.0.2:80 none 100s 1")
	s.weight(3, 1)
	s.want("the weight is back: the client", s.syn("198.51.100.7:1003", webVIP), "2")
	s.wait(4 * time.Minute)
	s.wantTemplates("in the end")

	s = leave(func(s *scene) { third(s).Weight, third(s).Down = 0, true })
	s.want("down: the client", s.syn(sevenTwo, webVIP), "2")

	s = leave(func(s *scene) { s.c.Services[0].RealServers = s.c.Services[0].RealServers[:2] })
	s.want("removed: the client", s.syn(sevenTwo, webVIP), "2")

	s = leave(func(s *scene) {
		was := s.c.Services[0].RealServers
		s.c.Services[0].RealServers = was[:2]
		s.apply()
		s.c.Services[0].RealServers = was
	})
	s.want("removed and added before anybody came: the client", s.syn(sevenTwo, webVIP), "3")

	s = leave(func(s *scene) {
		m, err := modes.New("tun", modes.Options{
			Listens: s.c.Services[0].Listens, RealServer: third(s).Address,
			Tunnel: modes.Tunnel{Source: netip.MustParseAddr(dip4)},
		})
		if err != nil {
			t.Fatal(err)
		}
		third(s).Mode = m
	})
	s.want("in another mode: the client", s.syn(sevenTwo, webVIP), "3")
	s.wantTemplates("it goes on", "198.51.100.7 > 6/203.0.113.10:80 > 10.0.0.3:80 none 100s 2")
	s.wait(4 * time.Minute)
	s.wantTemplates("in the end")
}

func TestTemplateOfAFullRealServer(t *testing.T) {
	s := newScene(t, everyAddress(hundred), webVIP+"/tcp")
	for i := range s.c.Services[0].RealServers {
		s.c.Services[0].RealServers[i].MaxFlows = 1
	}
	s.apply()
	s.want("the first flow", s.syn(sevenOne, webVIP), "3")
	s.want("one beyond the bound", s.syn(sevenTwo, webVIP), "3")
	s.want("another client", s.syn(eightOne, webVIP), "2")
	s.want("the last with room", s.syn("198.51.100.9:1", webVIP), "1")
	s.want("nobody has room", s.syn("198.51.100.10:1", webVIP), "send no_real_server")
	s.want("but for whom it knows", s.syn("198.51.100.7:1003", webVIP), "3")
	s.wantTemplates("a client who was refused has none",
		"198.51.100.7 > 6/203.0.113.10:80 > 10.0.0.3:80 none 100s 3",
		"198.51.100.8 > 6/203.0.113.10:80 > 10.0.0.2:80 none 100s 1",
		"198.51.100.9 > 6/203.0.113.10:80 > 10.0.0.1:80 none 100s 1")
}

func TestTemplatesOfServicesAreApart(t *testing.T) {
	s := newScene(t, everyAddress(hundred), "203.0.113.10:53/udp")
	s.add("tcp", everyAddress(hundred), "203.0.113.10:53/tcp")
	s.apply()
	s.want("another client by UDP", s.send(packettest.UDP(eightOne, "203.0.113.10:53")), "3")
	s.want("the client by TCP", s.syn(sevenOne, "203.0.113.10:53"), "3")
	s.want("the client by UDP", s.send(packettest.UDP(sevenOne, "203.0.113.10:53")), "2")
	s.want("the client by TCP again", s.syn(sevenTwo, "203.0.113.10:53"), "3")
}

func TestTemplatesOutliveAReload(t *testing.T) {
	s := newScene(t, everyAddress(hundred), webVIP+"/tcp")
	s.want("the first flow", s.syn(sevenOne, webVIP), "3")
	s.c.Services[0].Persistence.Timeout = 500 * time.Second
	s.apply()
	s.want("the client", s.syn(sevenTwo, webVIP), "3")
	s.want("another one", s.syn(eightOne, webVIP), "2")
	s.wantTemplates("another timeout counts for new ones",
		"198.51.100.7 > 6/203.0.113.10:80 > 10.0.0.3:80 none 100s 2",
		"198.51.100.8 > 6/203.0.113.10:80 > 10.0.0.2:80 none 500s 1")

	s.c.Services[0].Listens = append(s.c.Services[0].Listens, lb.Listen{VIP: netip.MustParseAddr("203.0.113.11"), FirstPort: 80, Proto: packet.TCP})
	s.apply()
	s.want("the client on a new listen", s.syn("198.51.100.7:1003", "203.0.113.11:80"), "3")

	services := s.c.Services
	s.c.Services = nil
	s.apply()
	s.c.Services = services
	s.apply()
	s.want("the client after the service was away", s.syn("198.51.100.7:1004", webVIP), "3")

	s.c.Services[0].Persistence.PrefixV4 = 24
	s.apply()
	got := s.syn("198.51.100.7:1005", webVIP)
	s.want("a neighbour after the prefix changed", s.syn("198.51.100.99:1", webVIP), got)

	s.c.Services[0].Persistence = lb.Persistence{}
	s.apply()
	a, b := s.syn("198.51.100.7:1006", webVIP), s.syn("198.51.100.7:1007", webVIP)
	if a == b {
		t.Errorf("without persistence two flows of the client went to %s", a)
	}
}

func TestFlowUnderATemplateIsNotOpenedAnew(t *testing.T) {
	for _, p := range []lb.Persistence{{}, everyAddress(hundred)} {
		s := newScene(t, p, webVIP+"/tcp")
		s.c.Services[0].Policy.Reuse = lb.ReuseClosed
		s.apply()
		s.syn(sevenOne, webVIP)
		s.send(packettest.TCP(sevenOne, webVIP))
		s.send(packettest.TCP(sevenOne, webVIP, packettest.RST))
		s.c.Services[0].RealServers = s.c.Services[0].RealServers[:2] // so that anew would be elsewhere
		s.c.Services[0].Policy.Removed = lb.RemovedServe
		s.apply()
		want := "2"
		if p.Timeout > 0 {
			want = "3"
		}
		s.want(fmt.Sprintf("%v: a SYN for a closed flow", p.Timeout), s.syn(sevenOne, webVIP), want)
	}
}

func TestOnePacketFollowsTheTemplate(t *testing.T) {
	s := newScene(t, everyAddress(hundred), "203.0.113.10:53/udp")
	s.c.Services[0].Policy.OnePacket = true
	s.apply()
	query := func(src string) string { return s.send(packettest.UDP(src, "203.0.113.10:53")) }
	s.want("the first datagram", query(sevenOne), "3")
	s.want("the next", query(sevenOne), "3")
	s.want("from another port", query(sevenTwo), "3")
	s.want("another client", query(eightOne), "2")
	s.wantTemplates("no flows",
		"198.51.100.7 > 17/203.0.113.10:53 > 10.0.0.3:53 none 100s 0",
		"198.51.100.8 > 17/203.0.113.10:53 > 10.0.0.2:53 none 100s 0")
	if n := s.b.Stats().Flows.Now; n != 2 {
		t.Errorf("the table has %d entries, want the 2 templates", n)
	}
}

// TestFTPWithoutARealServer: the client's request is refused; what is maybe no
// FTP at all is left to the host (ip_vs_leave).
func TestFTPWithoutARealServer(t *testing.T) {
	s := newScene(t, everyAddress(hundred), ftpVIP+"/tcp")
	s.c.Services[0].RealServers = nil
	s.apply()
	s.want("FTP", s.syn(sevenOne, ftpVIP), "send no_real_server")
	s.want("another port", s.syn(sevenOne, "203.0.113.10:30000"), "pass no_service")
}

func TestPortsThatAPersistentServiceTakesBesides(t *testing.T) {
	s := newScene(t, everyAddress(hundred), ftpVIP+"/tcp")
	c := &s.c.Services[0]
	c.RealServers = nil
	s.server(c, "nat", netip.MustParseAddrPort("10.0.0.9:2121"))
	s.apply()
	for _, tt := range []struct{ vip, rs string }{{ftpVIP, "10.0.0.9:2121"}, {"203.0.113.10:30000", "10.0.0.9:30000"}} {
		p := packettest.Parsed(t, packettest.TCP(sevenOne, tt.vip, packettest.SYN))
		s.b.Queue(0).Handle(p, s.now)
		diff(t, "request to "+tt.vip, packettest.TCP(sevenOne, tt.rs, packettest.SYN), p.Bytes())
		p = packettest.Parsed(t, packettest.TCP(tt.rs, sevenOne, packettest.SYNACK))
		s.b.Queue(0).Handle(p, s.now)
		diff(t, "reply from "+tt.rs, packettest.TCP(tt.vip, sevenOne, packettest.SYNACK), p.Bytes())
	}
	s.wantTemplates("of FTP", "198.51.100.7 > 6/203.0.113.10:0 > 10.0.0.9:0 none 100s 2")
}
