package bgp

import (
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"

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
	Refused   uint64    // prefixes that it announced, all of which are refused
	Sent      Messages
	Received  Messages
	LastError string // why there is no session, or why there was none; empty if there always was

	BFD *bfd.PeerStats // nil: none. AdminDown while there is no session
}

func (m *Messages) count(kind uint8) {
	switch kind {
	case bgp.BGP_MSG_OPEN:
		m.Open++
	case bgp.BGP_MSG_UPDATE:
		m.Update++
	case bgp.BGP_MSG_NOTIFICATION:
		m.Notification++
	case bgp.BGP_MSG_KEEPALIVE:
		m.Keepalive++
	case bgp.BGP_MSG_ROUTE_REFRESH:
		m.Refresh++
	}
}

// Stats is what the speaker does now. It may be called at any time, and waits
// for nothing.
func (s *Speaker) Stats() Stats {
	liveness := map[string]bfd.PeerStats{}
	for _, b := range s.monitor.Known() {
		liveness[b.Name] = b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	st := Stats{BFDInvalid: s.monitor.Invalid()}
	gates := *s.gates.Load()
	for _, g := range gates {
		ps := s.peers.of(g.i).PeerStats
		if g.peer.BFD != (BFD{}) {
			b := liveness[ps.Peer]
			ps.BFD = &b
		}
		st.Peers = append(st.Peers, ps)
	}
	for _, r := range s.announced {
		rs := RouteStats{Prefix: r.Prefix}
		for i, g := range gates {
			if st.Peers[i].State == Established && r.goesTo(&g.peer) {
				st.Peers[i].Announced++
				rs.Peers++
			}
		}
		st.Routes = append(st.Routes, rs)
	}
	slices.SortFunc(st.Routes, func(a, b RouteStats) int { return a.Prefix.Compare(b.Prefix) })
	return st
}
