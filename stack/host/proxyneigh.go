package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// proxyRequest adds or removes the entry by which the kernel answers for p,
// marked with our protocol number, which netlink's own type has no room for.
func (h *Host) proxyRequest(kind, flags int, p proxy) error {
	family := unix.AF_INET
	if p.addr.Is6() {
		family = unix.AF_INET6
	}
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	req.Sockets = h.strict
	req.AddData(&netlink.Ndmsg{Family: uint8(family), Index: uint32(p.link), State: netlink.NUD_PERMANENT, Flags: netlink.NTF_PROXY})
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, p.addr.AsSlice()))
	req.AddData(nl.NewRtAttr(netlink.NDA_PROTOCOL, nl.Uint8Attr(h.opt.Protocol)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// ownProxies lists the entries that carry our protocol number.
func (h *Host) ownProxies() ([]proxy, error) {
	var own []proxy
	for _, family := range [...]int{unix.AF_INET, unix.AF_INET6} {
		req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
		req.Sockets = h.strict
		req.AddData(&netlink.Ndmsg{Family: uint8(family), Flags: netlink.NTF_PROXY})
		msgs, err := dump(func() ([][]byte, error) { return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH) })
		if err != nil && !noFamily(err) {
			return nil, fmt.Errorf("list proxy neighbours: %w", err)
		}
		for _, m := range msgs {
			if p, protocol, ok := parseProxy(m); ok && protocol == h.opt.Protocol {
				own = append(own, p)
			}
		}
	}
	return own, nil
}

// parseProxy reads the body of an RTM_NEWNEIGH message: struct ndmsg, attributes.
func parseProxy(b []byte) (p proxy, protocol uint8, ok bool) {
	const ndmsgLen, flagsAt = 12, 10
	if len(b) < ndmsgLen || b[flagsAt]&netlink.NTF_PROXY == 0 {
		return p, 0, false
	}
	p.link = int(int32(binary.NativeEndian.Uint32(b[4:])))
	valid := eachAttr(b[ndmsgLen:], func(kind uint16, v []byte) {
		switch {
		case kind == netlink.NDA_DST:
			p.addr, _ = netip.AddrFromSlice(v)
		case kind == netlink.NDA_PROTOCOL && len(v) == 1:
			protocol = v[0]
		}
	})
	return p, protocol, valid && p.addr.IsValid()
}

// Of linux/neighbour.h.
const (
	ndtaName        = 1  // NDTA_NAME
	ndtaParms       = 6  // NDTA_PARMS
	ndtpaIfindex    = 1  // NDTPA_IFINDEX
	ndtpaProxyDelay = 13 // NDTPA_PROXY_DELAY, milliseconds
	userTick        = 10 // milliseconds of the unit that /proc/sys counts proxy_delay in
)

// writeProxyDelay sets proxy_delay of a device by RTM_SETNEIGHTBL.
func (k kernelSettings) writeProxyDelay(s setting, value int) error {
	link, err := k.nl.LinkByName(s.iface)
	if err != nil {
		return err
	}
	family, table := unix.AF_INET, "arp_cache"
	if netlinkFamily(s.family) == unix.AF_INET6 {
		family, table = unix.AF_INET6, "ndisc_cache"
	}
	req := nl.NewNetlinkRequest(unix.RTM_SETNEIGHTBL, unix.NLM_F_ACK)
	req.Sockets = k.raw
	req.AddRawData([]byte{byte(family), 0, 0, 0}) // struct ndtmsg
	name := nl.NewRtAttr(ndtaName, nl.ZeroTerminated(table))
	parms := nl.NewRtAttr(ndtaParms, nil)
	parms.AddRtAttr(ndtpaIfindex, nl.Uint32Attr(uint32(link.Attrs().Index)))
	parms.AddRtAttr(ndtpaProxyDelay, nl.Uint64Attr(uint64(value)*userTick))
	req.AddRawData(append(name.Serialize(), parms.Serialize()...))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return err
	}
	if now, err := k.read(s); err != nil || now != value {
		return errors.Join(fmt.Errorf("netlink left it at %d", now), err)
	}
	return nil
}
