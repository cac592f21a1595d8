package bgp

import (
	"net/netip"
	"slices"
)

// A Route is one prefix as it is announced. The zero value of each attribute
// leaves it out.
type Route struct {
	Prefix netip.Prefix

	// PathID tells routes of the same prefix apart, for peers with AddPath.
	// The others get one of them.
	PathID uint32

	// NextHop is where packets go, for every peer. Zero: as each Peer says.
	NextHop netip.Addr

	Communities      []Community
	LargeCommunities []LargeCommunity
	LocalPref        *uint32 // seen by iBGP peers only
	MED              *uint32
	Prepend          int // how often our AS is in the path besides once

	// Peers are the names of those that get the route. Nil: all do.
	Peers []string
}

// Community is a standard community (RFC 1997), its AS in the upper half.
type Community uint32

// The well-known communities of use to who announces.
const (
	GracefulShutdown  Community = 0xFFFF0000 // RFC 8326
	Blackhole         Community = 0xFFFF029A // RFC 7999
	NoExport          Community = 0xFFFFFF01
	NoAdvertise       Community = 0xFFFFFF02
	NoExportSubConfed Community = 0xFFFFFF03
	NoPeer            Community = 0xFFFFFF04 // RFC 3765
)

// LargeCommunity is a large community (RFC 8092): the AS of who defines it
// and two numbers of its own.
type LargeCommunity [3]uint32

// routeKey is what makes a route another one rather than a changed one.
type routeKey struct {
	prefix netip.Prefix
	pathID uint32
}

func (r *Route) key() routeKey { return routeKey{r.Prefix, r.PathID} }

// goesTo says whether a peer gets the route.
func (r *Route) goesTo(p *Peer) bool {
	return p.carries(r.Prefix.Addr()) && (r.Peers == nil || slices.Contains(r.Peers, p.Name))
}

// equal says whether two routes are announced alike.
func (r *Route) equal(s *Route) bool {
	return r.Prefix == s.Prefix && r.PathID == s.PathID && r.NextHop == s.NextHop &&
		slices.Equal(r.Communities, s.Communities) && slices.Equal(r.LargeCommunities, s.LargeCommunities) &&
		sameValue(r.LocalPref, s.LocalPref) && sameValue(r.MED, s.MED) && r.Prepend == s.Prepend &&
		(r.Peers == nil) == (s.Peers == nil) && slices.Equal(r.Peers, s.Peers)
}

func sameValue(a, b *uint32) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
