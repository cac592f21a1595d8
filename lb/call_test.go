package lb_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

const (
	sipVIP  = "203.0.113.10:5060"
	phone   = "198.51.100.7:5060"
	sipRS1  = "10.0.0.1:5062"
	sipRS2  = "10.0.0.2:5062"
	sipVIP6 = "[2001:db8:a::10]:5060"
	phone6  = "[2001:db8:c::7]:5060"
	sipRS6  = "[2001:db8:b::1]:5062"
)

// sip is a message of a call.
func sip(src, dst, callID string) []byte {
	return packettest.UDP(src, dst, packettest.Data("OPTIONS sip:a@example.net SIP/2.0\r\nCall-ID: "+callID+"\r\nCSeq: 1 OPTIONS\r\n\r\n"))
}

// newSIPScene has a service with SIP persistence over two real servers.
func newSIPScene(t *testing.T, mode string, onePacket bool) *scene {
	t.Helper()
	p := everyAddress(hundred)
	p.Engine = lb.SIPEngine
	s := newScene(t, p, sipVIP+"/udp", sipVIP6+"/udp")
	c := &s.c.Services[0]
	c.Policy.OnePacket = onePacket
	c.RealServers = nil
	for _, rs := range []string{sipRS1, sipRS2, sipRS6} {
		a := netip.MustParseAddrPort(rs)
		if mode == "dr" {
			a = netip.AddrPortFrom(a.Addr(), 5060)
		}
		s.server(c, mode, a)
	}
	s.apply()
	return s
}

func TestCallsStayTogether(t *testing.T) {
	s := newSIPScene(t, "dr", true)
	for i, tt := range []struct{ src, callID, want string }{
		{phone, "call-1@x", "2"},
		{phone, "call-2@x", "1"},
		{phone, "call-1@x", "2"},
		{"198.51.100.7:9999", "call-2@x", "1"},
		{"198.51.100.8:5060", "call-2@x", "2"}, // another client's call
		{phone, "CALL-1@x", "1"},               // and another call
	} {
		if got := s.send(sip(tt.src, sipVIP, tt.callID)); got != tt.want {
			t.Errorf("datagram %d, %s of %s, went to %s, want %s", i, tt.callID, tt.src, got, tt.want)
		}
	}
	if n := len(s.templates()); n != 4 {
		t.Errorf("%d templates, want one of each call: %v", n, s.templates())
	}
}

func TestDatagramsWithoutCallIDAreDropped(t *testing.T) {
	s := newSIPScene(t, "dr", true)
	for _, p := range [][]byte{
		packettest.UDP(phone, sipVIP),
		packettest.UDP(phone, sipVIP, packettest.Data("hello")),
		packettest.UDP(phone6, sipVIP6, packettest.Data("OPTIONS sip:a SIP/2.0\r\nCall-ID: x")),
	} {
		if got := s.send(p); got != "drop no_call_id" {
			t.Errorf("%s", got)
		}
	}
	if n := s.b.Stats().Flows.Now; n != 0 {
		t.Errorf("%d entries", n)
	}
}

func TestWithoutOnePacketAFlowFollowsItsFirstCall(t *testing.T) {
	s := newSIPScene(t, "dr", false)
	first := s.send(sip(phone, sipVIP, "a"))
	if got := s.send(sip(phone, sipVIP, "b")); got != first {
		t.Errorf("the flow moved from %s to %s", first, got)
	}
	if got := s.send(packettest.UDP(phone, sipVIP)); got != first {
		t.Errorf("a keep-alive of the flow: %s", got)
	}
}

// TestRealServersCall: what a real server sends by itself leaves as the VIP's,
// and the answer comes to it, whoever's turn it is.
func TestRealServersCall(t *testing.T) {
	for _, onePacket := range []bool{false, true} {
		for _, end := range [][3]string{{sipRS1, phone, sipVIP}, {sipRS6, phone6, sipVIP6}} {
			rs, client, vip := end[0], end[1], end[2]
			s := newSIPScene(t, "nat", onePacket)
			for range 2 {
				p := packettest.Parsed(t, sip(rs, client, "call-1"))
				v, why := s.b.Queue(0).Handle(p, s.now)
				if v != packet.Send || why != packet.OK {
					t.Fatalf("%s calls %s: %v %v", rs, client, v, why)
				}
				diff(t, "call", sip(vip, client, "call-1"), p.Bytes())
			}
			p := packettest.Parsed(t, sip(client, vip, "call-1"))
			s.b.Queue(0).Handle(p, s.now)
			diff(t, "answer", sip(client, rs, "call-1"), p.Bytes())
			if got := s.templates(); len(got) != 1 || !strings.Contains(got[0], " assured ") {
				t.Errorf("templates %v, want one that the real server assured", got)
			}
			stats := s.b.Stats().Services[0]
			if stats.ReplyPackets != 2 || stats.RequestPackets != 1 {
				t.Errorf("%d packets of real servers and %d of clients were counted", stats.ReplyPackets, stats.RequestPackets)
			}
		}
	}
}

// TestACallMovesToWhoMakesIt: a real server that sends a message of another
// one's call takes the call over, as in IPVS.
func TestACallMovesToWhoMakesIt(t *testing.T) {
	s := newSIPScene(t, "nat", true)
	if got := s.send(sip(phone, sipVIP, "a")); got != "2" {
		t.Fatalf("the call went to %s", got)
	}
	s.send(sip(sipRS1, phone, "a"))
	if got := s.send(sip(phone, sipVIP, "a")); got != "1" {
		t.Errorf("then the call went to %s", got)
	}
}

func TestWhatIsNoCall(t *testing.T) {
	tests := []struct {
		name string
		mode string
		pkt  []byte
	}{
		{"from another port of a real server", "nat", sip("10.0.0.1:5063", phone, "a")},
		{"from a host that is no real server", "nat", sip("10.0.0.9:5062", phone, "a")},
		{"by TCP", "nat", packettest.TCP(sipRS1, phone, packettest.SYN)},
		{"without a Call-ID", "nat", packettest.UDP(sipRS1, phone)},
		{"an error that a real server sends", "nat", packettest.Error("10.0.0.1", "198.51.100.7", unreachable4, port4, 0, sip(phone, sipRS1, "a"))},
		{"where real servers answer directly", "dr", sip("10.0.0.1:5060", phone, "a")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSIPScene(t, tt.mode, true)
			if got := s.send(tt.pkt); got != "return ok" {
				t.Error(got)
			}
			if got := s.templates(); got != nil {
				t.Errorf("templates %v", got)
			}
		})
	}
}

// TestCallersFollowTheConfiguration: a real server may call as long as its
// service says so.
func TestCallersFollowTheConfiguration(t *testing.T) {
	s := newSIPScene(t, "nat", true)
	update := func(change func(c *lb.ServiceConfig)) {
		change(&s.c.Services[0])
		if err := s.b.UpdateService(s.c.Services[0]); err != nil {
			t.Fatal(err)
		}
	}
	was := s.c.Services[0].RealServers
	call := func() string { return s.send(sip(sipRS1, phone, "a")) }
	s.want("a call", call(), "7")
	update(func(c *lb.ServiceConfig) { c.RealServers = was[1:] })
	s.want("a call of a removed one", call(), "return ok")
	update(func(c *lb.ServiceConfig) { c.RealServers = was })
	s.want("a call once it is back", call(), "7")
	update(func(c *lb.ServiceConfig) { c.Persistence.Engine = lb.NoEngine })
	s.want("a call without SIP", call(), "return ok")
	s.c.Services = nil
	s.apply()
	s.want("a call without a service", call(), "return ok")
}
