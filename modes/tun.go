package modes

import (
	"errors"
	"fmt"
	"slices"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// tun is tunnelling: the packet travels unchanged inside a packet from the
// director to the real server, which unpacks it, has the VIP on a loopback and
// answers by itself.
//
// Invariant: no byte of the inner packet changes, so the real server's port
// must be the service's; newTUN checks it.
type tun struct{ encap packet.Encap }

var _ lb.Mode = tun{}

// defaultGUEPort is the one of IANA's registry.
const defaultGUEPort = 6080

func newTUN(o *Options) (lb.Mode, error) {
	if err := o.checkPort("tun", o.Listens); err != nil {
		return nil, err
	}
	rip, dip := o.RealServer.Addr(), o.Tunnel.Source
	if !dip.IsValid() {
		return nil, errors.New("tun has no source address for its tunnel")
	}
	if dip.Is4() != rip.Is4() {
		return nil, fmt.Errorf("tun cannot send from %v to the other address family", dip)
	}
	m := tun{packet.Encap{Kind: o.Tunnel.Kind, Checksum: o.Tunnel.Checksum, Fragment: o.Tunnel.Fragment}}
	m.encap.Src, m.encap.Family = packet.AddrFrom(dip)
	m.encap.Dst, _ = packet.AddrFrom(rip)
	switch m.encap.Kind {
	case packet.NoEncap:
		m.encap.Kind = packet.IPIP
	case packet.GUE:
		m.encap.Port = defaultGUEPort
		if o.Tunnel.Port != 0 {
			m.encap.Port = o.Tunnel.Port
		}
	}
	if m.encap.Kind == packet.IPIP && m.encap.Checksum {
		return nil, errors.New("an ipip tunnel has no checksum")
	}
	if m.encap.Kind != packet.GUE && o.Tunnel.Port != 0 {
		return nil, errors.New("only a gue tunnel has a port")
	}
	if !slices.Contains([]packet.EncapKind{packet.IPIP, packet.GUE, packet.GRE}, m.encap.Kind) {
		return nil, fmt.Errorf("tunnel kind %d is none of ipip, gue, gre", m.encap.Kind)
	}
	return m, nil
}

func (tun) String() string                          { return "tun" }
func (tun) Crosses() bool                           { return true }
func (tun) Local(lb.Flow, int) (uint32, bool)       { return 0, true }
func (tun) ReplyTuple(lb.Flow) (packet.Tuple, bool) { return packet.Tuple{}, false }

func (m tun) Rewrite(_ *lb.Flow, d lb.Direction, rw *packet.Rewrite) {
	if d == lb.Reply {
		*rw = packet.NoReply
		return
	}
	rw.Encap = m.encap
}
