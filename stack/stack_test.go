package stack

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/uvs-project/uvs/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parseEndpoint(s string) packet.Endpoint { return packet.EndpointFrom(netip.MustParseAddrPort(s)) }
