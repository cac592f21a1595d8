package bgp

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// serialized is a message as GoBGP writes it.
func serialized(t testing.TB, m *bgp.BGPMessage) message {
	t.Helper()
	b, err := m.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openMessage(t testing.TB, as uint16) message {
	return serialized(t, bgp.NewBGPOpenMessage(as, 300, "192.0.2.1", []bgp.OptionParameterInterface{
		bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{
			bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC), bgp.NewCapMultiProtocol(bgp.RF_IPv6_UC), bgp.NewCapFourOctetASNumber(uint32(as)), bgp.NewCapRouteRefresh(),
			bgp.NewCapExtendedNexthop([]*bgp.CapExtendedNexthopTuple{bgp.NewCapExtendedNexthopTuple(bgp.RF_IPv4_UC, bgp.AFI_IP6)}),
		}),
	}))
}

// updateMessage withdraws one prefix and announces five of both families.
func updateMessage(t testing.TB) message {
	return serialized(t, bgp.NewBGPUpdateMessage(
		[]*bgp.IPAddrPrefix{bgp.NewIPAddrPrefix(24, "198.51.100.0")},
		[]bgp.PathAttributeInterface{
			bgp.NewPathAttributeOrigin(0),
			bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{65000, 1})}),
			bgp.NewPathAttributeNextHop("192.0.2.1"),
			bgp.NewPathAttributeMpReachNLRI("2001:db8::1", []bgp.AddrPrefixInterface{
				bgp.NewIPv6AddrPrefix(64, "2001:db8:1::"), bgp.NewIPv6AddrPrefix(0, "::"), bgp.NewIPv6AddrPrefix(128, "2001:db8::2"),
			}),
		},
		[]*bgp.IPAddrPrefix{bgp.NewIPAddrPrefix(32, "203.0.113.1"), bgp.NewIPAddrPrefix(9, "10.0.0.0")},
	))
}

func TestMessagesAreRefused(t *testing.T) {
	keepalive := frame(bgp.BGP_MSG_KEEPALIVE)
	set := func(m message, i int, v ...byte) message {
		m = slices.Clone(m)
		copy(m[i:], v)
		return m
	}
	update := updateMessage(t)
	tests := []struct {
		name          string
		in            message
		code, subcode uint8
		says          string
	}{
		{name: "no marker", in: set(keepalive, 3, 0), code: 1, subcode: 1, says: "does not begin as one"},
		{name: "type 0", in: set(keepalive, 18, 0), code: 1, subcode: 3, says: "type 0"},
		{name: "type 6", in: set(keepalive, 18, 6), code: 1, subcode: 3, says: "type 6"},
		{name: "a KEEPALIVE with a body", in: frame(bgp.BGP_MSG_KEEPALIVE, 1), code: 1, subcode: 2, says: "length 20"},
		{name: "a length below the header's", in: set(keepalive, 16, 0, 18), code: 1, subcode: 2, says: "length 18"},
		{name: "a length beyond the longest", in: set(update, 16, 0x10, 1), code: 1, subcode: 2, says: "length 4097"},
		{name: "a short OPEN", in: frame(bgp.BGP_MSG_OPEN, 4, 0, 0), code: 1, subcode: 2, says: "length 22"},
		{name: "an OPEN with broken parameters", in: set(openMessage(t, 65000), 28, 255), code: 2, says: "OPEN"},
		{name: "withdrawn routes beyond the end", in: set(update, 19, 0x0f, 0xff), code: 3, subcode: 1, says: "lengths do not fit"},
		{name: "attributes beyond the end", in: frame(bgp.BGP_MSG_UPDATE, 0, 0, 0, 9, 0x40, 1, 1, 0), code: 3, subcode: 1, says: "lengths do not fit"},
		{name: "an attribute beyond the attributes", in: frame(bgp.BGP_MSG_UPDATE, 0, 0, 0, 4, 0x40, 1, 9, 0), code: 3, subcode: 1, says: "lengths do not fit"},
		{name: "a prefix beyond the end", in: frame(bgp.BGP_MSG_UPDATE, 0, 0, 0, 0, 24, 10, 0), code: 3, subcode: 1, says: "lengths do not fit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := judge(tt.in)
			r := new(refusal)
			if !errors.As(err, &r) {
				t.Fatalf("%v, want a refusal", err)
			}
			if r.code != tt.code || r.subcode != tt.subcode || !strings.Contains(r.Error(), tt.says) {
				t.Errorf("code %d.%d, %v; want %d.%d and %q", r.code, r.subcode, r, tt.code, tt.subcode, tt.says)
			}
			if n, err := readMessage(bytes.NewReader(r.notification()), make([]byte, bgp.BGP_MAX_MESSAGE_LENGTH)); err != nil || n.kind() != bgp.BGP_MSG_NOTIFICATION {
				t.Errorf("the peer is told %x: %v", r.notification(), err)
			}
		})
	}
}

// judge reads a message and does with it what a gate does.
func judge(in message) error {
	m, err := readMessage(bytes.NewReader(in), make([]byte, bgp.BGP_MAX_MESSAGE_LENGTH))
	if err != nil {
		return err
	}
	switch m.kind() {
	case bgp.BGP_MSG_OPEN:
		return checkOpen(m)
	case bgp.BGP_MSG_UPDATE:
		_, err := countPrefixes(m)
		return err
	case bgp.BGP_MSG_NOTIFICATION:
		farewell(m)
	case bgp.BGP_MSG_ROUTE_REFRESH:
		isRefresh(m)
	}
	return nil
}

func TestGoodMessagesAreTaken(t *testing.T) {
	for _, m := range []message{
		openMessage(t, 65000), updateMessage(t), frame(bgp.BGP_MSG_KEEPALIVE),
		serialized(t, bgp.NewBGPNotificationMessage(6, 2, []byte{3, 'b', 'y', 'e'})),
		serialized(t, bgp.NewBGPRouteRefreshMessage(bgp.AFI_IP, 0, bgp.SAFI_UNICAST)),
	} {
		if err := judge(m); err != nil {
			t.Errorf("type %d: %v", m.kind(), err)
		}
	}
}

func TestPrefixesAreCounted(t *testing.T) {
	if n, err := countPrefixes(updateMessage(t)); err != nil || n != 5 {
		t.Errorf("%d, %v; want 5", n, err)
	}
	end := frame(bgp.BGP_MSG_UPDATE, 0, 0, 0, 0)
	if n, err := countPrefixes(end); err != nil || n != 0 {
		t.Errorf("end of RIB: %d, %v", n, err)
	}
}

func TestFarewellsAreRead(t *testing.T) {
	for _, tt := range []struct {
		data []byte
		want string
	}{
		{[]byte{3, 'b', 'y', 'e'}, `("bye")`},
		{[]byte{200, 'b'}, "cease"}, // a length that lies
		{nil, "cease"},
	} {
		if got := farewell(serialized(t, bgp.NewBGPNotificationMessage(6, 2, tt.data))); !strings.Contains(got, tt.want) {
			t.Errorf("%q, want %q in it", got, tt.want)
		}
	}
}

// FuzzMessage: whatever a peer sends is taken or refused, and what is taken
// for an OPEN is one that GoBGP reads without a panic.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(openMessage(f, 65000)))
	f.Add([]byte(updateMessage(f)))
	f.Add([]byte(frame(bgp.BGP_MSG_NOTIFICATION, 6, 2, 3, 'b', 'y', 'e')))
	f.Add([]byte(frame(bgp.BGP_MSG_ROUTE_REFRESH, 0, 1, 0, 1)))
	families := map[bgp.RouteFamily]bgp.BGPAddPathMode{bgp.RF_IPv4_UC: bgp.BGP_ADD_PATH_NONE, bgp.RF_IPv6_UC: bgp.BGP_ADD_PATH_NONE}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := readMessage(bytes.NewReader(in), make([]byte, bgp.BGP_MAX_MESSAGE_LENGTH))
		if err != nil || judge(m) != nil {
			return
		}
		parsed, err := bgp.ParseBGPBody(&bgp.BGPHeader{Len: uint16(len(m)), Type: m.kind()}, m.body())
		if err != nil {
			if m.kind() == bgp.BGP_MSG_OPEN {
				t.Errorf("GoBGP does not read an OPEN that was taken: %v", err)
			}
			return
		}
		switch b := parsed.Body.(type) {
		case *bgp.BGPOpen:
			_, _ = bgp.ValidateOpenMsg(b, 65000, 65011, nil) // any error does: it is about panics
		case *bgp.BGPUpdate:
			// GoBGP gets none, but counts the same.
			if ok, _ := bgp.ValidateUpdateMsg(b, families, true, false, false); !ok {
				return
			}
			want := len(b.NLRI)
			for _, a := range b.PathAttributes {
				if mp, is := a.(*bgp.PathAttributeMpReachNLRI); is && mp.SAFI == bgp.SAFI_UNICAST {
					want += len(mp.Value)
				}
			}
			if n, err := countPrefixes(m); err != nil || n != want {
				t.Errorf("counted %d prefixes, %v; GoBGP finds %d", n, err, want)
			}
		}
	})
}
