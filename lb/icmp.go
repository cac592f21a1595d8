package lb

import (
	"net/netip"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// tunnelError handles an ICMP error that is about no flow and was not sent to a
// VIP: one about a tunnel packet of the director's own is turned into the same
// error about the client's packet inside, from the VIP. It is false for any
// other.
//
// Learning the path MTU from it is for those who call SetPathMTU.
func (q *Queue) tunnelError(p *packet.Packet, now time.Duration) (packet.Verdict, packet.Reason, bool) {
	e, ok := p.ReadTunnelError()
	if !ok {
		return packet.Return, packet.OK, false
	}
	var f Flow
	if d, o := q.b.table.lookup(&e.Tuple, e.Tuple.Hash(q.b.table.seed), eventPeek, false, tickOf(now), &f, nil); o != known && o != ours || d != Request {
		return packet.Drop, packet.BadICMP, true
	}
	rw := &q.rewrite
	*rw = packet.Rewrite{}
	f.Server.Mode.Rewrite(&f, Request, rw)
	if own := &rw.Encap; own.Kind != e.Encap.Kind || own.Family != e.Encap.Family || own.Src != e.Encap.Src || own.Dst != e.Encap.Dst || own.Port != e.Encap.Port {
		return packet.Drop, packet.BadICMP, true // somebody else's tunnel, or invented
	}
	room := 0
	if e.MTU != 0 {
		mtu := e.MTU
		if known := f.Server.PathMTU(); known != 0 {
			mtu = min(mtu, known)
		}
		least := leastMTU4
		if rw.Encap.Family == packet.IPv6 {
			least = leastMTU6
		}
		if room = roomFor(rw, f.Tuple.Family, mtu); room < least {
			return packet.Drop, packet.PathTooSmall, true
		}
		if f.Tuple.Family == packet.IPv6 {
			room = max(room, leastMTU6)
		}
	}
	if !q.errors.take(now) {
		return packet.Drop, packet.RateLimited, true
	}
	if !p.ReplyTunnelError(&e, room) {
		return packet.Drop, packet.BadICMP, true
	}
	f.Server.traffic[q.index].count(p, Reply)
	return packet.Send, packet.OK, true
}

// An originKey is where the packets of a real server's service come from.
type originKey struct {
	addr   packet.Addr
	port   uint16
	proto  uint8
	family uint8
}

// origins are the real servers whose services say AnswerUnknownReplies, with
// the address of the director's that answers them.
type origins map[originKey]packet.Addr

// setOrigins collects the origins of all services.
func (b *Balancer) setOrigins() {
	all := origins{}
	for _, s := range b.byName {
		if !s.policy.AnswerUnknownReplies {
			continue
		}
		for _, rs := range s.set {
			if rs.oneSided {
				continue
			}
			for _, l := range s.listens {
				first, last := l.ports()
				if rs.Endpoint.Port != 0 {
					first, last = rs.Endpoint.Port, rs.Endpoint.Port
				}
				for port := int(first); port <= int(last); port++ {
					all[originKey{rs.Endpoint.Addr, uint16(port), l.Proto, rs.Endpoint.Family}] = rs.answerFrom
				}
			}
		}
	}
	b.origins.Store(&all)
}

// unknownReply answers p, which no flow has, by a port unreachable if it comes
// from the port of a service on a real server, even where it goes to a VIP as a
// request would (IPVS: nat_icmp_send, ip_vs_out runs before ip_vs_in). It is false
// for what it does not answer, a reset among them.
func (q *Queue) unknownReply(p *packet.Packet, now time.Duration) (packet.Verdict, packet.Reason, bool) {
	all := *q.b.origins.Load()
	if len(all) == 0 || p.IsICMPError() {
		return packet.Return, packet.OK, false
	}
	t := &p.Tuple
	from, ok := all[originKey{t.Src, t.SrcPort, t.Proto, t.Family}]
	if !ok || p.TCPFlags()&packet.RST != 0 || p.SCTPChunk() == chunkAbort {
		return packet.Return, packet.OK, false
	}
	if from == (packet.Addr{}) || q.b.state.Load().isVIP(t) {
		from = t.Dst
	}
	v, why := q.answerFrom(from, p, packet.PortUnreachable, 0, now, packet.NoFlow)
	return v, why, true
}

// addrOf is the Addr of a, zero where a is not an address.
func addrOf(a netip.Addr) packet.Addr {
	if !a.IsValid() {
		return packet.Addr{}
	}
	b, _ := packet.AddrFrom(a)
	return b
}
