package replay

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A network is what the host knows of addresses, routes and neighbours.
type network struct {
	legs   map[string]*leg
	locals map[netip.Addr]bool
	routes []route
	pmtu   map[netip.Addr]int // what ICMP told of the path to an address
}

type leg struct {
	name  string
	mtu   int
	addrs []netip.Prefix
	neigh map[netip.Addr]string // to role
	roles map[string]string
	open  bool // every address is a neighbour, its role its address
}

// routeKind is what becomes of a packet that a route takes.
type routeKind uint8

const (
	unicast routeKind = iota
	local
	broadcast
	unreachable
	noRoute
)

type route struct {
	dst  netip.Prefix
	kind routeKind
	leg  *leg
	via  netip.Addr // invalid: the destination is on the link
	mtu  int        // 0: the leg's
}

// A hop is where a route leads to.
type hop struct {
	kind routeKind
	leg  *leg
	next netip.Addr
	mtu  int // of the route; 0: the leg's
}

func newNetwork(t *Topology) (*network, error) {
	n := &network{legs: map[string]*leg{}, locals: map[netip.Addr]bool{}, pmtu: map[netip.Addr]int{}}
	for _, l := range t.Legs {
		out := &leg{name: l.Name, mtu: l.MTU, neigh: map[netip.Addr]string{}, roles: l.Roles}
		for _, a := range l.Addrs {
			p, err := netip.ParsePrefix(a)
			if err != nil {
				return nil, fmt.Errorf("leg %s: %w", l.Name, err)
			}
			out.addrs = append(out.addrs, p)
			n.locals[p.Addr()] = true
			n.routes = append(n.routes, route{dst: p.Masked(), leg: out})
			if p.Addr().Is4() && p.Bits() < 31 {
				n.routes = append(n.routes, route{dst: netip.PrefixFrom(last(p), 32), kind: broadcast, leg: out})
			}
		}
		for a, role := range l.Neigh {
			addr, err := netip.ParseAddr(a)
			if err != nil {
				return nil, fmt.Errorf("leg %s: %w", l.Name, err)
			}
			out.neigh[addr] = role
		}
		n.legs[l.Name] = out
	}
	for _, a := range t.LocalAddrs {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return nil, fmt.Errorf("local address: %w", err)
		}
		n.locals[p.Addr()] = true
	}
	for _, r := range t.Routes {
		if err := n.addRoute(strings.Fields(r), strings.Contains(r, ":")); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// last is the broadcast address of a subnet.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// addRoute adds a route written as ip route has it: [TYPE] PREFIX [via A]
// [dev D].
func (n *network) addRoute(words []string, six bool) error {
	var r route
	whole := strings.Join(words, " ")
	bad := func(err error) error { return fmt.Errorf("route %q: %w", whole, err) }
	if len(words) > 0 {
		switch words[0] {
		case "local":
			r.kind, words = local, words[1:]
		case "unreachable":
			r.kind, words = unreachable, words[1:]
		case "unicast":
			words = words[1:]
		}
	}
	if len(words) == 0 {
		return bad(fmt.Errorf("no destination"))
	}
	var err error
	switch dst := words[0]; {
	case dst == "default" && six:
		r.dst = netip.MustParsePrefix("::/0")
	case dst == "default":
		r.dst = netip.MustParsePrefix("0.0.0.0/0")
	case strings.Contains(dst, "/"):
		if r.dst, err = netip.ParsePrefix(dst); err != nil {
			return bad(err)
		}
	default:
		a, err := netip.ParseAddr(dst)
		if err != nil {
			return bad(err)
		}
		r.dst = netip.PrefixFrom(a, a.BitLen())
	}
	for rest := words[1:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) < 2 {
			return bad(fmt.Errorf("%s without a value", rest[0]))
		}
		switch rest[0] {
		case "via":
			if r.via, err = netip.ParseAddr(rest[1]); err != nil {
				return bad(err)
			}
		case "mtu":
			if r.mtu, err = strconv.Atoi(rest[1]); err != nil {
				return bad(err)
			}
		case "dev":
			r.leg = n.legs[rest[1]]
			if r.leg == nil && rest[1] != "lo" {
				return bad(fmt.Errorf("no leg %s", rest[1]))
			}
		default:
			return bad(fmt.Errorf("%s is not known here", rest[0]))
		}
	}
	n.routes = append(n.routes, r)
	return nil
}

// lookup finds the way to dst: the longest prefix, the latest of equals.
func (n *network) lookup(dst netip.Addr) hop {
	if n.locals[dst] {
		return hop{kind: local}
	}
	best := -1
	found := hop{kind: noRoute}
	for _, r := range n.routes {
		if !r.dst.Contains(dst) || r.dst.Bits() < best {
			continue
		}
		best = r.dst.Bits()
		found = hop{kind: r.kind, leg: r.leg, next: dst, mtu: r.mtu}
		if r.via.IsValid() {
			found.next = r.via
		}
	}
	return found
}

// source is the address that the host sends from to dst, invalid where it has
// no way.
func (n *network) source(dst netip.Addr) netip.Addr {
	h := n.lookup(dst)
	if h.leg == nil {
		return netip.Addr{}
	}
	return h.leg.source(dst)
}

// any is one of the host's addresses of the family of like.
func (n *network) any(like netip.Addr) netip.Addr {
	for a := range n.locals {
		if a.Is4() == like.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// source is the leg's own address of the family, of the same subnet if there is
// one.
func (l *leg) source(like netip.Addr) (found netip.Addr) {
	for _, p := range l.addrs {
		if p.Addr().Is4() != like.Is4() {
			continue
		}
		if p.Contains(like) {
			return p.Addr()
		}
		if !found.IsValid() {
			found = p.Addr()
		}
	}
	return found
}

// mtu is what fits through h to dst.
func (n *network) mtu(h hop, dst netip.Addr) int {
	m := cmp.Or(h.mtu, h.leg.mtu)
	if told := n.pmtu[dst]; told > 0 {
		m = min(m, told)
	}
	return m
}

// role is the neighbour that h leads to.
func (h hop) role() string {
	if r := h.leg.neigh[h.next]; r != "" {
		return r
	}
	if h.leg.open {
		return h.next.String()
	}
	return "unknown MAC"
}

// setup does one shell line of a vector's set-up, of those that it knows:
//
//	ip [-6] route add|replace|change|del ROUTE
//	ip [-6] addr add PREFIX dev D
//	ip link set [dev] D mtu N
//	sysctl [-qw] PATH=VALUE
func (n *network) setup(line string, sysctl func(string) bool) error {
	f := strings.Fields(line)
	unknown := fmt.Errorf("set-up %q is not known here", line)
	if len(f) > 1 && f[0] == "sysctl" && sysctl(f[len(f)-1]) {
		return nil
	}
	if len(f) < 4 || f[0] != "ip" {
		return unknown
	}
	six := strings.Contains(line, ":") || f[1] == "-6"
	if strings.HasPrefix(f[1], "-") {
		f = f[1:]
	}
	what, how, rest := f[1], f[2], f[3:]
	switch {
	case what == "route" && how == "add":
		return n.addRoute(rest, six)
	case what == "route" && (how == "replace" || how == "change"):
		n.deleteRoute(rest, six)
		return n.addRoute(rest, six)
	case what == "route" && how == "del":
		n.deleteRoute(rest, six)
		return nil
	case strings.HasPrefix(what, "addr") && how == "add":
		p, err := netip.ParsePrefix(rest[0])
		if err != nil {
			return unknown
		}
		n.locals[p.Addr()] = true
		return nil
	case what == "link" && how == "set":
		rest = slices.DeleteFunc(rest, func(w string) bool { return w == "dev" })
		if len(rest) != 3 || rest[1] != "mtu" || n.legs[rest[0]] == nil {
			return unknown
		}
		n.legs[rest[0]].mtu = number(rest[2])
		return nil
	}
	return unknown
}

// deleteRoute takes away the routes to a destination.
func (n *network) deleteRoute(words []string, six bool) {
	var other network
	if len(words) == 0 || other.addRoute(words[:1], six) != nil {
		return
	}
	n.routes = slices.DeleteFunc(n.routes, func(r route) bool { return r.dst == other.routes[0].dst })
}

// number reads the value of a sysctl.
func number(s string) int {
	n, _ := strconv.Atoi(strings.TrimSpace(s))
	return n
}
