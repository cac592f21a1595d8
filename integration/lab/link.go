package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Link joins two hosts by a veth pair. The interface of each is named after
// the other host. ours and theirs are the addresses of the two ends with their
// prefix lengths, separated by spaces; an end without an address on a host that
// has a bridge becomes a port of it.
func (h *Host) Link(peer *Host, ours, theirs string) *Host {
	h.lab.draw("link "+h.Name+" - "+peer.Name, func() error {
		fd, err := netns.GetFromPath(peer.thread)
		if err != nil {
			return err
		}
		defer fd.Close()
		veth := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: peer.Name},
			PeerName:      h.Name,
			PeerNamespace: netlink.NsFd(int(fd)),
		}
		if err := h.nl.LinkAdd(veth); err != nil {
			return err
		}
		if err := h.plug(peer.Name, ours); err != nil {
			return err
		}
		if err := peer.plug(h.Name, theirs); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), linkPatience)
		defer cancel()
		return Wait(ctx, "the link to be up", func() error { return errors.Join(h.up(peer.Name), peer.up(h.Name)) })
	})
	return h
}

// linkPatience is how long the kernel may take to find both ends of a link up:
// it does so in the background, in milliseconds.
const linkPatience = time.Minute

// up says that an interface carries packets and has the link-local address
// that the kernel gives it.
func (h *Host) up(dev string) error {
	link, err := h.nl.LinkByName(dev)
	if err != nil {
		return err
	}
	if state := link.Attrs().OperState; state != netlink.OperUp {
		return fmt.Errorf("%s of %s is %v", dev, h.Name, state)
	}
	addrs, err := h.nl.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return err
	}
	usable := func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0 }
	if !slices.ContainsFunc(addrs, usable) {
		return fmt.Errorf("%s of %s has no link-local address", dev, h.Name)
	}
	return nil
}

// plug gives an interface its addresses or its bridge, and sets it up.
func (h *Host) plug(name, addrs string) error {
	link, err := h.nl.LinkByName(name)
	if err != nil {
		return err
	}
	if addrs == "" && h.bridge != "" {
		bridge, err := h.nl.LinkByName(h.bridge)
		if err != nil {
			return err
		}
		if err := h.nl.LinkSetMaster(link, bridge); err != nil {
			return err
		}
	}
	if err := h.nl.LinkSetUp(link); err != nil {
		return err
	}
	return h.addAddrs(link, addrs)
}

func (h *Host) addAddrs(link netlink.Link, addrs string) error {
	for a := range strings.FieldsSeq(addrs) {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.nl.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	return nil
}

// Bridge adds a bridge with the given addresses, which may be none. Links made
// after it that give this host no address are its ports.
func (h *Host) Bridge(name, addrs string) *Host {
	h.lab.draw(h.Name+": bridge "+name, func() error {
		h.bridge = name
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
		if err := h.nl.LinkAdd(bridge); err != nil {
			return err
		}
		if err := h.nl.LinkSetUp(bridge); err != nil {
			return err
		}
		return h.addAddrs(bridge, addrs)
	})
	return h
}

// Addr adds addresses, separated by spaces, to an interface.
func (h *Host) Addr(dev, addrs string) *Host {
	h.lab.draw(h.Name+": addresses of "+dev, func() error {
		link, err := h.nl.LinkByName(dev)
		if err != nil {
			return err
		}
		return h.addAddrs(link, addrs)
	})
	return h
}

// Route adds routes to destinations, separated by spaces, by way of a gateway
// or, where via is no address, an interface. "default" is every address of the
// gateway's family.
func (h *Host) Route(destinations, via string) *Host {
	for dst := range strings.FieldsSeq(destinations) {
		h.lab.draw(fmt.Sprintf("%s: route %s via %s", h.Name, dst, via), func() error {
			return h.addRoute(0, dst, via)
		})
	}
	return h
}

// TableRoute is Route in a routing table other than the main one.
func (h *Host) TableRoute(table int, destinations, via string) *Host {
	for dst := range strings.FieldsSeq(destinations) {
		h.lab.draw(fmt.Sprintf("%s: table %d: route %s via %s", h.Name, table, dst, via), func() error {
			return h.addRoute(table, dst, via)
		})
	}
	return h
}

// Rule has packets from sources, separated by spaces, routed by a table.
func (h *Host) Rule(sources string, table int) *Host {
	for src := range strings.FieldsSeq(sources) {
		h.lab.draw(fmt.Sprintf("%s: rule from %s", h.Name, src), func() error {
			addr, err := netip.ParseAddr(src)
			if err != nil {
				return err
			}
			rule := netlink.NewRule()
			rule.Family = netlink.FAMILY_V4
			if addr.Is6() {
				rule.Family = netlink.FAMILY_V6
			}
			rule.Src = netlink.NewIPNet(addr.AsSlice())
			rule.Table = table
			return h.nl.RuleAdd(rule)
		})
	}
	return h
}

func (h *Host) addRoute(table int, dst, via string) error {
	route, err := h.route(dst, via)
	if err != nil {
		return err
	}
	route.Table = table
	return h.nl.RouteAdd(route)
}

func (h *Host) route(dst, via string) (*netlink.Route, error) {
	route := &netlink.Route{}
	gateway, err := netip.ParseAddr(via)
	if err == nil {
		route.Gw = gateway.AsSlice()
	} else {
		link, err := h.nl.LinkByName(via)
		if err != nil {
			return nil, err
		}
		route.LinkIndex, route.Scope = link.Attrs().Index, netlink.SCOPE_LINK
	}
	if dst == "default" {
		dst = "0.0.0.0/0"
		if gateway.Is6() {
			dst = "::/0"
		}
	}
	prefix, err := netip.ParsePrefix(dst)
	if err != nil {
		return nil, err
	}
	if prefix.Addr().Is6() {
		route.Scope = 0
	}
	route.Dst = &net.IPNet{
		IP:   prefix.Masked().Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}
	return route, nil
}

// MTU sets the largest packet, in bytes, of an interface. A veth takes what
// its peer sends whatever its own value, so both ends want the same.
func (h *Host) MTU(dev string, mtu int) *Host {
	h.lab.draw(h.Name+": MTU of "+dev, func() error {
		link, err := h.nl.LinkByName(dev)
		if err != nil {
			return err
		}
		return h.nl.LinkSetMTU(link, mtu)
	})
	return h
}

// MAC is the link address of an interface, nil where there is none.
func (h *Host) MAC(dev string) net.HardwareAddr {
	link, err := h.nl.LinkByName(dev)
	if err != nil {
		return nil
	}
	return link.Attrs().HardwareAddr
}
