package lb

import (
	"time"

	"github.com/uvs-project/uvs/packet"
)

// A Queue handles the packets of one goroutine:
//
//  1. find the flow of the packet's tuple in the table;
//  2. without one, find the service and let its scheduler open a flow;
//  3. count the packet for its real server, unless it is of the director's own;
//  4. check that it fits the path to the real server;
//  5. rewrite it as the flow's mode says.
type Queue struct {
	b     *Balancer
	index int
	_     [64]byte // the counters share no cache line with another queue's
	queueCounters
	errors  answers // ICMP errors
	replies answers // resets, and what the netstack answers

	untilOffer int // packets of known flows until one offers its flow again

	flow    Flow           // of the packet under way
	rewrite packet.Rewrite // of the packet under way
	_       [64]byte
}

// Handle decides what becomes of p, which Parse accepted, and changes it in
// place. Neither p nor its bytes are kept. now is monotonic time; it must be
// the time of Run's clock.
func (q *Queue) Handle(p *packet.Packet, now time.Duration) (packet.Verdict, packet.Reason) {
	v, r := q.handle(p, now)
	if r != packet.OK {
		q.reasons[r].add(1)
	}
	return v, r
}

func (q *Queue) handle(p *packet.Packet, now time.Duration) (packet.Verdict, packet.Reason) {
	t := &p.Tuple
	if t.Proto != packet.TCP && t.Proto != packet.UDP && t.Proto != packet.SCTP {
		if t.Proto == packet.ESP || t.Proto == packet.AH {
			return q.protected(p, now)
		}
		return q.notBalanced(p, now)
	}
	ev, anew := eventOf(p)
	hash := p.Hash
	if hash == 0 {
		hash = t.Hash(q.b.table.seed)
	}
	f := &q.flow
	d, o := q.b.table.lookup(t, hash, ev, anew, tickOf(now), f, p)
	switch o {
	case unknown:
		if v, why, opened := q.open(p, hash, ev, now); !opened {
			return v, why
		}
	case known, ours:
		q.hit.add(1)
		if q.b.table.offload != nil && ev != eventPeek && o == known {
			if q.untilOffer--; q.untilOffer <= 0 {
				q.untilOffer = q.b.offerEvery
				q.b.table.offer(f)
			}
		}
	default:
		q.hit.add(1)
		return q.turnAway(p, o, now)
	}
	if o != ours {
		f.Server.traffic[q.index].count(p, d)
	}
	if ev == tcpSYN {
		if mss := f.Server.service.policy.ClampMSS; mss != 0 {
			q.clamp(p, f, mss)
		}
	}
	return q.forward(p, f, d, now)
}

// turnAway handles a packet of a flow whose removed real server is not to get
// it.
func (q *Queue) turnAway(p *packet.Packet, o outcome, now time.Duration) (packet.Verdict, packet.Reason) {
	if o == refused {
		if v, why, ok := q.reset(p, now, packet.ServerRemoved); ok {
			return v, why
		}
	}
	return packet.Drop, packet.ServerRemoved
}

// notBalanced handles a packet that no flow has and that no service takes.
func (q *Queue) notBalanced(p *packet.Packet, now time.Duration) (packet.Verdict, packet.Reason) {
	t := &p.Tuple
	s := q.b.state.Load()
	switch {
	case s.isVIP(t):
		if v, why, ok := q.unknownReply(p, now); ok {
			return v, why
		}
		if p.IsICMPError() || t.Proto == packet.ICMPv4 || t.Proto == packet.ICMPv6 {
			return q.up(p, now, packet.OK)
		}
		return q.up(p, now, packet.NoService)
	case s.isLocal(t):
		// The real server's flow has ended here. A reset ends it there too.
		if v, why, ok := q.reset(p, now, packet.NotSYN); ok {
			return v, why
		}
		return packet.Drop, packet.NoService
	}
	if v, why, ok := q.call(s, p, now); ok {
		return v, why
	}
	if v, why, ok := q.tunnelError(p, now); ok {
		return v, why
	}
	if v, why, ok := q.unknownReply(p, now); ok {
		return v, why
	}
	return packet.Return, packet.OK
}

// open opens a flow for p, which belongs to none, and puts it into q.flow, so
// that the packet goes on. Where it opened none, the verdict is final.
func (q *Queue) open(p *packet.Packet, hash uint64, ev event, now time.Duration) (v packet.Verdict, why packet.Reason, opened bool) {
	svc := q.b.state.Load().find(&p.Tuple)
	if svc == nil || ev == eventPeek && !svc.policy.ScheduleICMP {
		v, why = q.notBalanced(p, now)
		return v, why, false
	}
	if v, why, ok := q.unknownReply(p, now); ok {
		return v, why, false
	}
	if ev != eventPeek && !ev.opens(svc.policy.Sloppy) && !opensBehind(p, ev, svc.policy.Sloppy) {
		q.missNonSYN.add(1)
		if ev == eventKeep && (p.Fragment().Offset == 0 || p.Tuple.Proto != packet.TCP) {
			return packet.Drop, packet.NotSYN, false // half a header says nothing; the others of a datagram that was refused
		}
		v, why = q.up(p, now, packet.NotSYN) // the netstack knows what to answer
		return v, why, false
	}
	q.missSYN.add(1)
	why = q.openFor(svc, p, hash, ev, now)
	switch why {
	case packet.OK:
		return packet.Send, packet.OK, true
	case packet.NoRealServer:
		if !svc.names(p.Tuple.DstPort) { // only maybe a data connection of FTP
			v, why = q.notBalanced(p, now)
			return v, why, false
		}
		v, why = q.refuse(p, svc.onNoServer, now)
		return v, why, false
	}
	return packet.Drop, why, false
}

// openFor chooses a real server of svc for p, makes q.flow the flow to it and
// remembers that, unless every datagram is to be chosen for.
func (q *Queue) openFor(svc *service, p *packet.Packet, hash uint64, ev event, now time.Duration) packet.Reason {
	t := &p.Tuple
	if q.b.defence.drops() {
		return packet.Overload
	}
	for svc != nil {
		c, why := q.choose(svc, p, now)
		switch why {
		case packet.OK:
			f := &q.flow
			*f = Flow{
				Tuple:  *t,
				Server: c.server,
				State:  first(t.Proto).next(ev, wayOf(Request, c.server.oneSided), q.b.table.isSecure(svc)),
			}
			if t.Proto == packet.UDP && (ev == eventPeek || svc.policy.OnePacket) {
				// The other fragments of a datagram are to go the same way.
				if svc.policy.OnePacket && !p.Fragment().Is {
					return q.pass(f, c)
				}
				f.State = UDPBrief
			}
			return q.b.table.insert(f, c.template, 0, hash, tickOf(now))
		case packet.NoService:
		default:
			return why
		}
		svc = q.b.state.Load().find(t) // a reload has freed it a moment ago
	}
	return packet.NoService
}

// pass opens the flow f for one packet, for which c was chosen. It counts as
// opened but not as one that is there, and nothing of it is kept. A mode that
// gives flows an address and port takes its first proposal: no reply will be
// translated back.
func (q *Queue) pass(f *Flow, c choice) packet.Reason {
	defer q.b.table.unchoose(c)
	var ok bool
	if f.Local, ok = f.Server.Mode.Local(*f, 0); !ok {
		return packet.NoPort
	}
	f.Server.opened.Add(1)
	return packet.OK
}

// forward rewrites p as a packet of f.
func (q *Queue) forward(p *packet.Packet, f *Flow, d Direction, now time.Duration) (packet.Verdict, packet.Reason) {
	rw := &q.rewrite
	*rw = packet.Rewrite{}
	f.Server.Mode.Rewrite(f, d, rw)
	if rw.None {
		return packet.Drop, packet.NoReplyPath
	}
	if mtu := f.Server.PathMTU(); d == Request && mtu > 0 {
		if room := roomFor(rw, p.Tuple.Family, mtu); p.SegmentLen() > room || room < leastMTU6 {
			if v, why, final := q.squeeze(p, f, rw, room, mtu, now); final {
				return v, why
			}
		}
	}
	if why := rw.Apply(p); why != packet.OK {
		return packet.Drop, why
	}
	return packet.Send, packet.OK
}
