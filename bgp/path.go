package bgp

import (
	"net/netip"
	"slices"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

var (
	ipv4Unicast = &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	ipv6Unicast = &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
)

func family(a netip.Addr) *api.Family {
	if a.Is4() {
		return ipv4Unicast
	}
	return ipv6Unicast
}

// path is the route as GoBGP takes it. Of peers that are not to get it, it
// carries the marks. s.mu is held.
func (s *Speaker) path(r *announced) (*api.Path, error) {
	nlri, err := anypb.New(&api.IPAddressPrefix{Prefix: r.Prefix.Addr().String(), PrefixLen: uint32(r.Prefix.Bits())})
	if err != nil {
		return nil, err
	}
	attrs := []proto.Message{&api.OriginAttribute{Origin: 0}, nextHop(&r.Route, nlri)} // origin IGP
	if r.Prepend > 0 {
		attrs = append(attrs, &api.AsPathAttribute{Segments: []*api.AsSegment{{
			Type: api.AsSegment_AS_SEQUENCE, Numbers: slices.Repeat([]uint32{s.options.AS}, r.Prepend),
		}}})
	}
	if r.MED != nil {
		attrs = append(attrs, &api.MultiExitDiscAttribute{Med: *r.MED})
	}
	if r.LocalPref != nil {
		attrs = append(attrs, &api.LocalPrefAttribute{LocalPref: *r.LocalPref})
	}
	if len(r.Communities) > 0 {
		list := make([]uint32, len(r.Communities))
		for i, c := range r.Communities {
			list[i] = uint32(c)
		}
		attrs = append(attrs, &api.CommunitiesAttribute{Communities: list})
	}
	if large := largeCommunities(r); len(large) > 0 {
		attrs = append(attrs, &api.LargeCommunitiesAttribute{Communities: large})
	}
	p := &api.Path{Family: family(r.Prefix.Addr()), Nlri: nlri, Identifier: r.PathID}
	for _, a := range attrs {
		packed, err := anypb.New(a)
		if err != nil {
			return nil, err
		}
		p.Pattrs = append(p.Pattrs, packed)
	}
	return p, nil
}

// nextHop is unspecified where each session has its own: GoBGP then takes the
// session's local address, unless the export policy says another.
func nextHop(r *Route, nlri *anypb.Any) proto.Message {
	hop := r.NextHop
	if r.Prefix.Addr().Is4() && (hop.Is4() || !hop.IsValid()) {
		if !hop.IsValid() {
			hop = netip.IPv4Unspecified()
		}
		return &api.NextHopAttribute{NextHop: hop.String()}
	}
	if !hop.IsValid() {
		hop = netip.IPv6Unspecified()
	}
	return &api.MpReachNLRIAttribute{Family: family(r.Prefix.Addr()), NextHops: []string{hop.String()}, Nlris: []*anypb.Any{nlri}}
}

func largeCommunities(r *announced) (list []*api.LargeCommunity) {
	for _, c := range r.LargeCommunities {
		list = append(list, &api.LargeCommunity{GlobalAdmin: c[0], LocalData1: c[1], LocalData2: c[2]})
	}
	for _, i := range r.marks {
		list = append(list, &api.LargeCommunity{GlobalAdmin: markAdmin, LocalData1: markKind, LocalData2: uint32(i)})
	}
	return list
}

// marks are the numbers of the peers that do not get a route.
func (s *Speaker) marks(r *Route) (list []int) {
	if r.Peers == nil {
		return nil
	}
	for _, g := range *s.gates.Load() {
		if !slices.Contains(r.Peers, g.peer.Name) {
			list = append(list, g.i)
		}
	}
	return list
}
