package twin

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// judge says what is wrong with what became of a packet in queue q, and
// remembers what the packet has changed.
func (m *model) judge(in *pkt, q int, got result) error {
	k := in.key()
	isError := in.isICMP() && in.body != nil
	if isError {
		e := in.embedded()
		k = key{e.dst, e.src, e.proto}
	}
	f, reply := m.flows[k], false
	if f == nil {
		reply = true
		if all := m.replies[k]; len(all) > 0 {
			f = all[0]
		}
	}
	if f != nil && !reply && !isError && in.anew() && f.givesWay() {
		m.remove(f)
		f = nil
	}
	if f != nil && f.state == "brief" && !reply && !isError && in.event() == "datagram" && f.server.service.policy.OnePacket {
		m.remove(f)
		f = nil
	}
	if f != nil && f.server.removed {
		switch m.fate(f, in, reply, isError) {
		case "drop":
			return dropped(packet.ServerRemoved).compare(got)
		case "reset":
			if o, final := m.reset(in, q, packet.ServerRemoved); final {
				return o.compare(got)
			}
			return dropped(packet.ServerRemoved).compare(got)
		case "forget":
			m.remove(f)
			f = nil
		case "hide":
			f = nil
		}
	}
	if f != nil {
		if !isError {
			if !reply && f.server.service.keepsTrails() {
				f.trail(in)
			}
			f.state = f.after(in, reply)
			f.ends = tick(m.now) + ticks(f.server.service.lifetime(f.state))
		}
		m.count(f.server, reply, len(in.bytes()))
		return m.forward(f, reply, in, q, got.bytes).compare(got)
	}

	s := m.find(k)
	switch {
	case m.isVIP(in.dst.Addr()) && m.answersUnknown(in):
		return m.answer(in, q, portUnreachable, in.dst.Addr(), 0, packet.NoFlow, got.bytes).compare(got)
	case in.isICMP() && !isError, s == nil, isError && !s.policy.ScheduleICMP:
		return m.notBalanced(in, q, isError, got.bytes).compare(got)
	case in.later() && k.proto == packet.TCP:
		return m.up(in, q, false, packet.NotSYN).compare(got)
	case in.later():
		return dropped(packet.NotSYN).compare(got)
	case !isError && !in.opens(s.policy.Sloppy):
		return m.up(in, q, false, packet.NotSYN).compare(got)
	}
	if m.dropRate > 0 {
		m.would++
		if (m.would-1)%uint64(m.dropRate) == 0 {
			return dropped(packet.Overload).compare(got)
		}
	}
	mayRefuse := m.mayRefuse(s, in.v6())
	if s.persists() {
		if _, to, sure := m.binding(s, s.client(k.src.Addr()), in.v6()); to != nil && sure {
			mayRefuse = false
		}
	}
	if got.reason == packet.NoRealServer || got.reason == packet.RateLimited && mayRefuse {
		if !mayRefuse {
			return fmt.Errorf("refused, though there are real servers")
		}
		if s.persists() {
			delete(m.templates, s.client(k.src.Addr())) // what was doubtful
		}
		return m.refuse(s, in, q, isError, got.bytes).compare(got)
	}
	return m.open(s, in, k, q, isError, got)
}

// givesWay says whether a client that starts anew gets a new flow in place of f.
func (f *flow) givesWay() bool {
	p := &f.server.service.policy
	if f.server.weight == 0 && p.Removed == lb.RemovedReschedule {
		return true
	}
	switch f.state {
	case "TW", "CL", "sCL":
		return p.Reuse != 0 && f.template == nil
	case "FW":
		return p.Reuse&lb.ReuseFinWait != 0 && f.server.oneSided() && f.template == nil
	}
	return false
}

// fate is what becomes of a packet of f, whose real server was removed: it is
// served, or dropped, or its sender is reset, or it is as if f were not there.
func (m *model) fate(f *flow, in *pkt, reply, isError bool) string {
	switch f.server.service.policy.Removed {
	case lb.RemovedKeep:
		switch {
		case !m.served[isV6(f.client.src)]:
			return "hide"
		case !reply && !isError:
			return "drop"
		}
	case lb.RemovedReschedule:
		return "forget"
	case lb.RemovedReset:
		switch {
		case isError:
		case in.proto != packet.TCP, !reply && in.anew():
			return "forget"
		default:
			return "reset"
		}
	}
	return "serve"
}

// notBalanced is what becomes of a packet that no flow has and no service
// takes.
func (m *model) notBalanced(in *pkt, q int, isError bool, got []byte) outcome {
	dst := in.dst.Addr()
	if isError {
		dst = in.embedded().src.Addr()
	}
	switch {
	case m.isVIP(dst) && in.isICMP():
		return m.up(in, q, isError, packet.OK)
	case m.isVIP(dst):
		return m.up(in, q, false, packet.NoService)
	case m.isLocal(dst):
		if o, final := m.reset(in, q, packet.NotSYN); final {
			return o
		}
		return dropped(packet.NoService)
	case m.answersUnknown(in):
		return m.answer(in, q, portUnreachable, in.dst.Addr(), 0, packet.NoFlow, got)
	}
	return unchanged(packet.Return, packet.OK, in)
}

// candidates are the real servers that a client of the family can have.
func (s *service) candidates(v6 bool) (usable, all []*serverConfig) {
	for _, c := range s.servers {
		if isV6(c.addr) != v6 && c.mode != "tun" && c.mode != "fullnat" {
			continue
		}
		all = append(all, c)
		if c.weight > 0 {
			usable = append(usable, c)
		}
	}
	return usable, all
}

// usable are those of the candidates that a scheduler may choose, with those
// that it perhaps may: lblc keeps a destination at its real server although that
// is at its threshold, as in IPVS.
func (m *model) usable(s *service, v6, perhaps bool) (usable []*serverConfig) {
	of, _ := s.candidates(v6)
	for _, c := range of {
		if over := m.over[load{s.name, c.addr}]; c.most == 0 || over == "" || perhaps && (over == "perhaps" || s.scheduler == "lblc") {
			usable = append(usable, c)
		}
	}
	return usable
}

// mayRefuse says whether the service may have no real server for a client that
// nothing binds.
func (m *model) mayRefuse(s *service, v6 bool) bool {
	_, all := s.candidates(v6)
	usable := m.usable(s, v6, false)
	switch s.scheduler {
	case "dh", "sh", "mh": // of a client whose real server has weight 0
		return len(usable) < len(all) || len(all) == 0
	case "ovf": // of all, when each has as many connections as its weight
		return true
	}
	return len(usable) == 0
}

func (m *model) refuse(s *service, in *pkt, q int, isError bool, got []byte) outcome {
	if s.onNo == lb.AnswerDrop || isError {
		return dropped(packet.NoRealServer)
	}
	if s.onNo == lb.AnswerReset {
		if o, final := m.reset(in, q, packet.NoRealServer); final {
			return o
		}
	}
	return m.answer(in, q, portUnreachable, in.dst.Addr(), 0, packet.NoRealServer, got)
}

// answersUnknown says whether a packet that no flow has comes from where a real
// server answers clients, whose service wants it told that nobody asked.
func (m *model) answersUnknown(in *pkt) bool {
	if in.isICMP() || in.event() == "rst" || in.event() == "abort" {
		return false
	}
	for _, s := range m.services {
		if !s.policy.AnswerUnknownReplies {
			continue
		}
		for _, c := range s.servers {
			if c.mode == "dr" || c.mode == "tun" || c.addr.Addr() != in.src.Addr() {
				continue
			}
			for _, l := range s.listens {
				first, last := l.FirstPort, max(l.FirstPort, l.LastPort)
				if c.addr.Port() != 0 {
					first, last = c.addr.Port(), c.addr.Port()
				}
				if port := in.src.Port(); l.Proto == in.proto && first <= port && port <= last {
					return true
				}
			}
		}
	}
	return false
}

// open is called with a packet that opens a flow: it finds the real server that
// uvs chose by what came out, or, where that does not show it, by asking.
func (m *model) open(s *service, in *pkt, k key, q int, isError bool, got result) error {
	usable := m.usable(s, in.v6(), true)
	var (
		from  client
		bound *template
		sure  bool
	)
	if s.persists() {
		var to *serverConfig
		from = s.client(k.src.Addr())
		bound, to, sure = m.binding(s, from, in.v6())
		switch {
		case to != nil && sure:
			usable = []*serverConfig{to}
		case to != nil && !slices.Contains(usable, to):
			usable = append(usable, to)
		}
	}
	local := got.source
	once := s.policy.OnePacket && k.proto == packet.UDP && in.cut == 0
	if (isError || got.reason != packet.OK) && !once {
		chosen, ok := m.peek(k)
		if !ok {
			return fmt.Errorf("%v, %v, and no flow was opened", got.verdict, got.reason)
		}
		usable = slices.DeleteFunc(usable, func(c *serverConfig) bool {
			return c.addr != chosen.Server.Endpoint.AddrPort() || c.mode != chosen.Server.Mode.String()
		})
		if reply, ok := chosen.Server.Mode.ReplyTuple(chosen); ok {
			local = netip.AddrPortFrom(reply.Dst.Netip(reply.Family), reply.DstPort)
		}
	}
	why := errors.New("it is none of those that it may be")
	for _, c := range usable {
		f := &flow{client: k, server: m.servers[s.id(c)]}
		if c.mode == "fullnat" && once && isError && got.reason == packet.OK {
			f.local = embeddedEnd(got.bytes)
		} else if c.mode == "fullnat" && once && got.reason != packet.OK {
			f.local = netip.AddrPortFrom(locals[0].Addr(), 0) // it shows nowhere
			if isV6(c.addr) {
				f.local = netip.AddrPortFrom(locals[2].Addr(), 0)
			}
		} else if c.mode == "fullnat" {
			f.local = local
			if k, _ := f.replyKey(); !once && m.replies[k] != nil || !m.isLocal(local.Addr()) || local.Port() < 1024 {
				continue
			}
		}
		f.state = f.after(in, false)
		if k.proto == packet.UDP && (isError || s.policy.OnePacket) {
			f.state = "brief"
		}
		f.ends = tick(m.now) + ticks(f.server.service.lifetime(f.state))
		total, bucket := m.total, m.errors[q]
		m.total.Flows++
		m.count(f.server, false, len(in.bytes()))
		if why = m.forward(f, false, in, q, got.bytes).compare(got); why == nil {
			if !once {
				m.add(f)
			}
			if s.persists() {
				m.bind(s, from, bound, sure, c, f, once)
			}
			return nil
		}
		m.total, m.errors[q] = total, bucket
	}
	return fmt.Errorf("service %s has opened a flow to none of %d real servers; the last: %w", s.name, len(usable), why)
}

// A result is what came out of uvs.
type result struct {
	verdict packet.Verdict
	reason  packet.Reason
	bytes   []byte
	hop     packet.Endpoint
	source  netip.AddrPort // of what is sent
}

func (o outcome) compare(got result) error {
	switch {
	case o.verdict != got.verdict || o.reason != got.reason:
		return fmt.Errorf("%v, %v; want %v, %v", got.verdict, got.reason, o.verdict, o.reason)
	case o.bytes != nil && !bytes.Equal(o.bytes, got.bytes):
		return fmt.Errorf("other bytes\n got %s\nwant %s", dump(got.bytes), dump(o.bytes))
	case o.verdict == packet.Send && o.hop.IsValid() != (got.hop.Family != 0):
		return fmt.Errorf("next hop %v, want %v", got.hop, o.hop)
	case o.verdict == packet.Send && o.hop.IsValid() && got.hop.AddrPort().Addr() != o.hop:
		return fmt.Errorf("next hop %v, want %v", got.hop.AddrPort(), o.hop)
	case o.verdict == packet.Send && o.bytes == nil:
		return fmt.Errorf("nothing that could be sent; got %s", dump(got.bytes))
	}
	return nil
}
