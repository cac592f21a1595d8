package realserver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// addressProtocol marks an address as made here (IFA_PROTO, Linux 5.18). An
// older kernel does not keep the mark: there the VIPs to be removed must be
// named.
const addressProtocol = 0x75 // 'u'; IANA has no registry, the kernel itself uses 1 to 3

// ifaProto is IFA_PROTO of linux/if_addr.h.
const ifaProto = 11

// lifetimeForever is INFINITY_LIFE_TIME of linux/if_addr.h.
const lifetimeForever = 0xffffffff

// An address is one address of the host as the kernel tells it.
type address struct {
	ip   netip.Addr
	bits int
	link int  // index of its interface
	ours bool // has our protocol number
}

// addresses lists every address of the host.
func addresses() ([]address, error) {
	var msgs [][]byte
	var err error = netlink.ErrDumpInterrupted
	for errors.Is(err, netlink.ErrDumpInterrupted) { // an address changed meanwhile: the list may lack one
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
		msgs, err = req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var list []address
	for _, m := range msgs {
		msg := nl.DeserializeIfAddrmsg(m)
		attrs, err := nl.ParseRouteAttr(m[msg.Len():])
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		a := address{bits: int(msg.Prefixlen), link: int(msg.Index)}
		for _, attr := range attrs {
			switch attr.Attr.Type {
			case unix.IFA_LOCAL:
				a.ip, _ = netip.AddrFromSlice(attr.Value)
			case unix.IFA_ADDRESS: // the peer's, where there is an IFA_LOCAL as well
				if !a.ip.IsValid() {
					a.ip, _ = netip.AddrFromSlice(attr.Value)
				}
			case ifaProto:
				a.ours = len(attr.Value) == 1 && attr.Value[0] == addressProtocol
			}
		}
		list = append(list, a)
	}
	return list, nil
}

// onLoopback are the addresses on lo that may be VIPs.
func onLoopback(lo netlink.Link) ([]address, error) {
	list, err := addresses()
	return slices.DeleteFunc(list, func(a address) bool {
		return a.link != lo.Attrs().Index || a.bits != a.ip.BitLen() || unfit(a.ip) != ""
	}), err
}

// addVIP puts vip on the interface lo. It is no candidate for the source of
// the host's own connections: the IPv4 one has scope host, the IPv6 one is
// deprecated from the start. Duplicate address detection is off, as the same
// VIP is on every real server.
func addVIP(lo netlink.Link, vip netip.Addr) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	addVIPData(req, lo, vip)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("add VIP %v to lo: %w", vip, explain(err))
	}
	return awaitLocal(vip)
}

// awaitLocal returns when the host takes packets to vip. The kernel adds the
// route of an IPv6 address some time after the address itself, as it would
// after duplicate address detection.
func awaitLocal(vip netip.Addr) error {
	const patience = 10 * time.Second // for what takes a millisecond on an idle machine
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		routes, err := netlink.RouteGet(vip.AsSlice())
		if err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("VIP %v is on lo, but the host does not take its packets: ip route get %[1]v", vip), err)
		}
	}
}

func removeVIP(lo netlink.Link, vip netip.Addr) error {
	req := nl.NewNetlinkRequest(unix.RTM_DELADDR, unix.NLM_F_ACK)
	addVIPData(req, lo, vip)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove VIP %v from lo: %w", vip, explain(err))
	}
	return nil
}

func addVIPData(req *nl.NetlinkRequest, lo netlink.Link, vip netip.Addr) {
	msg := nl.NewIfAddrmsg(unix.AF_INET6)
	if vip.Is4() {
		msg = nl.NewIfAddrmsg(unix.AF_INET)
		msg.Scope = unix.RT_SCOPE_HOST
	} else {
		msg.IfAddrmsg.Flags = unix.IFA_F_NODAD
	}
	msg.Prefixlen = uint8(vip.BitLen())
	msg.Index = uint32(lo.Attrs().Index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, vip.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, vip.AsSlice()))
	req.AddData(nl.NewRtAttr(ifaProto, []byte{addressProtocol}))
	if vip.Is6() {
		life := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Valid: lifetimeForever, Prefered: 0}}
		req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, life.Serialize()))
	}
}

// explain adds what mends the errors that a user meets.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("missing capability NET_ADMIN: run as root; in a container, start it with --cap-add NET_ADMIN --cap-add NET_RAW: %w", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("IPv6 is switched off: sysctl net.ipv6.conf.lo.disable_ipv6=0: %w", err)
	}
	return err
}
