package lb

import (
	"time"

	"github.com/uvs-project/uvs/packet"
)

// An Explanation is what Handle would do with a packet, and what that follows
// from: one of a flow's, or the first of a connection.
type Explanation struct {
	Verdict packet.Verdict
	Reason  packet.Reason // of the Verdict, OK where it is plainly sent

	// Flow is the flow that the tuple has, or that its first packet would open:
	// then State is that after it and Left is 0. Server is nil: none.
	Flow    FlowInfo
	Known   bool      // the flow is there
	Way     Direction // of the tuple in Flow
	Renewed bool      // of a known one: a client that starts anew gets another

	// Request and Reply are what is done to the packets of Flow.
	Request, Reply packet.Rewrite

	// Of what has no flow: Service is the one that takes it, "" none. Set are
	// its real servers in list order. Template is the one by which a persistent
	// client is bound, nil where the scheduler chooses.
	Service  string
	Set      []*RealServer
	Template *FlowInfo
	Ends     bool // an old flow of the tuple is still kept and ends first; it was counted for the choice

	OnePacket bool // no flow is kept: every datagram is scheduled by itself
	FirstOnly bool // only the first packet of a connection opens a flow of the service
	ByPayload bool // the client is known by its packets' payload only, so that Flow is a guess
	DropRate  int  // the Defence drops one in so many packets that would open a flow; 0: none
}

// Explain says what Handle would do at the time now with a packet of t: with
// any that neither opens nor ends a connection where a flow has it, else with
// the first of a client's. It changes nothing and counts nothing, so that a
// flow that other clients open meanwhile can change the answer.
func (b *Balancer) Explain(t packet.Tuple, now time.Duration) (x Explanation) {
	g, ok := b.table.peek(&t, t.Hash(b.table.seed), tickOf(now))
	if ok && b.Refresh(&g.info) && b.explainKnown(&x, &g) {
		return x
	}
	state := b.state.Load()
	svc := state.find(&t)
	switch {
	case svc != nil:
		b.explainOpening(&x, svc, &t, g.number, now)
	case state.isVIP(&t):
		x.Verdict, x.Reason = packet.Pass, packet.NoService
	case state.isLocal(&t):
		x.Verdict, x.Reason = packet.Drop, packet.NoService
	default:
		x.Verdict = packet.Return
	}
	return x
}

// explainKnown explains a packet of the flow g. It is false where the flow does
// not have it, because its real server left or every datagram is scheduled by
// itself.
func (b *Balancer) explainKnown(x *Explanation, g *glimpse) bool {
	f, rs := &g.info, g.info.Server
	if g.way == Request && rs.isolates(&g.entry, plainEvent(f.Tuple.Proto)) {
		return false
	}
	x.Verdict = packet.Send
	if rs.judged && !f.Pinned {
		switch o, _ := rs.judge(&f.Tuple, g.way, plainEvent(f.Tuple.Proto), false); o {
		case barred, refused:
			x.Verdict, x.Reason = packet.Drop, packet.ServerRemoved
		case unknown:
			return false
		}
	}
	x.Flow, x.Known, x.Way, x.Service = *f, true, g.way, rs.service.name
	x.Renewed = g.way == Request && rs.replaces(&g.entry)
	x.explainRewrites()
	return true
}

// plainEvent is that of a packet that neither opens nor ends anything.
func plainEvent(proto uint8) event {
	switch proto {
	case packet.TCP:
		return tcpACK
	case packet.SCTP:
		return sctpData
	}
	return udpDatagram
}

// openingEvent is that of a client's first packet.
func openingEvent(proto uint8) event {
	switch proto {
	case packet.TCP:
		return tcpSYN
	case packet.SCTP:
		return sctpInit
	}
	return udpDatagram
}

// explainOpening explains a first packet of svc, as open does it. before is the
// entry of a flow of t that Handle would have ended, or 0.
func (b *Balancer) explainOpening(x *Explanation, svc *service, t *packet.Tuple, before uint32, now time.Duration) {
	x.Service, x.Set, x.Ends = svc.name, svc.set, before != 0
	x.FirstOnly = t.Proto != packet.UDP && !svc.policy.Sloppy
	x.DropRate = int(b.defence.dropRate.Load())
	rs := b.bound(x, svc, t, now)
	if rs == nil {
		rs = svc.peek(t, now)
	}
	if rs == nil {
		x.Verdict, x.Reason = packet.Drop, packet.NoRealServer
		if !svc.names(t.DstPort) { // see Queue.open
			x.Verdict, x.Reason = packet.Pass, packet.NoService
		}
		return
	}
	x.Flow.Flow = Flow{
		Tuple: *t, Server: rs,
		State: first(t.Proto).next(openingEvent(t.Proto), wayOf(Request, rs.oneSided), b.table.isSecure(svc)),
	}
	x.Flow.Persistent, x.Flow.Direct = svc.persistent != nil, rs.oneSided
	x.OnePacket = t.Proto == packet.UDP && svc.policy.OnePacket
	var found bool
	if x.OnePacket { // see Queue.pass
		x.Flow.Local, found = rs.Mode.Local(x.Flow.Flow, 0)
	} else {
		found = b.table.propose(&x.Flow.Flow, before)
	}
	if !found {
		x.Verdict, x.Reason = packet.Drop, packet.NoPort
		return
	}
	x.Verdict = packet.Send
	x.explainRewrites()
}

// bound is the real server that a persistent client is bound to, nil where the
// scheduler chooses one: see useTemplate.
func (b *Balancer) bound(x *Explanation, svc *service, t *packet.Tuple, now time.Duration) *RealServer {
	p := svc.persistent
	if p == nil {
		return nil
	}
	if p.Engine != NoEngine {
		x.ByPayload = true
		return nil
	}
	key := p.key(&t.Src, t.Family, nil)
	g, ok := b.table.peek(&key, key.Hash(b.table.seed), tickOf(now))
	if !ok || g.info.Left <= 0 && g.entry.local == 0 {
		return nil
	}
	rs := svc.bound(g.info.Server, t.Family)
	if rs == nil {
		return nil
	}
	g.info.Flows = int(g.entry.local)
	x.Template = &g.info
	return rs
}

// peek is the real server that pick would choose, without a trace.
func (s *service) peek(t *packet.Tuple, now time.Duration) *RealServer {
	sched := s.v4
	if t.Family == packet.IPv6 {
		sched = s.v6
	}
	switch p := sched.(type) {
	case nil:
		return nil
	case Peeker:
		return p.Peek(t, now)
	}
	return sched.Pick(t, now)
}

func (x *Explanation) explainRewrites() {
	f := &x.Flow.Flow
	f.Server.Mode.Rewrite(f, Request, &x.Request)
	f.Server.Mode.Rewrite(f, Reply, &x.Reply)
}

// A glimpse is a copy of an entry.
type glimpse struct {
	info   FlowInfo
	entry  entry
	number uint32
	way    Direction // of the tuple that it was found by
}

// peek is lookup without a trace: it finds the flow of a tuple, or the template
// of a key. A flow that is due is found too, with a Left that is not above 0.
func (t *Table) peek(key *packet.Tuple, hash uint64, now uint32) (g glimpse, found bool) {
	copyLocked := func(n uint32, way Direction) {
		g.entry, g.number, g.way = t.entries.all[n], n, way
		t.copyFlow(&g.info.Flow, &g.entry)
		g.info.flagged(&g.entry)
		g.info.Left = time.Duration(int32(g.entry.deadline-now)) << tickShift
	}
	s := &t.shards[t.shardOf(hash)]
	s.mu.Lock()
	n := t.entryLocked(s, key, hash)
	if n != 0 {
		copyLocked(n, Request)
	}
	replies := s.repliesTo(hash, 0)
	s.mu.Unlock()
	if n != 0 {
		return g, true
	}
	for _, n := range replies.list() {
		s := &t.shards[t.ownerOf(n)]
		s.mu.Lock()
		if t.repliesBy(n, key) {
			copyLocked(n, Reply)
			found = true
		}
		s.mu.Unlock()
		if found && g.info.Left > 0 {
			break // else an older flow may have the tuple
		}
	}
	return g, found
}

// propose gives f the Local that insert would find for it once the flow in the
// entry before, if it is not 0, has ended. It is false where it would find none.
func (t *Table) propose(f *Flow, before uint32) bool {
	for try := 0; ; try++ {
		local, ok := f.Server.Mode.Local(*f, try)
		if !ok {
			return try == 1 // a single proposal is taken over, and is in f
		}
		f.Local = local
		reply, ok := f.Server.Mode.ReplyTuple(*f)
		if !ok {
			return true
		}
		hash := reply.Hash(t.seed)
		s := &t.shards[t.shardOf(hash)]
		s.mu.Lock()
		rivals := s.repliesTo(hash, before)
		s.mu.Unlock()
		if t.holder(rivals, &reply) == 0 {
			return true
		}
	}
}
