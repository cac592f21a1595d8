package bgp

import (
	"net/netip"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

const (
	addPathMax = 16 // paths of one prefix, more than a director has uplinks
	keepalives = 3  // in a hold time (RFC 4271 section 10)
)

// config is the peer as GoBGP takes it: one that connects to it from a loopback
// address. local is our end of the true connection.
func (g *gate) config(local netip.Addr) *api.Peer {
	p := &g.peer
	hold := seconds(p.HoldTime)
	a := &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: inside(g.i).String(), PeerAsn: p.AS, AuthPassword: g.s.secret},
		Transport: &api.Transport{
			PassiveMode: true, LocalAddress: local.String(),
			// GoBGP takes a connection on another address than LocalAddress
			// only with an interface, which a passive peer has no other use for.
			BindInterface: "lo",
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: hold, KeepaliveInterval: max(1, hold/keepalives), IdleHoldTimeAfterReset: 1,
		}},
	}
	if g.options.GracefulRestart > 0 {
		a.GracefulRestart = &api.GracefulRestart{Enabled: true, RestartTime: uint32(seconds(g.options.GracefulRestart))}
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
		if g.options.GracefulRestart > 0 {
			af.MpGracefulRestart = &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}}
		}
		a.AfiSafis = append(a.AfiSafis, af)
	}
	return a
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }
