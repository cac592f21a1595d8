package bgp

import (
	"context"
	"errors"
	"slices"

	api "github.com/osrg/gobgp/v3/api"
)

// Configure makes o the speaker's options while it runs. Peers come, go and
// begin anew where they have changed; the sessions of the others stay. Where
// the AS, the router ID, the port or graceful restart has changed, all sessions
// begin anew. Where it fails, the options before it are in force.
func (s *Speaker) Configure(ctx context.Context, o Options) error {
	if err := o.check(); err != nil {
		return err
	}
	s.configuring.Lock()
	defer s.configuring.Unlock()
	s.mu.Lock()
	old := s.options
	s.mu.Unlock()
	switch {
	case !s.live:
		s.take(o)
		return nil
	case old.AS != o.AS, old.RouterID != o.RouterID, old.ListenPort != o.ListenPort, old.GracefulRestart != o.GracefulRestart,
		o.AS != 0 && s.crew == nil: // what was to come back did not
		return s.beginAnew(ctx, old, o)
	case s.crew == nil || slices.Equal(old.Peers, o.Peers):
		return nil
	}
	return s.changePeers(ctx, o)
}

// beginAnew ends all sessions and opens those of o.
func (s *Speaker) beginAnew(ctx context.Context, old, o Options) error {
	switch {
	case o.AS == 0:
		s.log.Info("BGP speaker ends, all sessions with it")
	case old.AS == 0:
		s.log.Info("BGP speaker begins", "as", o.AS, "router_id", o.RouterID, "listen_port", o.ListenPort)
	default:
		s.log.Warn("BGP speaker begins anew, all sessions with it", "as", o.AS, "router_id", o.RouterID, "listen_port", o.ListenPort,
			"graceful_restart", o.GracefulRestart)
	}
	err := s.stopLocked(ctx)
	s.take(o)
	if start := s.startLocked(ctx); start != nil {
		s.take(old)
		return errors.Join(err, start, s.startLocked(ctx))
	}
	return err
}

// changePeers ends the sessions of peers that o does not have so, and opens
// those that are new.
func (s *Speaker) changePeers(ctx context.Context, o Options) error {
	before := *s.gates.Load()
	named := func(name string) *gate {
		if i := slices.IndexFunc(before, func(g *gate) bool { return g.peer.Name == name }); i >= 0 {
			return before[i]
		}
		return nil
	}
	var kept, gone []*gate
	for _, g := range before {
		if slices.Contains(o.Peers, g.peer) {
			kept = append(kept, g)
		} else {
			gone = append(gone, g)
		}
	}
	s.gates.Store(&kept) // nobody new comes to those that go
	s.close(ctx, gone)
	counted := map[string]PeerStats{}
	for _, g := range gone {
		counted[g.peer.Name] = s.peers.remove(g.i)
	}

	now := make([]*gate, len(o.Peers))
	var fresh []*gate
	for i, p := range o.Peers {
		if g := named(p.Name); g != nil && g.peer == p {
			now[i] = g
			continue
		}
		g := newGate(s, s.peers.free(), &o, p)
		s.peers.add(g.i, &p, counted[p.Name])
		now[i], fresh = g, append(fresh, g)
	}
	s.mu.Lock()
	s.options = o
	s.mu.Unlock()
	s.gates.Store(&now)
	for _, g := range gone {
		if !slices.ContainsFunc(fresh, func(n *gate) bool { return n.peer.Name == g.peer.Name }) {
			s.log.Info("BGP peer removed", "peer", g.peer.Name, "as", g.peer.AS)
		}
	}
	err := s.changePolicies(ctx, gone, fresh)
	for _, g := range fresh {
		what := "BGP peer added"
		if named(g.peer.Name) != nil {
			what = "BGP peer changed"
		}
		s.log.Info(what, "peer", g.peer.Name, "as", g.peer.AS)
		err = errors.Join(err, s.signListeners(&g.peer))
	}
	// Routes for chosen peers only must not reach those that came.
	s.mu.Lock()
	err = errors.Join(err, s.applyLocked(ctx))
	s.mu.Unlock()
	s.open(fresh)
	return errors.Join(err, s.monitored())
}

// close ends the sessions of gates, with a farewell to the peers.
func (s *Speaker) close(ctx context.Context, gates []*gate) {
	forget := func(g *gate) {
		// An error says that GoBGP does not know the peer, as none does that
		// was never reached.
		_ = s.server.DeletePeer(ctx, &api.DeletePeerRequest{Address: inside(g.i).String()})
	}
	for _, g := range gates {
		if _, established := s.peers.session(g.i); established {
			s.peers.broke(g.i, "the configuration has changed")
		}
		forget(g)
	}
	farewells(gates)
	for _, g := range gates {
		g.crew.stop()
		forget(g) // it may have been reached meanwhile
		s.peers.is(s.log, g.i, Idle)
		if err := s.unsignListeners(&g.peer); err != nil {
			s.log.Warn("the password of a BGP peer stays on the listening port", "peer", g.peer.Name, "error", err)
		}
	}
}
