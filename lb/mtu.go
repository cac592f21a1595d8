package lb

import (
	"time"

	"github.com/uvs-project/uvs/packet"
)

// The least that a link carries, in bytes (RFC 791, RFC 8200 section 5).
const (
	leastMTU4 = 68
	leastMTU6 = 1280
)

// ClampAuto is the Policy.ClampMSS that goes by the path to the real server.
const ClampAuto = -1

// roomFor is how long a packet of family may be so that what rw makes of it
// fits a path of mtu bytes.
func roomFor(rw *packet.Rewrite, family uint8, mtu int) int {
	mtu -= rw.Encap.Overhead()
	if to := rw.Dst.Family; to != 0 && to != family {
		if to == packet.IPv6 {
			return mtu - 20
		}
		return mtu + 20
	}
	return mtu
}

// squeeze decides about a request that is longer than room, or whose room is
// less than what every IPv6 link carries. It is false where p can go on.
//
// A tunnel with no room for the smallest packet carries none, as in IPVS. Less
// room than every IPv6 link carries is not told to an IPv6 client, which must
// not mind it: its packets up to that length travel in outer or translated IPv4
// packets that may be fragmented.
func (q *Queue) squeeze(p *packet.Packet, f *Flow, rw *packet.Rewrite, room, mtu int, now time.Duration) (packet.Verdict, packet.Reason, bool) {
	if rw.Encap.Kind != packet.NoEncap {
		least := leastMTU4
		if rw.Encap.Family == packet.IPv6 {
			least = leastMTU6
		}
		if room < least {
			return packet.Drop, packet.PathTooSmall, true
		}
	}
	family := p.Tuple.Family
	if family == packet.IPv6 {
		room = max(room, leastMTU6)
	}
	switch {
	case p.SegmentLen() <= room:
		return 0, packet.OK, false
	case rw.Encap.Fragment && family == packet.IPv4:
		p.FragmentTunnelTo(mtu)
		return 0, packet.OK, false
	case !p.DontFragment():
		p.FragmentTo(mtu)
		return 0, packet.OK, false
	}
	v, why := q.answer(p, packet.PacketTooBig, room, now, packet.TooBig)
	if v == packet.Send && f.Server.oneSided {
		f.Server.traffic[q.index].count(p, Reply) // as in IPVS, where no other reply counts
	}
	return v, why, true
}

// clamp lowers the MSS that the SYN p announces to what f's service says. What
// fits the path to the real server is what its requests must fit, so that is
// what both ends are told.
func (q *Queue) clamp(p *packet.Packet, f *Flow, mss int) {
	if mss == ClampAuto {
		mtu := f.Server.PathMTU()
		if mtu == 0 {
			return
		}
		var rw packet.Rewrite
		f.Server.Mode.Rewrite(f, Request, &rw)
		head := 20 + 20
		if f.Tuple.Family == packet.IPv6 {
			head = 40 + 20
		}
		mss = roomFor(&rw, f.Tuple.Family, mtu) - head
	}
	if mss > 0 {
		p.ClampMSS(uint16(mss))
	}
}
