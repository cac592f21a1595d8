package replay

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/uvs-project/uvs/config/compat"
)

// Inapplicable says why a vector is of a kind that uvs has nothing to do with,
// or "".
func Inapplicable(v *Vector) string {
	for _, c := range v.commands() {
		switch {
		case c.Op == compat.StartDaemon || c.Op == compat.StopDaemon:
			return "the multicast synchronisation daemon is not part of uvs"
		case c.Service != nil && c.Service.Mark != 0 && v.has("inject") && len(v.markings()) == 0:
			return "firewall marks that are set otherwise than by nftables"
		case c.Service != nil && c.Service.Mark != 0 && slices.ContainsFunc(v.Setup, routesByMark):
			return "routes by firewall marks, which uvs has listens for instead"
		case c.Service != nil && c.Service.Mark != 0 && c.Server.Addr.Port() != 0 && c.Server.Forward != compat.Masq:
			return "a real server of a firewall mark in dr or tun with a port of its own"
		case (c.Op == compat.AddServer || c.Op == compat.EditServer) && isDirector(c.Server.Addr.Addr()):
			return "a real server on the director itself"
		}
	}
	return ""
}

type command = compat.Command

// lines are all that ipvsadm is told.
func (v *Vector) lines() []string {
	lines := slices.Clone(v.Rules)
	for _, s := range v.Steps {
		if s.Op == "ipvsadm" {
			lines = append(lines, s.Cmd)
		}
	}
	return lines
}

// commands are those of the vector that can be read.
func (v *Vector) commands() (all []*command) {
	for _, l := range v.lines() {
		if c, err := compat.Parse(compat.Split(l)); err == nil {
			all = append(all, c)
		}
	}
	return all
}

// has says whether a step of v is such.
func (v *Vector) has(op string) bool {
	return slices.ContainsFunc(v.Steps, func(s Step) bool { return s.Op == op })
}

// isDirector says whether the address is the director's in the network of the
// recordings, or a loopback.
func isDirector(a netip.Addr) bool {
	s := a.String()
	return a.IsLoopback() || strings.HasPrefix(s, "192.0.2.") || strings.HasPrefix(s, "2001:db8:ff:") ||
		slices.Contains([]string{"10.1.0.1", "10.2.0.1", "10.4.0.1", "2001:db8:1::1", "2001:db8:2::1", "2001:db8:4::1"}, s)
}
