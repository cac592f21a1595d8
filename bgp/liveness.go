package bgp

import (
	"context"
	"fmt"
	"slices"
	"time"

	api "github.com/osrg/gobgp/v3/api"

	"github.com/uvs-project/uvs/bgp/bfd"
)

// BFD has a session closed as soon as the peer is lost, which the hold time
// alone tells only after seconds. Zero: no BFD.
type BFD struct {
	Interval   time.Duration // between packets
	Multiplier int           // lost ones in a row that mean a lost peer
}

const (
	// wordGrace is how long a peer may say that it does not hear us, while we
	// hear it. It closes its end by itself, so there is no hurry on ours, and
	// some only begin anew.
	wordGrace = 2 * time.Second

	lookEvery = 500 * time.Millisecond // after what no change tells
)

// A watch is what watchBFD has handled of one peer.
type watch struct{ lost, downs uint64 }

// watchBFD closes the sessions of peers that BFD loses, until ctx ends. BGP
// then tries to connect again, which BFD does not hinder: it runs while there
// is a session, so that a router that begins BFD with the session, as FRR does,
// does not take its own beginning for a failure.
func (s *Speaker) watchBFD(ctx context.Context) error {
	watches := map[string]*watch{} // by name
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.monitor.Changed():
		case <-look.C:
		}
		for _, b := range s.monitor.Stats() {
			w := watches[b.Name]
			if w == nil {
				w = &watch{}
				watches[b.Name] = w
			}
			if w.mustClose(&b, time.Now()) {
				s.closeLost(ctx, &b)
			}
		}
	}
}

// mustClose says whether BFD found the peer lost since the last call. That it
// does not run, or that the peer ended it on purpose, is no reason (RFC 5882
// section 4.2).
func (w *watch) mustClose(b *bfd.PeerStats, now time.Time) bool {
	if b.Lost != w.lost {
		w.lost, w.downs = b.Lost, b.Downs
		return true
	}
	told := b.State != bfd.Up && b.Remote != bfd.AdminDown // it is down, and the peer says why
	if b.Downs == w.downs || told && now.Sub(b.Since) < wordGrace {
		return false
	}
	w.downs = b.Downs
	return told
}

// closeLost closes the session of a peer that BFD lost.
func (s *Speaker) closeLost(ctx context.Context, b *bfd.PeerStats) {
	gates := *s.gates.Load()
	at := slices.IndexFunc(gates, func(g *gate) bool { return g.peer.Name == b.Name })
	if at < 0 {
		return // it was removed meanwhile
	}
	i := gates[at].i
	s.peers.broke(i, fmt.Sprintf("BFD: %v", b.Diag))
	if err := s.server.ResetPeer(ctx, &api.ResetPeerRequest{Address: inside(i).String(), Communication: "BFD down"}); err != nil && ctx.Err() == nil {
		s.log.Error("BGP session of a lost peer cannot be closed", "peer", b.Name, "error", err)
	}
}

// monitored tells BFD whom to watch: peers that there is a session with.
func (s *Speaker) monitored() error {
	s.watching.Lock()
	defer s.watching.Unlock()
	var list []bfd.Peer
	for _, g := range *s.gates.Load() {
		p := &g.peer
		addr, up := s.peers.session(g.i)
		if p.BFD == (BFD{}) || !up {
			continue
		}
		b := bfd.Peer{
			Name: p.Name, Address: addr, Local: p.LocalAddress, Multihop: p.Multihop > 0,
			Interval: p.BFD.Interval, Multiplier: uint8(p.BFD.Multiplier),
		}
		if p.TTLSecurity {
			b.MinTTL = p.minTTL()
		}
		list = append(list, b)
	}
	return s.monitor.Set(list)
}
