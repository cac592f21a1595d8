package bgp

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	api "github.com/osrg/gobgp/v3/api"

	"github.com/uvs-project/uvs/bgp/bfd"
)

// State is where a session stands (RFC 4271 section 8.2.2).
type State string

// The states. GoBGP has no Connect: it stays Active while it connects.
const (
	Idle        State = "idle"
	Active      State = "active"
	OpenSent    State = "opensent"
	OpenConfirm State = "openconfirm"
	Established State = "established"
)

// States lists them all in the order of a session's way up.
var States = []State{Idle, Active, OpenSent, OpenConfirm, Established}

// Stats is what a speaker does.
type Stats struct {
	Routes     []RouteStats // in the order of their prefixes
	Peers      []PeerStats
	BFDInvalid uint64 // BFD packets that were for no session or broke a rule
}

// RouteStats is one route that is announced.
type RouteStats struct {
	Prefix netip.Prefix
	Peers  int // that have it
}

// Messages counts BGP messages by their type.
type Messages struct{ Open, Update, Notification, Keepalive, Refresh uint64 }

// PeerStats is one session. Counters never go down.
type PeerStats struct {
	Peer      string // its name
	AS        uint32
	State     State
	Since     time.Time // of the state Established, or of its end
	Ups       uint64    // how often the session was established
	Downs     uint64    // and how often it ended
	Announced int       // routes that the peer has from us; 0 unless established
	Refused   uint64    // routes that it sent and that are refused; 0 unless established
	Sent      Messages
	Received  Messages
	LastError string // why there is no session, or why there was none; empty if there always was

	BFD *bfd.PeerStats // nil: none. AdminDown while there is no session
}

// peerTable is what is known of the sessions.
type peerTable struct {
	mu    sync.Mutex
	peers []*peerState          // as Options.Peers
	byKey map[string]*peerState // by how GoBGP calls a peer, which is its address
}

// peerState is one peer's; guarded by the table's mu.
type peerState struct {
	PeerStats
	addr     netip.Addr // not valid until the peer is found
	password bool
	cause    string // of the end of the session; empty while it lives or is tried
	said     string // the error that was logged last, since the session's end
}

func newPeerTable(o *Options) *peerTable {
	t := &peerTable{byKey: map[string]*peerState{}}
	for i := range o.Peers {
		p := &o.Peers[i]
		t.peers = append(t.peers, &peerState{
			PeerStats: PeerStats{Peer: p.Name, AS: p.AS, State: Idle, Since: time.Now()},
			password:  p.Password != "",
		})
		t.found(i, p.Address)
	}
	return t
}

// found notes at which address peer i is.
func (t *peerTable) found(i int, at netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[i]
	delete(t.byKey, p.addr.String())
	p.addr = at
	if at.IsValid() {
		t.byKey[at.String()] = p
	}
}

// session says where peer i is, and whether its session is established.
func (t *peerTable) session(i int) (at netip.Addr, up bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peers[i].addr, t.peers[i].State == Established
}

// keyOf is how GoBGP calls the peer of a name; empty until it is found.
func (t *peerTable) keyOf(name string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.peers {
		if p.Peer == name && p.addr.IsValid() {
			return p.addr.String()
		}
	}
	return ""
}

func (t *peerTable) anyUp() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.peers {
		if p.State == Established {
			return true
		}
	}
	return false
}

var states = map[api.PeerState_SessionState]State{
	api.PeerState_IDLE: Idle, api.PeerState_CONNECT: Active, api.PeerState_ACTIVE: Active,
	api.PeerState_OPENSENT: OpenSent, api.PeerState_OPENCONFIRM: OpenConfirm, api.PeerState_ESTABLISHED: Established,
}

// event follows the sessions' states. An event does not say the zone of a
// link-local address, which two peers may share, so all are asked.
func (s *Speaker) event(e *api.WatchEventResponse) {
	if p := e.GetPeer(); p == nil || p.Type != api.WatchEventResponse_PeerEvent_STATE {
		return
	}
	// It fails only where no speaker runs.
	_ = s.server.ListPeer(context.Background(), &api.ListPeerRequest{}, func(p *api.Peer) {
		s.peers.is(s.log, p.State.NeighborAddress, states[p.State.SessionState])
	})
	if err := s.monitored(); err != nil {
		s.log.Error("BFD cannot watch the peers", "error", err)
	}
}

// is notes a session's state.
func (t *peerTable) is(log *slog.Logger, key string, state State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.byKey[key]
	if p == nil || state == "" {
		return
	}
	was := p.State
	p.State = state
	switch {
	case state == Established && was != Established:
		p.Since, p.cause, p.said = time.Now(), "", ""
		p.Ups++
		log.Info("BGP session established", "peer", p.Peer, "as", p.AS)
	case was == Established && state != Established:
		p.Since, p.said = time.Now(), p.cause
		p.Downs++
		log.Warn("BGP session lost", "peer", p.Peer, "as", p.AS, "reason", p.cause)
	}
}

// failed notes why a peer has no session. It is logged when it is news.
func (t *peerTable) failed(log *slog.Logger, key, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.byKey[key]
	if p == nil {
		return
	}
	if p.password && strings.Contains(why, "i/o timeout") {
		why += " (a peer with another password, or none, looks the same)"
	}
	p.LastError, p.cause = why, why
	if p.State == Established || p.said == why {
		return // the end of the session says it, or it was said
	}
	p.said = why
	log.Warn("no BGP session", "peer", p.Peer, "as", p.AS, "reason", why)
}

// tries notes that a session is tried anew.
func (t *peerTable) tries(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.byKey[key]; p != nil {
		p.cause = ""
	}
}

// ended is failed, unless a better reason is known.
func (t *peerTable) ended(log *slog.Logger, key, why string) {
	t.mu.Lock()
	p := t.byKey[key]
	known := p == nil || p.cause != ""
	t.mu.Unlock()
	if !known {
		t.failed(log, key, why)
	}
}

// absent notes why peer i was not found.
func (t *peerTable) absent(log *slog.Logger, i int, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[i]
	p.LastError = why
	if p.said == why {
		return
	}
	p.said = why
	log.Warn("BGP peer not found", "peer", p.Peer, "reason", why)
}

// broke notes why a session ended, unless a better reason is known.
func (t *peerTable) broke(key, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.byKey[key]; p != nil && p.cause == "" {
		p.LastError, p.cause = why, why
	}
}

// Stats is what the speaker does now. It may be called at any time.
func (s *Speaker) Stats() Stats {
	counts := s.counts()
	liveness := map[string]bfd.PeerStats{}
	for _, b := range s.monitor.Known() {
		liveness[b.Name] = b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	st := Stats{BFDInvalid: s.monitor.Invalid()}
	for i := range s.options.Peers {
		ps := s.peers.peers[i].PeerStats
		if s.options.Peers[i].BFD != (BFD{}) {
			b := liveness[ps.Peer]
			ps.BFD = &b
		}
		c := counts[s.peers.peers[i].addr.String()]
		ps.Sent, ps.Received = c.sent, c.received
		if ps.State == Established {
			ps.Refused = c.routes
		}
		st.Peers = append(st.Peers, ps)
	}
	for _, r := range s.announced {
		rs := RouteStats{Prefix: r.Prefix}
		for i := range st.Peers {
			if st.Peers[i].State == Established && r.goesTo(&s.options.Peers[i]) {
				st.Peers[i].Announced++
				rs.Peers++
			}
		}
		st.Routes = append(st.Routes, rs)
	}
	slices.SortFunc(st.Routes, func(a, b RouteStats) int { return a.Prefix.Compare(b.Prefix) })
	return st
}

// peerCounts is what GoBGP counts of a peer.
type peerCounts struct {
	routes         uint64 // that it has sent
	sent, received Messages
}

// counts asks GoBGP, by how it calls the peers.
func (s *Speaker) counts() map[string]peerCounts {
	s.mu.Lock()
	running := s.running
	s.mu.Unlock()
	all := map[string]peerCounts{}
	if !running {
		return all
	}
	// It fails only where no speaker runs.
	_ = s.server.ListPeer(context.Background(), &api.ListPeerRequest{}, func(p *api.Peer) {
		c := peerCounts{sent: messages(p.State.Messages.GetSent()), received: messages(p.State.Messages.GetReceived())}
		for _, af := range p.AfiSafis {
			c.routes += af.State.GetReceived()
		}
		all[p.State.NeighborAddress] = c
	})
	return all
}

func messages(m *api.Message) Messages {
	return Messages{Open: m.GetOpen(), Update: m.GetUpdate(), Notification: m.GetNotification(), Keepalive: m.GetKeepalive(), Refresh: m.GetRefresh()}
}
