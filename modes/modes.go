// Package modes has the forwarding modes: each says, as a packet.Rewrite, what
// is done to the packets of a flow.
//
//	dr       the packet goes to the real server's link address unchanged
//	nat      destination becomes the real server; replies come back through uvs
//	tun      the packet travels in a tunnel to the real server
//	fullnat  source and destination are replaced, so replies need no special route
//
// [New] builds the mode of one real server of one service and checks that it
// can work. A mode is one file here and one line in the list below.
package modes

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// builders lists every forwarding mode by its name in the configuration.
var builders = map[string]func(*Options) (lb.Mode, error){
	"dr":      newDR,
	"fullnat": newFullNAT,
	"nat":     newNAT,
	"tun":     newTUN,
}

// Options describe the real server that a mode is built for, and what the
// modes need of the director.
type Options struct {
	Listens    []lb.Listen // of the service
	RealServer netip.AddrPort
	Tunnel     Tunnel         // for tun
	Locals     []netip.Prefix // for fullnat: the LIPs of both families
}

// A Tunnel says how tun encapsulates.
type Tunnel struct {
	Kind     packet.EncapKind // NoEncap: IPIP
	Source   netip.Addr       // DIP, of the real server's family
	Port     uint16           // of GUE; 0: 6080
	Checksum bool             // of GUE and GRE
	Fragment bool             // too large packets of IPv4 are fragmented outside, not refused
}

// New builds the mode called name, or says why the real server cannot have it.
func New(name string, o Options) (lb.Mode, error) {
	build, ok := builders[name]
	if !ok {
		return nil, fmt.Errorf("mode %q: none of %s", name, strings.Join(Names(), ", "))
	}
	m, err := build(&o)
	if err != nil {
		return nil, fmt.Errorf("real server %v: %w", o.RealServer, err)
	}
	return m, nil
}

// Names are the names of all modes, sorted.
func Names() []string { return slices.Sorted(maps.Keys(builders)) }

// ofFamily are the listens whose clients are of the real server's family.
func (o *Options) ofFamily() []lb.Listen {
	return slices.DeleteFunc(slices.Clone(o.Listens), func(l lb.Listen) bool {
		return l.VIP.Is4() != o.RealServer.Addr().Is4()
	})
}

// checkFamily refuses a real server that no listen could use.
func (o *Options) checkFamily(mode string) error {
	if len(o.Listens) > 0 && len(o.ofFamily()) == 0 {
		return fmt.Errorf("%s cannot carry packets to the other address family, and no listen is of its own", mode)
	}
	return nil
}

// checkPort refuses a real server with a port of its own among listens, for
// modes that change no port.
func (o *Options) checkPort(mode string, listens []lb.Listen) error {
	port := o.RealServer.Port()
	for _, l := range listens {
		switch {
		case port == 0 || port == l.FirstPort && l.LastPort <= l.FirstPort:
		case l.FirstPort == 0:
			return fmt.Errorf("%s keeps every port", mode)
		case l.LastPort > l.FirstPort:
			return fmt.Errorf("%s keeps ports %d-%d", mode, l.FirstPort, l.LastPort)
		default:
			return fmt.Errorf("%s keeps port %d", mode, l.FirstPort)
		}
	}
	return nil
}
