package bgp

import (
	"testing"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// FuzzHostileMessage puts the bytes of a hostile peer through what GoBGP does
// with them before its own tables: a panic there would end the director.
func FuzzHostileMessage(f *testing.F) {
	open := bgp.NewBGPOpenMessage(65000, 9, "192.0.2.1", []bgp.OptionParameterInterface{
		bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{
			bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC), bgp.NewCapFourOctetASNumber(65000), bgp.NewCapRouteRefresh(),
			bgp.NewCapExtendedNexthop([]*bgp.CapExtendedNexthopTuple{bgp.NewCapExtendedNexthopTuple(bgp.RF_IPv4_UC, bgp.AFI_IP6)}),
		}),
	})
	update := bgp.NewBGPUpdateMessage(
		[]*bgp.IPAddrPrefix{bgp.NewIPAddrPrefix(24, "198.51.100.0")},
		[]bgp.PathAttributeInterface{
			bgp.NewPathAttributeOrigin(0),
			bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{65000, 1})}),
			bgp.NewPathAttributeNextHop("192.0.2.1"),
			bgp.NewPathAttributeCommunities([]uint32{1, 2}),
			bgp.NewPathAttributeMpReachNLRI("2001:db8::1", []bgp.AddrPrefixInterface{bgp.NewIPv6AddrPrefix(64, "2001:db8:1::")}),
			bgp.NewPathAttributeExtendedCommunities([]bgp.ExtendedCommunityInterface{bgp.NewTwoOctetAsSpecificExtended(bgp.EC_SUBTYPE_ROUTE_TARGET, 1, 2, true)}),
			bgp.NewPathAttributeAggregator(uint32(65000), "192.0.2.1"),
		},
		[]*bgp.IPAddrPrefix{bgp.NewIPAddrPrefix(32, "203.0.113.1")},
	)
	for _, m := range []*bgp.BGPMessage{
		open, update, bgp.NewBGPKeepAliveMessage(), bgp.NewBGPNotificationMessage(6, 2, []byte{3, 'b', 'y', 'e'}),
		bgp.NewBGPRouteRefreshMessage(bgp.AFI_IP, 0, bgp.SAFI_UNICAST),
	} {
		b, err := m.Serialize()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[bgp.BGP_HEADER_LENGTH:], m.Header.Type)
	}
	families := map[bgp.RouteFamily]bgp.BGPAddPathMode{bgp.RF_IPv4_UC: bgp.BGP_ADD_PATH_NONE, bgp.RF_IPv6_UC: bgp.BGP_ADD_PATH_NONE}
	f.Fuzz(func(t *testing.T, body []byte, kind uint8) {
		if len(body) > bgp.BGP_MAX_MESSAGE_LENGTH-bgp.BGP_HEADER_LENGTH {
			return
		}
		h := &bgp.BGPHeader{Len: uint16(len(body) + bgp.BGP_HEADER_LENGTH), Type: kind}
		m, err := bgp.ParseBGPBody(h, body)
		if err != nil || m == nil {
			return
		}
		_ = bgp.ValidateBGPMessage(m) // any error does: it is about panics
		switch b := m.Body.(type) {
		case *bgp.BGPOpen:
			_, _ = bgp.ValidateOpenMsg(b, 65000, 65011, nil)
		case *bgp.BGPUpdate:
			_, _ = bgp.ValidateUpdateMsg(b, families, true, false, false)
		}
	})
}
