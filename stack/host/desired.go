package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/uvs-project/uvs/packet"
)

// Desired is all that the balancer wants of the host.
type Desired struct {
	VIPs    []netip.Addr   // every virtual address
	LIPs    []netip.Prefix // FullNAT pools
	Replies []Reply        // what the real servers of nat answer from
	OnLink  []netip.Addr   // the real servers of dr, whose frames go to their link address
	LAN     LAN

	// FromVIPs says that packets from VIPs to the host itself come in by other
	// devices than ours: the real servers of dr and tun answer its own
	// connections to VIPs, such as health checks.
	FromVIPs bool
}

// A Reply names the packets that a real server of a nat service answers with.
type Reply struct {
	Addr  netip.Addr // RIP
	Proto uint8      // packet.TCP, UDP or SCTP; ESP or AH with Port 0
	Port  uint16     // 0: every port
}

// A LAN says where VIPs and LIPs are announced to hosts on the same link, which
// is needed where no router learns them by BGP.
type LAN struct {
	Announce   bool
	Interfaces []string // the only ones to announce on; empty: each address on the interfaces whose subnet it lies in

	Silent []netip.Addr // VIPs that are never announced; Host.Silence is for those that come back
}

// normalised is d without duplicates and in a fixed order, in memory of its own.
func (d Desired) normalised() Desired {
	d.VIPs = sortedUnique(d.VIPs, netip.Addr.Compare)
	d.OnLink = sortedUnique(d.OnLink, netip.Addr.Compare)
	d.LIPs = slices.Clone(d.LIPs)
	for i, p := range d.LIPs {
		d.LIPs[i] = p.Masked()
	}
	d.LIPs = sortedUnique(d.LIPs, comparePrefix)
	d.Replies = sortedUnique(d.Replies, Reply.compare)
	d.LAN.Interfaces = slices.Clone(d.LAN.Interfaces)
	d.LAN.Silent = slices.Clone(d.LAN.Silent)
	return d
}

func sortedUnique[T comparable](s []T, compare func(a, b T) int) []T {
	s = slices.Clone(s)
	slices.SortFunc(s, compare)
	return slices.Compact(s)
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

func (r Reply) compare(o Reply) int {
	if c := r.Addr.Compare(o.Addr); c != 0 {
		return c
	}
	if r.Proto != o.Proto {
		return int(r.Proto) - int(o.Proto)
	}
	return int(r.Port) - int(o.Port)
}

// has says whether d steers anything of the family.
func (d *Desired) has(family uint8) bool {
	of := func(a netip.Addr) bool { return familyOf(a) == family }
	return slices.ContainsFunc(d.VIPs, of) ||
		slices.ContainsFunc(d.LIPs, func(p netip.Prefix) bool { return of(p.Addr()) }) ||
		slices.ContainsFunc(d.Replies, func(r Reply) bool { return of(r.Addr) })
}

func (d *Desired) repliesOf(family uint8) []Reply {
	var rs []Reply
	for _, r := range d.Replies {
		if familyOf(r.Addr) == family {
			rs = append(rs, r)
		}
	}
	return rs
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return packet.IPv4
	}
	return packet.IPv6
}

// A localAddr is an address that the host itself has.
type localAddr struct {
	prefix netip.Prefix
	iface  string
}

// faults are all reasons why d cannot work on a host with these addresses.
func (d *Desired) faults(local []localAddr) error {
	var errs []error
	owner, broadcast := make(map[netip.Addr]localAddr, len(local)), make(map[netip.Addr]localAddr)
	for _, l := range local {
		owner[l.prefix.Addr()] = l
		if l.prefix.Addr().Is4() && l.prefix.Bits() < 31 { // fib_add_ifaddr
			broadcast[lastAddr(l.prefix)] = l
		}
	}
	for _, v := range d.VIPs {
		switch {
		case !usable(v):
			errs = append(errs, fmt.Errorf("VIP %v: not an address that a host can have", v))
		case owner[v].iface != "":
			errs = append(errs, fmt.Errorf("VIP %v: is an address of this host on %s, which keeps its packets from uvs: ip addr del %v dev %s",
				v, owner[v].iface, owner[v].prefix, owner[v].iface))
		case broadcast[v].iface != "":
			errs = append(errs, fmt.Errorf("VIP %v: is the broadcast address of %v on %s, which keeps its packets from uvs: choose another VIP",
				v, broadcast[v].prefix.Masked(), broadcast[v].iface))
		}
	}
	for _, p := range d.LIPs {
		if !usable(p.Addr()) && !usable(p.Addr().Next()) {
			errs = append(errs, fmt.Errorf("fullnat pool %v: not addresses that a host can have", p))
		}
		for _, l := range local {
			if p.Contains(l.prefix.Addr()) {
				errs = append(errs, fmt.Errorf("fullnat pool %v: %v is an address of this host on %s, replies to it would not reach uvs: choose another pool, or ip addr del %v dev %s",
					p, l.prefix.Addr(), l.iface, l.prefix, l.iface))
			}
		}
		for _, v := range d.VIPs {
			if p.Contains(v) {
				errs = append(errs, fmt.Errorf("fullnat pool %v: contains the VIP %v", p, v))
			}
		}
	}
	for _, r := range d.Replies {
		switch {
		case !usable(r.Addr):
			errs = append(errs, fmt.Errorf("real server %v: not an address that a host can have", r.Addr))
		case owner[r.Addr].iface != "":
			errs = append(errs, fmt.Errorf("real server %v: is an address of this host on %s, and nat cannot see the replies of a real server on the director: use fullnat",
				r.Addr, owner[r.Addr].iface))
		}
	}
	return errors.Join(errs...)
}

// usable says whether a can be the source of a packet that routers forward.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() &&
		!a.IsLinkLocalUnicast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
