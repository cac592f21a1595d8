package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// applySteering adds what is missing before it removes what is too much: a
// reload must not leave a moment without steering.
func (h *Host) applySteering(d Desired) error {
	haveRules, err := h.ownRules()
	if err != nil {
		return err
	}
	haveRoutes, err := h.ownRoutes()
	if err != nil {
		return err
	}
	wantRules, wantRoutes := steering(h.opt, &d, h.link, h.nft != nil)
	addRoutes, delRoutes := difference(haveRoutes, wantRoutes)
	addRules, delRules := difference(haveRules, wantRules)

	var errs []error
	for _, r := range addRoutes {
		if err := h.nl.RouteReplace(h.netlinkRoute(r)); err != nil {
			errs = append(errs, fmt.Errorf("route %v into %s: %w", r.dst, h.opt.Device, err))
		}
	}
	for _, r := range addRules {
		if err := h.nl.RuleAdd(h.netlinkRule(r)); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("policy rule %s: %w", r, err))
		}
	}
	for _, r := range delRules {
		if err := h.nl.RuleDel(h.netlinkRule(r)); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove policy rule: %w: ip %s rule del %s", err, familyFlag(r.family), r))
		}
	}
	for _, r := range delRoutes {
		if err := h.nl.RouteDel(h.netlinkRoute(r)); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove route: %w: ip route del %v table %d", err, r.dst, r.table))
		}
	}
	return errors.Join(errs...)
}

// ownRules lists the rules that carry our protocol number and stand where ours do.
func (h *Host) ownRules() ([]rule, error) {
	all, err := listRules(h.nl)
	if err != nil {
		return nil, err
	}
	var own []rule
	for _, r := range all {
		if r.Protocol == h.opt.Protocol && r.Priority >= h.opt.Preference && r.Priority < h.opt.Preference+numPrefs {
			own = append(own, ruleFrom(&r))
		}
	}
	return own, nil
}

// listRules lists the rules of both families. netlink's own filter for the
// protocol has no effect, so callers compare it themselves.
func listRules(nl *netlink.Handle) ([]netlink.Rule, error) {
	var all []netlink.Rule
	for _, family := range [...]int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := dump(func() ([]netlink.Rule, error) { return nl.RuleList(family) })
		if err != nil && !noFamily(err) {
			return nil, fmt.Errorf("list policy rules: %w", err)
		}
		all = append(all, rules...)
	}
	return all, nil
}

// dumpTries bounds how often a listing is repeated because the table changed
// while the kernel listed it.
const dumpTries = 5

func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumpTries {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, err
}

// noFamily says that the kernel was built or started without the family.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

func ruleFrom(r *netlink.Rule) rule {
	out := rule{
		family: packet.IPv4,
		pref:   r.Priority,
		invert: r.Invert,
		iif:    r.IifName,
		proto:  uint8(r.IPProto),
		mark:   r.Mark,
		table:  r.Table,
	}
	if r.Family == netlink.FAMILY_V6 {
		out.family = packet.IPv6
	}
	if r.Src != nil {
		out.src, _ = netip.AddrFromSlice(r.Src.IP)
	}
	if r.Sport != nil {
		out.sport = r.Sport.Start
	}
	if r.Mask != nil {
		out.mask = *r.Mask
	}
	if r.Goto > 0 {
		out.jump = r.Goto
	}
	return out
}

func (h *Host) netlinkRule(r rule) *netlink.Rule {
	n := netlink.NewRule()
	n.Family = netlinkFamily(r.family)
	n.Priority, n.Invert, n.IifName, n.Table, n.IPProto, n.Protocol = r.pref, r.invert, r.iif, r.table, int(r.proto), h.opt.Protocol
	if r.src.IsValid() {
		n.Src = &net.IPNet{IP: r.src.AsSlice(), Mask: net.CIDRMask(r.src.BitLen(), r.src.BitLen())}
	}
	if r.sport != 0 {
		n.Sport = netlink.NewRulePortRange(r.sport, r.sport)
	}
	if r.mask != 0 {
		n.Mark, n.Mask = r.mark, &r.mask
	}
	if r.jump != 0 {
		n.Goto = r.jump
	}
	if r.table == 0 && r.jump == 0 {
		n.Type = actionNop
	}
	return n
}

const actionNop = 3 // FR_ACT_NOP of linux/fib_rules.h

// String is the rule as ip rule takes it.
func (r rule) String() string {
	s := fmt.Sprintf("pref %d", r.pref)
	if r.invert {
		s += " not"
	}
	if r.src.IsValid() {
		s += fmt.Sprintf(" from %v", r.src)
	}
	if r.iif != "" {
		s += " iif " + r.iif
	}
	if r.proto != 0 {
		s += fmt.Sprintf(" ipproto %d", r.proto)
	}
	if r.sport != 0 {
		s += fmt.Sprintf(" sport %d", r.sport)
	}
	if r.mask != 0 {
		s += fmt.Sprintf(" fwmark %#x/%#x", r.mark, r.mask)
	}
	switch {
	case r.jump != 0:
		return s + fmt.Sprintf(" goto %d", r.jump)
	case r.table != 0:
		return s + fmt.Sprintf(" lookup %d", r.table)
	}
	return s + " nop"
}

func familyFlag(family uint8) string { return fmt.Sprintf("-%d", family) }

func netlinkFamily(family uint8) int {
	if family == packet.IPv4 {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// ownRoutes lists the routes of our two tables.
func (h *Host) ownRoutes() ([]route, error) {
	all, err := h.tableRoutes()
	if err != nil {
		return nil, err
	}
	var own []route
	for _, r := range all {
		if r.protocol == h.opt.Protocol {
			own = append(own, r.route)
		}
	}
	return own, nil
}

// A markedRoute is a route with the number of the program that made it.
type markedRoute struct {
	route
	protocol uint8
}

// tableRoutes lists whatever stands in our two tables.
func (h *Host) tableRoutes() ([]markedRoute, error) {
	var all []markedRoute
	for _, family := range [...]uint8{packet.IPv4, packet.IPv6} {
		for _, table := range [...]int{h.opt.Table, h.opt.Table + 1} {
			routes, err := dump(func() ([]markedRoute, error) { return h.dumpTable(family, table) })
			if err != nil && !noFamily(err) && !errors.Is(err, unix.ENOENT) { // ENOENT: no such table
				return nil, fmt.Errorf("list routes of table %d: %w", table, err)
			}
			all = append(all, routes...)
		}
	}
	return all, nil
}

func (h *Host) dumpTable(family uint8, table int) ([]markedRoute, error) {
	msgs, err := tableRequest(h.strict, netlinkFamily(family), table).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
	if err != nil {
		return nil, err
	}
	var all []markedRoute
	for _, m := range msgs {
		if r, ok := parseRoute(m); ok && r.table == table { // a kernel before 4.20 lists all tables
			all = append(all, markedRoute{route{r.dst, table, r.hops[0].link}, r.protocol})
		}
	}
	return all, nil
}

func (h *Host) netlinkRoute(r route) *netlink.Route {
	return &netlink.Route{
		LinkIndex: r.link,
		Dst:       &net.IPNet{IP: r.dst.Addr().AsSlice(), Mask: net.CIDRMask(r.dst.Bits(), r.dst.Addr().BitLen())},
		Table:     r.table,
		Scope:     netlink.SCOPE_LINK,
		Protocol:  netlink.RouteProtocol(h.opt.Protocol),
	}
}
