package bgp

import (
	"context"
	"errors"
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
	markKind  = 0          // the number after it is that of a peer
)

// The names of the policies that are not a peer's.
const (
	importPolicy = "refuse what is received"
	marksPolicy  = "take the marks off"
)

// setPolicies has every received route refused, and every route of our own
// exported as its marks and the peer's next hops say: each peer has a policy,
// and the last one accepts what these leave.
func (s *Speaker) setPolicies(ctx context.Context, gates []*gate) error {
	for _, p := range []*api.Policy{
		{Name: importPolicy, Statements: []*api.Statement{{
			Name:       "accept our own",
			Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
			Actions:    &api.Actions{RouteAction: api.RouteAction_ACCEPT},
		}}},
		{Name: marksPolicy, Statements: []*api.Statement{{
			Name: marksPolicy,
			Actions: &api.Actions{
				RouteAction:    api.RouteAction_ACCEPT,
				LargeCommunity: &api.CommunityAction{Type: api.CommunityAction_REMOVE, Communities: []string{fmt.Sprintf("^%d:%d:", uint32(markAdmin), markKind)}},
			},
		}}},
	} {
		if err := s.server.AddPolicy(ctx, &api.AddPolicyRequest{Policy: p}); err != nil {
			return err
		}
	}
	if err := s.assign(ctx, api.PolicyDirection_IMPORT, importPolicy); err != nil {
		return err
	}
	return s.changePolicies(ctx, nil, gates)
}

// changePolicies takes away the policies of peers that are gone and adds those
// of peers that are new. The gates are those to be in force.
func (s *Speaker) changePolicies(ctx context.Context, gone, fresh []*gate) error {
	var errs []error
	for _, g := range fresh {
		errs = append(errs, g.addPolicy(ctx))
	}
	var names []string
	for _, g := range *s.gates.Load() {
		names = append(names, g.policyName())
	}
	errs = append(errs, s.assign(ctx, api.PolicyDirection_EXPORT, append(names, marksPolicy)...))
	for _, g := range gone {
		errs = append(errs, g.removePolicy(ctx))
	}
	return errors.Join(errs...)
}

// assign puts policies into force. What none of them decides is refused.
func (s *Speaker) assign(ctx context.Context, d api.PolicyDirection, names ...string) error {
	a := &api.PolicyAssignment{Name: "global", Direction: d, DefaultAction: api.RouteAction_REJECT}
	for _, name := range names {
		a.Policies = append(a.Policies, &api.Policy{Name: name})
	}
	return s.server.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a})
}

func (g *gate) policyName() string { return fmt.Sprintf("to peer %d", g.i) }

// sets are what the statements of the peer's policy refer to.
func (g *gate) sets() (neighbor, mark *api.DefinedSet) {
	return &api.DefinedSet{
			DefinedType: api.DefinedType_NEIGHBOR, Name: fmt.Sprintf("peer %d", g.i),
			List: []string{netip.PrefixFrom(inside(g.i), 32).String()},
		}, &api.DefinedSet{
			DefinedType: api.DefinedType_LARGE_COMMUNITY, Name: fmt.Sprintf("not to peer %d", g.i),
			List: []string{fmt.Sprintf("%d:%d:%d", uint32(markAdmin), markKind, g.i)},
		}
}

// addPolicy adds the policy of the peer, which is not in force by that.
func (g *gate) addPolicy(ctx context.Context) error {
	neighbor, mark := g.sets()
	for _, set := range []*api.DefinedSet{neighbor, mark} {
		if err := g.s.server.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set}); err != nil {
			return err
		}
	}
	toPeer := &api.MatchSet{Type: api.MatchSet_ANY, Name: neighbor.Name}
	statements := []*api.Statement{{
		Name:       mark.Name,
		Conditions: &api.Conditions{NeighborSet: toPeer, LargeCommunitySet: &api.MatchSet{Type: api.MatchSet_ANY, Name: mark.Name}},
		Actions:    &api.Actions{RouteAction: api.RouteAction_REJECT},
	}}
	for _, hop := range []struct {
		of  *api.Family
		hop netip.Addr
	}{{ipv4Unicast, g.peer.NextHop4}, {ipv6Unicast, g.peer.NextHop6}} {
		if hop.hop.IsValid() {
			statements = append(statements, &api.Statement{
				Name:       fmt.Sprintf("%s: next hop of %v", neighbor.Name, hop.of.Afi),
				Conditions: &api.Conditions{NeighborSet: toPeer, AfiSafiIn: []*api.Family{hop.of}},
				Actions:    &api.Actions{Nexthop: &api.NexthopAction{Address: hop.hop.String()}},
			})
		}
	}
	return g.s.server.AddPolicy(ctx, &api.AddPolicyRequest{Policy: &api.Policy{Name: g.policyName(), Statements: statements}})
}

// removePolicy removes the policy of the peer, which is not in force any more.
func (g *gate) removePolicy(ctx context.Context) error {
	err := g.s.server.DeletePolicy(ctx, &api.DeletePolicyRequest{Policy: &api.Policy{Name: g.policyName()}, All: true})
	neighbor, mark := g.sets()
	for _, set := range []*api.DefinedSet{neighbor, mark} {
		err = errors.Join(err, g.s.server.DeleteDefinedSet(ctx, &api.DeleteDefinedSetRequest{DefinedSet: set, All: true}))
	}
	return err
}
