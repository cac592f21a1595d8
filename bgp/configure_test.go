package bgp

import (
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// configure puts other options with the routers as peers into force.
func configure(t *testing.T, s *Speaker, change func(*Options), routers ...*router) {
	t.Helper()
	s.mu.Lock()
	o := s.options
	s.mu.Unlock()
	o.Peers = nil
	for _, r := range routers {
		o.Peers = append(o.Peers, r.peer)
	}
	if change != nil {
		change(&o)
	}
	if err := s.Configure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// ends waits for the farewell of a session.
func (tk *talk) ends() {
	tk.t.Helper()
	for line := tk.update(); line != "notification 6.3"; line = tk.update() { // peer de-configured
		if !strings.HasPrefix(line, "-") {
			tk.t.Fatalf("%s instead of a farewell", line)
		}
	}
}

func TestPeersComeAndGoWhileOthersStay(t *testing.T) {
	if testing.Short() {
		t.Skip("sessions take seconds")
	}
	a, b, c := newRouter(t, 11), newRouter(t, 12), newRouter(t, 13)
	s, log, stop := speak(t, a, b)
	all := Route{Prefix: netip.MustParsePrefix("203.0.113.1/32")}
	chosen := Route{Prefix: netip.MustParsePrefix("203.0.113.2/32"), Peers: []string{a.peer.Name}}
	announce(t, s, all)
	ta, tb := a.accept(), b.accept()
	starts := func(tk *talk, prefix string) {
		t.Helper()
		if got := tk.update(); !strings.HasPrefix(got, prefix) {
			t.Errorf("got %s, want %s", got, prefix)
		}
	}
	starts(ta, "+203.0.113.1/32")
	starts(tb, "+203.0.113.1/32")
	announce(t, s, all, chosen)
	starts(ta, "+203.0.113.2/32")

	// b goes, c comes.
	configure(t, s, nil, c, a)
	tb.ends()
	tc := c.accept()
	starts(tc, "+203.0.113.1/32")
	announce(t, s, all, chosen, Route{Prefix: netip.MustParsePrefix("203.0.113.3/32")})
	starts(tc, "+203.0.113.3/32") // and not 203.0.113.2, which is for a only
	for line := ta.update(); !strings.HasPrefix(line, "+203.0.113.3/32"); line = ta.update() {
		if !strings.HasPrefix(line, "+203.0.113.2/32") { // whose marks have changed
			t.Fatalf("a got %s", line)
		}
	}

	// c changes, and so gets its routes by another next hop in a new session.
	c.peer.NextHop4 = netip.MustParseAddr("192.0.2.12")
	configure(t, s, nil, c, a)
	tc.ends()
	tc = c.accept()
	for got := ""; !strings.Contains(got, "203.0.113.1/32") || !strings.Contains(got, "203.0.113.3/32"); {
		line := tc.update()
		if !strings.Contains(line, "{Nexthop: 192.0.2.12}") || strings.Contains(line, "203.0.113.2/32") {
			t.Fatalf("got %s", line)
		}
		got += line
	}
	eventually(t, "the statistics", func() bool {
		p := s.Stats().Peers
		return len(p) == 2 && p[0].Peer == c.peer.Name && p[0].Ups == 2 && p[0].Downs == 1 && p[0].Announced == 2 &&
			p[1].Ups == 1 && p[1].Downs == 0 && p[1].Announced == 3
	})
	for _, want := range []string{"BGP peer removed", "BGP peer added", "BGP peer changed", `reason="the configuration has changed"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say: %s", want)
		}
	}
	// The same again touches nobody.
	configure(t, s, nil, c, a)
	announce(t, s, all, chosen)
	for line := ta.update(); line != "-203.0.113.3/32"; line = ta.update() {
		if !strings.HasPrefix(line, "+203.0.113.2/32") { // c's change has changed its marks
			t.Fatalf("a got %s", line)
		}
	}
	starts(tc, "-203.0.113.3/32")
	stop()
	ta.ends()
	tc.ends()
}

func TestAnotherASBeginsAnew(t *testing.T) {
	if testing.Short() {
		t.Skip("sessions take seconds")
	}
	r := newRouter(t, 14)
	s, _, stop := speak(t, r)
	announce(t, s, Route{Prefix: netip.MustParsePrefix("203.0.113.1/32")})
	tk := r.accept()
	tk.update()
	for _, as := range []uint32{65012, 65013} {
		configure(t, s, func(o *Options) { o.AS = as }, r)
		tk.ends()
		tk = r.accept()
		if got := tk.update(); !strings.HasPrefix(got, "+203.0.113.1/32 {AsPath: "+map[uint32]string{65012: "65012", 65013: "65013"}[as]+"}") {
			t.Errorf("AS %d: %s", as, got)
		}
	}
	configure(t, s, func(o *Options) { *o = Options{Log: o.Log} }) // BGP is taken out
	tk.ends()
	if st := s.Stats(); len(st.Peers) != 0 || len(st.Routes) != 0 {
		t.Errorf("%+v", st)
	}
	announce(t, s, Route{Prefix: netip.MustParsePrefix("203.0.113.9/32")})
	configure(t, s, func(o *Options) { o.AS, o.RouterID = 65011, netip.MustParseAddr("192.0.2.11") }, r)
	tk = r.accept()
	if got := tk.update(); !strings.HasPrefix(got, "+203.0.113.9/32 {AsPath: 65011}") {
		t.Error(got)
	}
	stop()
	tk.ends()
}

// TestAPortThatIsTakenChangesNothing: what was in force comes back.
func TestAPortThatIsTakenChangesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("sessions take seconds")
	}
	r, other := newRouter(t, 15), newRouter(t, 16)
	s, _, _ := speak(t, r)
	announce(t, s, Route{Prefix: netip.MustParsePrefix("203.0.113.1/32")})
	tk := r.accept()
	tk.update()
	o := Options{AS: 65011, RouterID: netip.MustParseAddr("192.0.2.11"), ListenPort: int(other.peer.Port), Peers: []Peer{r.peer}}
	if err := s.Configure(t.Context(), o); err == nil || !strings.Contains(err.Error(), "listen_port") {
		t.Fatalf("%v", err)
	}
	tk.ends()
	if got := r.accept().update(); !strings.HasPrefix(got, "+203.0.113.1/32") {
		t.Error(got)
	}
}

func TestAPasswordChangesOnWhatListens(t *testing.T) {
	if testing.Short() {
		t.Skip("sessions take seconds")
	}
	if newSecret() == "" {
		t.Skip("the kernel has no TCP MD5")
	}
	r := newRouter(t, 17)
	r.peer.Passive, r.peer.Password = true, "first"
	port, err := freePort(r.peer.LocalAddress)
	if err != nil {
		t.Fatal(err)
	}
	s, _, _ := speakWith(t, Options{AS: 65011, RouterID: netip.MustParseAddr("192.0.2.11"), ListenPort: int(port), Peers: []Peer{r.peer}})
	before := "none"
	for _, password := range []string{"first", "second", ""} {
		r.peer.Password = password
		configure(t, s, nil, r)
		eventually(t, "a session with the password "+password, func() bool { return r.connects(port, password) })
		if r.connects(port, before) {
			t.Errorf("a session with the password %q, where it is %q", before, password)
		}
		before = password
	}
}

// connects says whether the speaker takes a connection of the router's.
func (r *router) connects(port uint16, password string) bool {
	r.t.Helper()
	d := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: r.addr.AsSlice()}, Timeout: time.Second,
		Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error { return setMD5(fd, r.peer.LocalAddress, password) })
		},
	}
	c, err := d.Dial("tcp4", netip.AddrPortFrom(r.peer.LocalAddress, port).String())
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	_, err = readMessage(c, make([]byte, bgp.BGP_MAX_MESSAGE_LENGTH))
	return err == nil
}
