package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SourceFor is the address that the host would send from to dst, which is the
// default outer source of a tunnel (DIP).
func (h *Host) SourceFor(dst netip.Addr) (netip.Addr, error) {
	r, err := h.routeTo(dst)
	if err != nil {
		return netip.Addr{}, err
	}
	src, ok := netip.AddrFromSlice(r.Src)
	if !ok || !usable(src.Unmap()) {
		return netip.Addr{}, fmt.Errorf("the host has no address of its own to reach %v from: set addresses.tunnel_source, or ip addr add one to the device of the route", dst)
	}
	return src.Unmap(), nil
}

// PathMTU is the largest packet, in bytes, that the host's route to dst
// carries, with what the kernel or uvs has learned of the path. OnChange tells when
// to ask again.
func (h *Host) PathMTU(dst netip.Addr) (int, error) {
	r, err := h.routeTo(dst)
	if err != nil {
		return 0, err
	}
	link, err := h.nl.LinkByIndex(r.LinkIndex)
	if err != nil {
		return 0, fmt.Errorf("device of the route to %v: %w", dst, err)
	}
	mtu := link.Attrs().MTU
	for _, told := range []int{r.MTU, h.pathErrors.mtu(dst)} {
		if told != 0 {
			mtu = min(mtu, told)
		}
	}
	return mtu, nil
}

// CheckRoute says what keeps packets from a real server. direct asks for more:
// the real server must be on a link, as direct routing needs it.
func (h *Host) CheckRoute(rip netip.Addr, direct bool) error {
	r, err := h.routeTo(rip)
	if err != nil {
		return err
	}
	if r.LinkIndex == h.link {
		return fmt.Errorf("real server %v: the route to it leads into uvs itself, by device %s", rip, h.opt.Device)
	}
	if !direct {
		return nil
	}
	link, err := h.nl.LinkByIndex(r.LinkIndex)
	if err != nil {
		return fmt.Errorf("device of the route to %v: %w", rip, err)
	}
	name := link.Attrs().Name
	switch {
	case r.Type == unix.RTN_LOCAL:
		return fmt.Errorf("real server %v: is an address of this host, which direct routing cannot reach: use fullnat for it", rip)
	case r.Gw != nil || r.Via != nil:
		return fmt.Errorf("real server %v: is behind the gateway %v, but direct routing needs it on the same link: use tun or fullnat for it, or ip route add %v dev %s",
			rip, gatewayOf(&r), netip.PrefixFrom(rip, rip.BitLen()), name)
	case link.Attrs().EncapType != "ether":
		return fmt.Errorf("real server %v: device %s is not Ethernet, which direct routing needs: use tun or fullnat for it", rip, name)
	case rip.Is6() && !h.hasLinkLocal(link):
		return fmt.Errorf("real server %v: device %s has no IPv6 link-local address, from which the kernel asks for the real server's link address: ip link set %s addrgenmode eui64, or ip addr add fe80::1/64 dev %s",
			rip, name, name, name)
	}
	return nil
}

func (h *Host) hasLinkLocal(link netlink.Link) bool {
	addrs, err := dump(func() ([]netlink.Addr, error) { return h.nl.AddrList(link, netlink.FAMILY_V6) })
	return err != nil || slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() })
}

func gatewayOf(r *netlink.Route) any {
	if r.Gw != nil {
		return r.Gw
	}
	return r.Via
}

// routeTo asks the kernel for its route to dst.
func (h *Host) routeTo(dst netip.Addr) (netlink.Route, error) {
	routes, err := h.nl.RouteGet(dst.AsSlice())
	var why string
	switch {
	case errors.Is(err, unix.ENETUNREACH), err == nil && len(routes) == 0:
		why = "no route to"
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL):
		why = fmt.Sprintf("a route of this host refuses packets (%v) to", err)
	case err != nil:
		return netlink.Route{}, fmt.Errorf("route to %v: %w", dst, err)
	default:
		return routes[0], nil
	}
	return netlink.Route{}, fmt.Errorf("%s real server %v: add one with ip route add %v via GATEWAY, or dev DEVICE", why, dst, netip.PrefixFrom(dst, dst.BitLen()))
}

// Uplinks are the devices, by index, at which packets of clients and real
// servers arrive: Ethernet devices that are up, without the ports of bridges
// and bonds, whose packets arrive at the bridge or bond.
func (h *Host) Uplinks() ([]int, error) {
	links, err := dump(h.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the devices: %w", err)
	}
	ethernet := ethernetOf(links)
	var up []int
	for _, l := range links {
		if a := l.Attrs(); ethernet[a.Index] != nil && a.MasterIndex == 0 {
			up = append(up, a.Index)
		}
	}
	return up, nil
}
