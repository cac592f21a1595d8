//go:debug multipathtcp=0

package bgp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// A router is the other end of a session: it takes the speaker's connections
// on a loopback address of its own.
type router struct {
	t    *testing.T
	addr netip.Addr
	l    *net.TCPListener
	peer Peer // as the speaker is told
	as   uint16
}

func newRouter(t *testing.T, n byte) *router {
	t.Helper()
	addr := netip.AddrFrom4([4]byte{127, 0, 9, n})
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &router{t: t, addr: addr, l: l, as: 65000, peer: Peer{
		Name: addr.String(), Address: addr, Port: uint16(l.Addr().(*net.TCPAddr).Port), AS: 65000,
		LocalAddress: netip.MustParseAddr("127.0.9.254"), IPv4: true, HoldTime: 5 * patience, ConnectRetry: time.Second,
	}}
}

// A talk is one session as the router sees it.
type talk struct {
	t    *testing.T
	conn net.Conn
}

// patience bounds every wait: more than any takes on a busy machine.
const patience = time.Minute

// accept takes a connection and comes up to Established.
func (r *router) accept() *talk {
	r.t.Helper()
	tk := r.connected()
	tk.send(openMessage(r.t, r.as), frame(bgp.BGP_MSG_KEEPALIVE))
	for _, want := range []uint8{bgp.BGP_MSG_OPEN, bgp.BGP_MSG_KEEPALIVE} {
		if m := tk.next(); m.Header.Type != want {
			r.t.Fatalf("type %d, want %d", m.Header.Type, want)
		}
	}
	return tk
}

func (r *router) connected() *talk {
	r.t.Helper()
	if err := r.l.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	c, err := r.l.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return &talk{r.t, c}
}

func (tk *talk) send(messages ...message) {
	tk.t.Helper()
	for _, m := range messages {
		if _, err := tk.conn.Write(m); err != nil {
			tk.t.Fatal(err)
		}
	}
}

// next is the next message of the speaker.
func (tk *talk) next() *bgp.BGPMessage {
	tk.t.Helper()
	if err := tk.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		tk.t.Fatal(err)
	}
	m, err := readMessage(tk.conn, make([]byte, bgp.BGP_MAX_MESSAGE_LENGTH))
	if err != nil {
		tk.t.Fatalf("waiting for a message: %v", err)
	}
	parsed, err := bgp.ParseBGPMessage(m)
	if err != nil {
		tk.t.Fatal(err)
	}
	return parsed
}

// update is the next UPDATE as one line: + announces, - withdraws.
func (tk *talk) update() string {
	tk.t.Helper()
	for {
		m := tk.next()
		switch b := m.Body.(type) {
		case *bgp.BGPUpdate:
			if end, _ := b.IsEndOfRib(); end {
				continue
			}
			var words []string
			for _, n := range b.WithdrawnRoutes {
				words = append(words, "-"+n.String())
			}
			for _, n := range b.NLRI {
				words = append(words, "+"+n.String())
			}
			var attributes []string
			for _, a := range b.PathAttributes {
				attributes = append(attributes, a.String())
			}
			slices.Sort(attributes) // GoBGP's order follows what was changed last
			words = append(words, attributes...)
			return strings.Join(words, " ")
		case *bgp.BGPNotification:
			return fmt.Sprintf("notification %d.%d", b.ErrorCode, b.ErrorSubcode)
		}
	}
}

// A safeBuffer is a log that several goroutines write.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// speak runs a speaker with the routers as its peers.
func speak(t *testing.T, routers ...*router) (s *Speaker, log *safeBuffer, stop func()) {
	t.Helper()
	o := Options{AS: 65011, RouterID: netip.MustParseAddr("192.0.2.11")}
	for _, r := range routers {
		o.Peers = append(o.Peers, r.peer)
	}
	return speakWith(t, o)
}

// speakWith runs a speaker.
func speakWith(t *testing.T, o Options) (s *Speaker, log *safeBuffer, stop func()) {
	t.Helper()
	log = &safeBuffer{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("the speaker said:\n%s", log)
		}
	})
	return s, log, stop
}

// eventually waits for what no message tells.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func announce(t *testing.T, s *Speaker, routes ...Route) {
	t.Helper()
	if err := s.Announce(t.Context(), routes); err != nil {
		t.Fatal(err)
	}
}

func TestAnnounceSendsTheDifference(t *testing.T) {
	if testing.Short() {
		t.Skip("sessions take seconds")
	}
	a, b := newRouter(t, 1), newRouter(t, 2)
	b.peer.NextHop4 = netip.MustParseAddr("192.0.2.12")
	s, _, stop := speak(t, a, b)
	med := func(n uint32) *uint32 { return &n }
	one := Route{Prefix: netip.MustParsePrefix("203.0.113.1/32"), MED: med(10), Communities: []Community{65011<<16 | 7}, Prepend: 1}
	two := Route{Prefix: netip.MustParsePrefix("203.0.113.2/32"), LargeCommunities: []LargeCommunity{{65011, 1, 2}}}
	announce(t, s, one)
	ta, tb := a.accept(), b.accept()
	want := func(tk *talk, line string) {
		t.Helper()
		if got := tk.update(); got != line {
			t.Errorf("got  %s\nwant %s", got, line)
		}
	}
	const path = "{AsPath: 65011 65011} {Communities: 65011:7} {Med: %[2]d} {Nexthop: %[1]s} {Origin: i}"
	want(ta, "+203.0.113.1/32 "+fmt.Sprintf(path, "127.0.9.254", 10))
	want(tb, "+203.0.113.1/32 "+fmt.Sprintf(path, "192.0.2.12", 10))

	announce(t, s, one, two)
	const path2 = "{AsPath: 65011} {LargeCommunity: [ 65011:1:2]} {Nexthop: %s} {Origin: i}"
	want(ta, "+203.0.113.2/32 "+fmt.Sprintf(path2, "127.0.9.254"))
	want(tb, "+203.0.113.2/32 "+fmt.Sprintf(path2, "192.0.2.12"))

	one.MED = med(20)
	announce(t, s, one, two)
	want(ta, "+203.0.113.1/32 "+fmt.Sprintf(path, "127.0.9.254", 20))
	want(tb, "+203.0.113.1/32 "+fmt.Sprintf(path, "192.0.2.12", 20))

	two.Peers = []string{b.peer.Name} // a's goes, b's stays as it was
	announce(t, s, one, two)
	want(ta, "-203.0.113.2/32")
	eventually(t, "the statistics", func() bool {
		p := s.Stats().Peers
		return p[0].Announced == 1 && p[1].Announced == 2
	})

	two.Peers = []string{a.peer.Name}
	announce(t, s, one, two)
	want(ta, "+203.0.113.2/32 "+fmt.Sprintf(path2, "127.0.9.254"))
	// b may first get again what it has: its route changed, if in nothing that b sees.
	for line := tb.update(); line != "-203.0.113.2/32"; line = tb.update() {
		if line != "+203.0.113.2/32 "+fmt.Sprintf(path2, "192.0.2.12") {
			t.Fatalf("b got %s", line)
		}
	}

	stop()
	for _, tk := range []*talk{ta, tb} {
		var lines []string
		for !slices.Contains(lines, "notification 6.3") { // peer de-configured
			lines = append(lines, tk.update())
		}
		if !strings.Contains(strings.Join(lines, "\n"), "-203.0.113.1/32") {
			t.Errorf("not withdrawn before the end: %v", lines)
		}
	}
}

func TestInternalPeersGetLocalPreference(t *testing.T) {
	if testing.Short() {
		t.Skip("sessions take seconds")
	}
	r := newRouter(t, 5)
	r.peer.AS, r.peer.IPv6, r.peer.NextHop6 = 65011, true, netip.MustParseAddr("2001:db8::11")
	r.as = 65011
	s, _, _ := speak(t, r)
	preference := uint32(250)
	announce(t, s, Route{Prefix: netip.MustParsePrefix("2001:db8:a::1/128"), LocalPref: &preference})
	tk := r.accept()
	const want = "{AsPath: } {LocalPref: 250} {MpReach(ipv6-unicast): {Nexthop: 2001:db8::11, NLRIs: [2001:db8:a::1/128]}} {Origin: i}"
	if got := tk.update(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWhatAPeerSendsDoesNoHarm(t *testing.T) {
	if testing.Short() {
		t.Skip("sessions take seconds")
	}
	r := newRouter(t, 3)
	s, log, _ := speak(t, r)
	announce(t, s, Route{Prefix: netip.MustParsePrefix("203.0.113.1/32")})
	tk := r.accept()
	tk.update()
	for range 100 {
		tk.send(updateMessage(t))
	}
	eventually(t, "the prefixes to be counted", func() bool { return s.Stats().Peers[0].Refused == 500 })

	// GoBGP v3.37 dereferences nil at a message of this type.
	tk.send(frame(9, 1, 2, 3))
	if got := tk.update(); got != "notification 1.3" {
		t.Errorf("answer %s", got)
	}
	eventually(t, "the log to tell", func() bool {
		return strings.Contains(log.String(), `msg="BGP session lost" peer=127.0.9.3 as=65000 reason="malformed message from the peer: type 9"`)
	})
	again := r.accept()
	if got := again.update(); !strings.HasPrefix(got, "+203.0.113.1/32") {
		t.Errorf("after the session's end: %s", got)
	}
	eventually(t, "the second session to be counted", func() bool {
		p := s.Stats().Peers[0]
		return p.Ups == 2 && p.Downs == 1 && p.State == Established
	})
	if p := s.Stats().Peers[0]; p.Ups != 2 || p.Downs != 1 || p.Refused != 500 {
		t.Errorf("%+v", p)
	}
}

func TestNobodyElseReachesGoBGP(t *testing.T) {
	if testing.Short() {
		t.Skip("sessions take seconds")
	}
	r := newRouter(t, 4)
	s, _, _ := speak(t, r)
	if newSecret() == "" {
		t.Skip("the kernel has no TCP MD5")
	}
	tk := r.accept()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: inside(0).AsSlice()}, Timeout: time.Second}
	if c, err := d.Dial("tcp4", s.inner.String()); err == nil {
		// The kernel drops what is not signed; GoBGP takes none of a peer that is there.
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := io.ReadFull(c, make([]byte, 19)); err == nil {
			t.Errorf("an answer of %d bytes", n)
		}
		c.Close()
	}
	announce(t, s, Route{Prefix: netip.MustParsePrefix("203.0.113.1/32")})
	if got := tk.update(); !strings.HasPrefix(got, "+203.0.113.1/32") {
		t.Errorf("the session suffered: %s", got)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	peer := Peer{Name: "a", Address: netip.MustParseAddr("192.0.2.1"), AS: 1, IPv4: true}
	tests := []struct {
		name string
		o    Options
		want string
	}{
		{name: "no router ID", o: Options{AS: 1}, want: "router ID"},
		{name: "no AS", o: Options{RouterID: netip.MustParseAddr("192.0.2.11"), Peers: []Peer{peer}}, want: "AS 0"},
		{name: "a peer twice", o: Options{AS: 1, Peers: []Peer{peer, peer}}, want: "there twice"},
		{name: "a peer that nothing finds", o: Options{AS: 1, Peers: []Peer{{Name: "a"}}}, want: "an address or an interface"},
		{name: "passive, and nothing listens", o: Options{AS: 1, Peers: []Peer{{Name: "a", Interface: "eth0", Passive: true}}}, want: "nothing listens"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := New(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}
