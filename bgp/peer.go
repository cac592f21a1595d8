package bgp

import (
	"net/netip"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

const (
	gtsmTTL    = 255 // what a peer with TTL security sends (RFC 5082)
	addPathMax = 16  // paths of one prefix, more than a director has uplinks
	keepalives = 3   // in a hold time (RFC 4271 section 10)
)

// peer is p, which is at an address, as GoBGP takes it.
func (s *Speaker) peer(p *Peer, at netip.Addr) *api.Peer {
	hold := seconds(p.HoldTime)
	a := &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: at.String(), PeerAsn: p.AS, AuthPassword: p.Password},
		Transport: &api.Transport{PassiveMode: p.Passive, RemotePort: uint32(p.Port), BindInterface: at.Zone()},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: hold, KeepaliveInterval: max(1, hold/keepalives), ConnectRetry: seconds(p.ConnectRetry),
			IdleHoldTimeAfterReset: 1,
		}},
	}
	switch {
	case p.LocalAddress.IsValid():
		a.Transport.LocalAddress = p.LocalAddress.String()
	case at.Zone() != "":
		// By default GoBGP looks for the local end's address, finds it with
		// its zone, and announces a next hop of zero.
		a.Transport.LocalAddress = netip.IPv6Unspecified().String()
	}
	switch {
	case p.TTLSecurity:
		a.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: uint32(p.minTTL())}
	case p.Multihop > 0:
		a.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(p.Multihop)}
	}
	if s.options.GracefulRestart > 0 {
		a.GracefulRestart = &api.GracefulRestart{Enabled: true, RestartTime: uint32(seconds(s.options.GracefulRestart))}
	}
	for _, f := range []struct {
		family  *api.Family
		carries bool
	}{{ipv4Unicast, p.IPv4}, {ipv6Unicast, p.IPv6}} {
		if !f.carries {
			continue
		}
		af := &api.AfiSafi{Config: &api.AfiSafiConfig{Family: f.family, Enabled: true}}
		if p.AddPath {
			af.AddPaths = &api.AddPaths{Config: &api.AddPathsConfig{SendMax: addPathMax}}
		}
		if p.MaxReceived > 0 {
			af.PrefixLimits = &api.PrefixLimit{Family: f.family, MaxPrefixes: uint32(p.MaxReceived)}
		}
		if s.options.GracefulRestart > 0 {
			af.MpGracefulRestart = &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}}
		}
		a.AfiSafis = append(a.AfiSafis, af)
	}
	return a
}

// minTTL is the least TTL of a packet that came over no more hops than it may.
func (p *Peer) minTTL() int { return gtsmTTL - max(p.Multihop, 1) + 1 }

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }
