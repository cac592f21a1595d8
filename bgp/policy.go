package bgp

import (
	"context"
	"fmt"
	"net/netip"

	api "github.com/osrg/gobgp/v3/api"
)

// A route that is not for every peer carries a mark for each peer that is not
// to get it: a large community that only exists in the local table. The export
// policy refuses the route to the peers of its marks and takes the marks off
// for the others. So the choice is part of the route: when it changes, GoBGP
// finds by the old route's marks who must get a withdrawal.
const (
	markAdmin = 4294967295 // an AS that nobody can have (RFC 7300)
	markKind  = 0          // the number after it is the index of a peer
)

// setPolicies has every received route refused, and every route of our own
// exported as its marks and the peer's next hops say.
func (s *Speaker) setPolicies(ctx context.Context) error {
	const imports, exports, marks = "refuse what is received", "export", "marks"
	err := s.server.AddPolicy(ctx, &api.AddPolicyRequest{Policy: &api.Policy{Name: imports, Statements: []*api.Statement{{
		Name:       "accept our own",
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ACCEPT},
	}}}})
	if err != nil {
		return err
	}
	var statements []*api.Statement
	for i := range s.options.Peers {
		list, err := s.exportTo(ctx, i)
		if err != nil {
			return err
		}
		statements = append(statements, list...)
	}
	statements = append(statements, &api.Statement{
		Name: marks,
		Actions: &api.Actions{
			RouteAction:    api.RouteAction_ACCEPT,
			LargeCommunity: &api.CommunityAction{Type: api.CommunityAction_REMOVE, Communities: []string{fmt.Sprintf("^%d:%d:", uint32(markAdmin), markKind)}},
		},
	})
	if err := s.server.AddPolicy(ctx, &api.AddPolicyRequest{Policy: &api.Policy{Name: exports, Statements: statements}}); err != nil {
		return err
	}
	for _, a := range []*api.PolicyAssignment{
		{Direction: api.PolicyDirection_IMPORT, Policies: []*api.Policy{{Name: imports}}},
		{Direction: api.PolicyDirection_EXPORT, Policies: []*api.Policy{{Name: exports}}},
	} {
		a.Name, a.DefaultAction = "global", api.RouteAction_REJECT
		if err := s.server.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a}); err != nil {
			return err
		}
	}
	return nil
}

// exportTo are the statements for peer i.
func (s *Speaker) exportTo(ctx context.Context, i int) ([]*api.Statement, error) {
	p := &s.options.Peers[i]
	neighbor, mark := fmt.Sprintf("peer %d", i), fmt.Sprintf("not to peer %d", i)
	for _, set := range []*api.DefinedSet{
		{DefinedType: api.DefinedType_NEIGHBOR, Name: neighbor, List: []string{netip.PrefixFrom(inside(i), 32).String()}},
		{DefinedType: api.DefinedType_LARGE_COMMUNITY, Name: mark, List: []string{fmt.Sprintf("%d:%d:%d", uint32(markAdmin), markKind, i)}},
	} {
		if err := s.server.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set}); err != nil {
			return nil, err
		}
	}
	toPeer := &api.MatchSet{Type: api.MatchSet_ANY, Name: neighbor}
	list := []*api.Statement{{
		Name:       mark,
		Conditions: &api.Conditions{NeighborSet: toPeer, LargeCommunitySet: &api.MatchSet{Type: api.MatchSet_ANY, Name: mark}},
		Actions:    &api.Actions{RouteAction: api.RouteAction_REJECT},
	}}
	for _, hop := range []struct {
		of  *api.Family
		hop netip.Addr
	}{{ipv4Unicast, p.NextHop4}, {ipv6Unicast, p.NextHop6}} {
		if hop.hop.IsValid() {
			list = append(list, &api.Statement{
				Name:       fmt.Sprintf("%s: next hop of %v", neighbor, hop.of.Afi),
				Conditions: &api.Conditions{NeighborSet: toPeer, AfiSafiIn: []*api.Family{hop.of}},
				Actions:    &api.Actions{Nexthop: &api.NexthopAction{Address: hop.hop.String()}},
			})
		}
	}
	return list, nil
}
