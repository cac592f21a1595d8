package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

// maxAnnounced bounds the addresses that are announced on all LANs together.
// More need a route on the LAN's router, as they should have anyway.
const maxAnnounced = 4096

// A proxy is an address that the kernel answers for on a link, in ARP or
// neighbour discovery, though it is not the host's.
type proxy struct {
	link int
	addr netip.Addr
}

// A lan is an Ethernet device of the host that addresses may be announced on.
type lan struct {
	device
	subnets []netip.Prefix // that are on the link
}

// proxies is what d wants announced on these links.
func (d *Desired) proxies(lans []lan) ([]proxy, error) {
	if !d.LAN.Announce {
		return nil, nil
	}
	addrs, err := d.announced(lans)
	errs := []error{err}
	for _, name := range d.LAN.Interfaces {
		if !slices.ContainsFunc(lans, func(l lan) bool { return l.name == name }) {
			errs = append(errs, fmt.Errorf("announce on %s: there is no Ethernet device of that name that is up: ip link set %s up", name, name))
		}
	}
	var all []proxy
	for _, l := range lans {
		named := slices.Contains(d.LAN.Interfaces, l.name)
		for _, a := range addrs {
			if named || len(d.LAN.Interfaces) == 0 && l.has(a) {
				all = append(all, proxy{l.index, a})
			}
		}
	}
	if len(all) > maxAnnounced {
		errs = append(errs, fmt.Errorf("%d addresses are too many to be announced on a LAN, which %d at most can be: route them to this host and set lan.announce to off", len(all), maxAnnounced))
		all = all[:maxAnnounced]
	}
	return all, errors.Join(errs...)
}

func (l *lan) has(a netip.Addr) bool {
	return slices.ContainsFunc(l.subnets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// announced are the VIPs, but for the silent ones, and the single addresses of
// those pools that may be announced.
func (d *Desired) announced(lans []lan) ([]netip.Addr, error) {
	silent := make(map[netip.Addr]bool, len(d.LAN.Silent))
	for _, a := range d.LAN.Silent {
		silent[a] = true
	}
	addrs := slices.DeleteFunc(slices.Clone(d.VIPs), func(a netip.Addr) bool { return silent[a] })
	var errs []error
	for _, p := range d.LIPs {
		if len(d.LAN.Interfaces) == 0 && !slices.ContainsFunc(lans, func(l lan) bool { return l.has(p.Addr()) || l.has(lastAddr(p)) }) {
			continue
		}
		if p.Addr().BitLen()-p.Bits() > 12 { // 4096 addresses
			errs = append(errs, fmt.Errorf("fullnat pool %v: too large to be announced address by address on a LAN: route it to this host, or choose one of at most %d addresses", p, maxAnnounced))
			continue
		}
		for a := p.Addr(); p.Contains(a); a = a.Next() {
			addrs = append(addrs, a)
		}
	}
	return addrs, errors.Join(errs...)
}

// lans lists the Ethernet devices that are up, with their subnets.
func (h *Host) lans() ([]lan, error) {
	devices, err := ethernetDevices(h.nl)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	local, err := h.localAddrs()
	if err != nil {
		return nil, err
	}
	var lans []lan
	for _, d := range devices {
		l := lan{device: *d}
		for _, a := range local {
			if a.iface == d.name {
				l.subnets = append(l.subnets, a.prefix.Masked())
			}
		}
		lans = append(lans, l)
	}
	slices.SortFunc(lans, func(a, b lan) int { return a.index - b.index })
	return lans, nil
}

// Silence has just these of the VIPs not answered for on the LAN, for as long
// as it is not told otherwise, whatever Apply is given. One that is silent no
// longer is announced anew.
func (h *Host) Silence(vips []netip.Addr) error {
	vips = sortedUnique(vips, netip.Addr.Compare)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || slices.Equal(vips, h.silent) {
		return nil
	}
	h.silent = vips
	if !h.desired.LAN.Announce {
		return nil
	}
	lans, err := h.lans()
	if err != nil {
		return err
	}
	proxies, _ := h.desired.proxies(lans) // Apply has told what is wrong with them
	return h.applyLANLocked(h.audibleLocked(proxies), lans)
}

// audibleLocked are those of all that are not silent now.
func (h *Host) audibleLocked(all []proxy) []proxy {
	return slices.DeleteFunc(slices.Clone(all), func(p proxy) bool {
		_, silent := slices.BinarySearchFunc(h.silent, p.addr, netip.Addr.Compare)
		return silent
	})
}

// applyLANLocked makes the kernel answer for proxies, and no others of ours,
// and tells the LAN of those that it does not know from us.
func (h *Host) applyLANLocked(want []proxy, lans []lan) error {
	have, err := h.ownProxies()
	if err != nil {
		return err
	}
	add, remove := difference(have, want)
	var errs []error
	for _, p := range remove {
		if err := h.proxyRequest(unix.RTM_DELNEIGH, 0, p); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("stop to announce %v: %w: ip neigh del proxy %v dev %s", p.addr, err, p.addr, nameOf(lans, p.link)))
		}
	}
	for _, p := range add {
		if err := h.proxyRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, p); err != nil {
			errs = append(errs, fmt.Errorf("announce %v on %s: %w", p.addr, nameOf(lans, p.link), err))
		}
	}
	h.tellLANLocked(want, lans)
	return errors.Join(errs...)
}

func nameOf(lans []lan, link int) string {
	for _, l := range lans {
		if l.index == link {
			return l.name
		}
	}
	return fmt.Sprintf("device %d", link)
}

// tellLANLocked sends announcements of the addresses that are new on a link,
// or whose link has another address than it had.
func (h *Host) tellLANLocked(want []proxy, lans []lan) {
	macs := make(map[int]stack.MAC, len(lans))
	for _, l := range lans {
		macs[l.index] = l.mac
	}
	told := make(map[proxy]stack.MAC, len(want))
	var news []announcement
	for _, p := range want {
		mac := macs[p.link]
		if old, ok := h.told[p]; !ok || old != mac {
			news = append(news, announcement{proxy: p, mac: mac})
		}
		told[p] = mac
	}
	h.told = told
	if len(news) > 0 {
		h.log.Info("announcing addresses on the LAN", "addresses", len(news))
		h.announcer.announce(news)
	}
}

// sendTold sends an announcement, unless it is of what is silent by now.
func (h *Host) sendTold(n announcement, send func(announcement) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if mac, ok := h.told[n.proxy]; !ok || mac != n.mac {
		return nil
	}
	return send(n)
}

// lanNames are the names of the devices on which addresses of the family are
// announced.
func lanNames(want []proxy, lans []lan, family uint8) []string {
	var names []string
	for _, l := range lans {
		if slices.ContainsFunc(want, func(p proxy) bool { return p.link == l.index && familyOf(p.addr) == family }) {
			names = append(names, l.name)
		}
	}
	return names
}

// lan wants what an answer of the kernel for somebody else's address needs.
func (n *needs) lan(family uint8, names []string) {
	for _, name := range names {
		if family == packet.IPv6 {
			n.ndp(name)
		}
		n.want(setting{family, "neigh", name, "proxy_delay"}, 0, "the host answers for VIPs on this device at once, not within 0.8 s")
	}
}

// ndp lets the host answer neighbour solicitations for addresses that are not its own.
func (n *needs) ndp(name string) {
	if all, ok := n.read(conf(packet.IPv6, "all", "proxy_ndp")); !ok || all == 0 {
		n.want(conf(packet.IPv6, name, "proxy_ndp"), 1, "the host answers for IPv6 VIPs on this device")
	}
	// Turning it on for all turns it on for each; where that was done before,
	// the device may have been taken out.
	if all, ok := n.read(conf(packet.IPv6, "all", "forwarding")); ok && all != 0 {
		n.want(conf(packet.IPv6, name, "forwarding"), 1, "only a device that forwards answers for others")
	}
}

// ethernetDevices lists, by index, the devices that are up and that frames
// with a neighbour's address can be sent to.
func ethernetDevices(h *netlink.Handle) (map[int]*device, error) {
	links, err := dump(h.LinkList)
	if err != nil {
		return nil, err
	}
	return ethernetOf(links), nil
}

// ethernetOf are the devices among links that are up and speak Ethernet.
func ethernetOf(links []netlink.Link) map[int]*device {
	devices := make(map[int]*device, len(links))
	for _, l := range links {
		a := l.Attrs()
		const need, forbidden = unix.IFF_UP, unix.IFF_LOOPBACK | unix.IFF_NOARP | unix.IFF_POINTOPOINT
		if a.EncapType != "ether" || len(a.HardwareAddr) != 6 || a.RawFlags&(need|forbidden) != need {
			continue
		}
		devices[a.Index] = &device{index: a.Index, name: a.Name, mac: stack.MAC(a.HardwareAddr), mtu: a.MTU}
	}
	return devices
}
