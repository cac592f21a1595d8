package host

import (
	"net/netip"

	"github.com/uvs-project/uvs/packet"
)

// The policy rules, by their distance from Options.Preference. None leads back
// into the device what comes out of it. Ours stand after the kernel's table
// local (preference 0), so addresses of the host stay its own. Every packet that
// the host routes is compared with each of them, also those that uvs has nothing
// to do with, so there is one rule where one is enough.
const (
	prefVIP   = 0 // not iif uvs0 lookup the table of VIPs and LIPs
	prefSkip  = 1 // iif uvs0 goto base+9, where rules for replies follow
	prefReply = 2 // from RIP ipproto P sport N lookup the table of NAT replies
	prefMark  = 3 // fwmark M lookup the table of NAT replies: what a rule cannot recognise
	prefEnd   = 9 // nop, where the jump lands
	numPrefs  = 10
)

// A rule is one policy rule of ours; zero fields match everything.
type rule struct {
	family     uint8
	pref       int
	invert     bool // it is for what does not match
	iif        string
	src        netip.Addr
	proto      uint8
	sport      uint16
	mark, mask uint32
	table      int // 0 and no jump: nop
	jump       int // preference to go on at
}

// A route leads a destination into a device.
type route struct {
	dst   netip.Prefix
	table int
	link  int
}

// steering is what d needs in policy rules, in the order in which they may be
// added without a packet looping in between, and in routes into the device
// with index link. marks says that nftables marks what rules cannot recognise.
func steering(o Options, d *Desired, link int, marks bool) ([]rule, []route) {
	var rules []rule
	var routes []route
	for _, v := range d.VIPs {
		routes = append(routes, route{netip.PrefixFrom(v, v.BitLen()), o.Table, link})
	}
	for _, p := range d.LIPs {
		routes = append(routes, route{p, o.Table, link})
	}
	for _, family := range [...]uint8{packet.IPv4, packet.IPv6} {
		if !d.has(family) {
			continue
		}
		rules = append(rules, rule{family: family, pref: o.Preference + prefVIP, invert: true, iif: o.Device, table: o.Table})
		replies := d.repliesOf(family)
		if len(replies) == 0 {
			continue
		}
		rules = append(rules,
			rule{family: family, pref: o.Preference + prefEnd},
			rule{family: family, pref: o.Preference + prefSkip, iif: o.Device, jump: o.Preference + prefEnd})
		routes = append(routes, route{everything(family), o.Table + 1, link})
		if !marks || !tooManyRules(replies) {
			rules = append(rules, replyRules(o, replies, family, !marks)...)
		}
		if marks {
			rules = append(rules, rule{family: family, pref: o.Preference + prefMark, mark: o.Mark, mask: o.MarkMask, table: o.Table + 1})
		}
	}
	return rules, routes
}

// maxReplyRules is up to how many replies of a family each have a policy rule.
// The kernel compares every packet that it routes with each rule, some
// nanoseconds a time; beyond, nftables finds them in a set and marks them. Up
// to it rules are better: a flush of nftables does not take them away.
const maxReplyRules = 64

func tooManyRules(replies []Reply) bool { return len(replies) > maxReplyRules }

// replyRules picks the replies of balanced ports, so that other connections of
// a real server are not touched. Without marks (icmpToo) it picks all ICMP of
// the real servers too, because an error has no port; what belongs to no flow
// comes back to the kernel.
func replyRules(o Options, replies []Reply, family uint8, icmpToo bool) []rule {
	icmp := uint8(packet.ICMPv4)
	if family == packet.IPv6 {
		icmp = packet.ICMPv6
	}
	var rules []rule
	var last netip.Addr
	for _, r := range replies { // sorted by address
		to := rule{family: family, pref: o.Preference + prefReply, src: r.Addr, table: o.Table + 1}
		if icmpToo && r.Addr != last {
			last, to.proto = r.Addr, icmp
			rules = append(rules, to)
		}
		to.proto, to.sport = r.Proto, r.Port
		rules = append(rules, to)
	}
	return rules
}

func everything(family uint8) netip.Prefix {
	if family == packet.IPv4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// difference is what is to be added to have to make it want, in the order of
// want, and what is to be removed from it, in the order of have.
func difference[T comparable](have, want []T) (add, remove []T) {
	inHave := make(map[T]bool, len(have))
	for _, x := range have {
		inHave[x] = true
	}
	inWant := make(map[T]bool, len(want))
	for _, x := range want {
		inWant[x] = true
		if !inHave[x] {
			add = append(add, x)
		}
	}
	for _, x := range have {
		if !inWant[x] {
			remove = append(remove, x)
		}
	}
	return add, remove
}
