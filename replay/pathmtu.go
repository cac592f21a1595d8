package replay

import (
	"cmp"
	"encoding/binary"
	"net/netip"

	"github.com/uvs-project/uvs/config/compat"
)

// leastPathMTU is the least path MTU that Linux believes over IPv4, in bytes
// (net.ipv4.route.min_pmtu).
const leastPathMTU = 552

// learn takes in an ICMP error that says what the way to a real server carries,
// in the cases in which the recorded kernel did: IPv4, the datagrams of GUE as
// those of any UDP even where the error holds no more than their ports, other
// tunnels only where it shows the packet inside.
func (h *host) learn(b []byte, p *header) {
	t := b[p.l4:]
	if p.six || p.proto != protoICMP || p.frag || len(t) < 8+20 || [2]uint8{t[0], t[1]} != tooBig.four || add(t, 0) != 0xffff {
		return
	}
	about := readHeader(t[8:])
	if !h.net.locals[about.src] || t[8]>>4 != 4 {
		return
	}
	if about.proto != protoUDP && !showsInside(t[8:], &about) {
		return
	}
	mtu := max(int(binary.BigEndian.Uint16(t[6:])), leastPathMTU)
	if way := h.net.lookup(about.dst); way.kind != unicast || mtu >= h.net.mtu(way, about.dst) {
		return
	}
	h.learned(about.dst, about.proto, mtu)
}

// showsInside says whether the tunnel packet at the start of b, which is cut
// short, has the ports of an IPv4 packet inside.
func showsInside(b []byte, p *header) bool {
	if p.l4 > len(b) {
		return false
	}
	at := tunnelled(b, p)
	if at == 0 || b[at]>>4 != 4 {
		return false
	}
	in := readHeader(b[at:])
	return len(b) >= at+in.l4+8
}

// learned believes what was said of the way to an address.
func (d *Director) learned(to netip.Addr, proto uint8, mtu int) {
	if proto == protoUDP || d.tunnels(to, proto) {
		d.host.net.pmtu[to] = mtu
		d.fits(to)
	}
}

// tunnels says whether the packets of a real server are carried in those of a
// protocol.
func (d *Director) tunnels(rip netip.Addr, proto uint8) bool {
	for _, s := range d.table.Services {
		for _, rs := range s.Servers {
			kind := map[string]uint8{"gue": protoUDP, "gre": protoGRE}[rs.Encap.Type] // else ipip
			if rs.Addr.Addr() == rip && rs.Forward == compat.Tunnel && cmp.Or(kind, protoIPIP) == proto {
				return true
			}
		}
	}
	return false
}

// fits tells the balancer what fits on the way to a real server.
func (d *Director) fits(rip netip.Addr) { d.balancer.SetPathMTU(rip, d.pathMTU(rip)) }
