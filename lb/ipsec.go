package lb

import (
	"time"

	"github.com/uvs-project/uvs/packet"
)

// isakmp is the port of both ends by which keys are exchanged.
const isakmp = 500

// protected handles a packet of ESP or AH, or an ICMP error about one. It goes to
// the real server with which the client has exchanged keys, by UDP from port 500
// to port 500, and keeps that flow alive; without such a flow it is the host's
// (ip_vs_proto_ah_esp.c). IPv6's AH never comes here: it is an extension header.
func (q *Queue) protected(p *packet.Packet, now time.Duration) (packet.Verdict, packet.Reason) {
	keys := p.Tuple
	keys.Proto, keys.SrcPort, keys.DstPort = packet.UDP, isakmp, isakmp
	ev := eventKeep
	if p.IsICMPError() {
		ev = eventPeek
	}
	f := &q.flow
	d, o := q.b.table.lookup(&keys, keys.Hash(q.b.table.seed), ev, false, tickOf(now), f, p)
	switch o {
	case unknown:
		return q.notBalanced(p, now)
	case known, ours:
		q.hit.add(1)
	default:
		q.hit.add(1)
		return q.turnAway(p, o, now)
	}
	if reply, back := f.Server.Mode.ReplyTuple(*f); back && reply.Dst != f.Tuple.Src {
		return q.notBalanced(p, now) // nothing in an answer would tell whose it is
	}
	if o == known {
		f.Server.traffic[q.index].count(p, d)
	}
	return q.forward(p, f, d, now)
}
