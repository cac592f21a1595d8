package host

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A kernelRoute is a route as netlink tells it.
type kernelRoute struct {
	dst      netip.Prefix
	table    int
	protocol uint8 // the program that made it
	kind     uint8 // RTN_UNICAST, RTN_LOCAL, ...
	tos      uint8
	metric   uint32
	mtu      int  // bytes; 0: the device's
	odd      bool // an encapsulation or a translation that only the kernel does
	hops     []kernelHop
}

type kernelHop struct {
	link   int
	via    netip.Addr // invalid: dst is on the link; may be of the other family
	weight int        // from 1
	dead   bool       // the device is down, the kernel does not use it
	dark   bool       // the device has no carrier; whether the kernel uses it depends on settings
}

func (h *kernelHop) setFlags(flags uint32) {
	h.dead = flags&unix.RTNH_F_DEAD != 0
	h.dark = flags&unix.RTNH_F_LINKDOWN != 0
}

// The attributes of linux/rtnetlink.h that x/sys does not name.
const (
	rtaVia       = 18
	rtaNewDst    = 19
	rtaEncapType = 21
	rtaEncap     = 22
	nlaTypeMask  = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	hopLen       = unix.SizeofRtNexthop
)

// parseRoute reads the body of an RTM_NEWROUTE or RTM_DELROUTE message. It
// says false for what is no route of ours to mirror: another family, or the
// kernel's cache.
func parseRoute(b []byte) (r kernelRoute, ok bool) {
	if len(b) < unix.SizeofRtMsg {
		return r, false
	}
	family, bits := b[0], int(b[1])
	flags := binary.NativeEndian.Uint32(b[8:])
	switch {
	case flags&unix.RTM_F_CLONED != 0:
		return r, false
	case family == unix.AF_INET && bits <= 32:
		r.dst = netip.PrefixFrom(netip.IPv4Unspecified(), bits)
	case family == unix.AF_INET6 && bits <= 128:
		r.dst = netip.PrefixFrom(netip.IPv6Unspecified(), bits)
	default:
		return r, false
	}
	r.tos, r.table, r.protocol, r.kind = b[3], int(b[4]), b[5], b[7]
	single := kernelHop{weight: 1}
	single.setFlags(flags)
	valid := eachAttr(b[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(v); ok && a.BitLen() == r.dst.Addr().BitLen() {
				r.dst = netip.PrefixFrom(a, bits)
			}
		case unix.RTA_TABLE:
			r.table = int(number(v))
		case unix.RTA_PRIORITY:
			r.metric = number(v)
		case unix.RTA_METRICS:
			eachAttr(v, func(kind uint16, v []byte) {
				if kind == unix.RTAX_MTU {
					r.mtu = int(number(v))
				}
			})
		case unix.RTA_MULTIPATH:
			r.multipath(v)
		default:
			r.hopAttr(&single, kind, v)
		}
	})
	if len(r.hops) == 0 {
		r.hops = []kernelHop{single}
	}
	return r, valid
}

// multipath reads an array of struct rtnexthop, each with attributes.
func (r *kernelRoute) multipath(b []byte) {
	for len(b) >= hopLen {
		n := int(binary.NativeEndian.Uint16(b))
		if n < hopLen || n > len(b) {
			return
		}
		hop := kernelHop{link: int(binary.NativeEndian.Uint32(b[4:])), weight: int(b[3]) + 1}
		hop.setFlags(uint32(b[2]))
		eachAttr(b[hopLen:n], func(kind uint16, v []byte) { r.hopAttr(&hop, kind, v) })
		r.hops = append(r.hops, hop)
		b = b[min(align4(n), len(b)):]
	}
}

// hopAttr reads what stands in a route with one hop, or in each hop of several.
func (r *kernelRoute) hopAttr(hop *kernelHop, kind uint16, v []byte) {
	switch kind {
	case unix.RTA_OIF:
		hop.link = int(number(v))
	case unix.RTA_GATEWAY:
		hop.via, _ = netip.AddrFromSlice(v)
	case rtaVia: // struct rtvia: family, address
		if len(v) > 2 {
			hop.via, _ = netip.AddrFromSlice(v[2:])
		}
	case rtaNewDst, rtaEncapType, rtaEncap:
		r.odd = true
	}
}

// eachAttr walks netlink attributes and says whether b held whole ones only.
func eachAttr(b []byte, f func(kind uint16, value []byte)) bool {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return false
		}
		f(binary.NativeEndian.Uint16(b[2:])&nlaTypeMask, b[unix.SizeofRtAttr:n])
		b = b[min(align4(n), len(b)):]
	}
	return len(b) == 0
}

func align4(n int) int { return (n + 3) &^ 3 }

// number is the value of an attribute of four bytes, 0 of any other.
func number(v []byte) uint32 {
	if len(v) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}
