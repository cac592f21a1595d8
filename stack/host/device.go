package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sort"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

const (
	maxMTU = 65535 // what the host accepted arrives whole, whatever the MTU of the link it came by
	minMTU = 1280  // the least that IPv6 works with
)

// setUpDevice brings the TUN device up, without addresses.
func (h *Host) setUpDevice() error {
	link, err := h.nl.LinkByName(h.opt.Device)
	if err != nil {
		return fmt.Errorf("device %s: %w", h.opt.Device, err)
	}
	if link.Type() != "tuntap" {
		return fmt.Errorf("device %s is not a TUN device but a %s: choose another name for uvs", h.opt.Device, link.Type())
	}
	h.link = link.Attrs().Index
	if err := h.setMTU(link); err != nil {
		return fmt.Errorf("device %s: set the MTU: %w", h.opt.Device, err)
	}
	if err := h.nl.LinkSetTxQLen(link, h.opt.TxQueueLen); err != nil {
		return fmt.Errorf("device %s: set the queue length: %w", h.opt.Device, err)
	}
	const noAddress = 1 // IN6_ADDR_GEN_MODE_NONE
	if err := h.nl.LinkSetIP6AddrGenMode(link, noAddress); err != nil && !noFamily(err) {
		h.log.Debug("device keeps its IPv6 link-local address", "device", h.opt.Device, "error", err)
	}
	if err := h.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("device %s: %w", h.opt.Device, err)
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return h.nl.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("device %s: list addresses: %w", h.opt.Device, err)
	}
	for _, a := range addrs {
		if err := h.nl.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("device %s: remove address %v: %w", h.opt.Device, a.IPNet, err)
		}
	}
	return nil
}

// setMTU sets the largest MTU that the kernel takes.
func (h *Host) setMTU(link netlink.Link) error {
	err := h.nl.LinkSetMTU(link, maxMTU)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	over := sort.Search(maxMTU-minMTU, func(i int) bool { return h.nl.LinkSetMTU(link, minMTU+i) != nil })
	mtu := minMTU + over - 1
	if err := h.nl.LinkSetMTU(link, mtu); err != nil {
		return err
	}
	h.log.Warn("the device takes no packets of every size", "device", h.opt.Device, "mtu", mtu)
	return nil
}

// dummyAddress is the IPv4 dummy address (RFC 7600 4.8): never a source or
// destination of a packet.
var dummyAddress = netip.MustParsePrefix("192.0.0.8/32")

// addDummyAddress gives the device an address where the reverse path filter is
// on for all devices: on a device without one, the kernel (__fib_validate_source)
// drops all that is not routed to it, even if the filter is loose.
func (h *Host) addDummyAddress(d *Desired) error {
	if !d.has(packet.IPv4) {
		return nil
	}
	if all, err := h.sysctl.read(conf(packet.IPv4, "all", "rp_filter")); err != nil || all == 0 {
		return nil
	}
	link, err := h.nl.LinkByIndex(h.link)
	if err != nil {
		return fmt.Errorf("device %s: %w", h.opt.Device, err)
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: dummyAddress.Addr().AsSlice(), Mask: net.CIDRMask(32, 32)}, Scope: unix.RT_SCOPE_HOST}
	if err := h.nl.AddrAdd(link, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("device %s: add the address %v, for the reverse path filter: %w", h.opt.Device, dummyAddress, err)
	}
	return nil
}

// check finds the faults of d on this host.
func (h *Host) check(d Desired) error {
	local, err := h.localAddrs()
	if err != nil {
		return err
	}
	return d.faults(local)
}

func (h *Host) localAddrs() ([]localAddr, error) {
	addrs, err := dump(func() ([]netlink.Addr, error) { return h.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	names, err := h.linkNames()
	if err != nil {
		return nil, err
	}
	var local []localAddr
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		bits, _ := a.Mask.Size()
		local = append(local, localAddr{netip.PrefixFrom(ip.Unmap(), bits), names[a.LinkIndex]})
	}
	return local, nil
}

func (h *Host) linkNames() (map[int]string, error) {
	links, err := dump(h.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, nil
}
