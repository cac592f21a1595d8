package bgp

import (
	"context"
	"fmt"
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

// retryAfter is how long a session that BFD closed stays so while BFD does not
// find the peer. Then BGP tries by itself: a router may speak BFD only to
// peers that it has a session with, or no longer.
const retryAfter = 5 * time.Second

// watchBFD closes the sessions of peers that BFD loses, until ctx ends.
func (s *Speaker) watchBFD(ctx context.Context) error {
	failures := map[string]uint64{}
	closed := map[string]time.Time{} // when, by name
	retry := time.NewTicker(retryAfter / 5)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.monitor.Changed():
		case <-retry.C:
		}
		for _, b := range s.monitor.Stats() {
			key := s.peers.keyOf(b.Name)
			if key == "" {
				continue
			}
			if b.Failures != failures[b.Name] {
				failures[b.Name] = b.Failures
				s.peers.broke(key, fmt.Sprintf("BFD: %v", b.Diag))
				if _, already := closed[b.Name]; !already {
					s.setEnabled(ctx, key, false)
				}
				closed[b.Name] = time.Now()
			}
			if since, is := closed[b.Name]; is && (b.State == bfd.Up || time.Since(since) > retryAfter) {
				s.setEnabled(ctx, key, true)
				delete(closed, b.Name)
			}
		}
	}
}

// setEnabled opens or closes the session of the peer with a key.
func (s *Speaker) setEnabled(ctx context.Context, key string, enabled bool) {
	var err error
	if enabled {
		err = s.server.EnablePeer(ctx, &api.EnablePeerRequest{Address: key})
	} else {
		err = s.server.DisablePeer(ctx, &api.DisablePeerRequest{Address: key, Communication: "BFD down"})
	}
	if err != nil && ctx.Err() == nil {
		s.log.Error("BGP session cannot be switched", "peer", key, "enabled", enabled, "error", err)
	}
}

// monitored tells BFD whom to watch: peers whose address is known.
func (s *Speaker) monitored() error {
	var list []bfd.Peer
	for i := range s.options.Peers {
		p := &s.options.Peers[i]
		addr := s.peers.address(i)
		if p.BFD == (BFD{}) || !addr.IsValid() {
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
