package lb

import (
	"time"

	"github.com/uvs-project/uvs/packet"
)

// A template is an entry of the table that remembers which real server a
// persistent client was given. It counts against the limit as a flow does, and
// its fields mean:
//
//	tuple     the client's key, see persistent.key; DstPort is unusable where
//	          no client may use it any more: it is in no index then
//	state     TemplateNone, or TemplateAssured once one of its flows was established
//	local     how many flows it controls: with any it is kept
//	deadline  when it ends, if it controls no flow then
//
// links has its timeout, and for each flow that it controls its entry's
// number. So a flow without persistence has nothing to do with links, and one
// with it costs 4 bytes more.
//
// A flow's lock and its template's are never held together: the flow counts
// before it exists and until after it has ended.

// unusable is the server port and the service port that IPVS lists a template
// with whose real server is gone.
const unusable = 65535

// rearmed is the timeout of a template from then on, when it found its flows
// alive at its end (ip_vs_conn_expire).
const rearmed = 60 * time.Second

func (s State) isTemplate() bool { return s == TemplateNone || s == TemplateAssured }

// useTemplate finds the template of key for one more flow of svc, whose life
// it takes on. One whose real server may not be used any more is made
// unusable; with only, so is one of another real server.
func (t *Table) useTemplate(svc *service, key *packet.Tuple, hash uint64, now uint32, only *RealServer) (choice, bool) {
	s := &t.shards[t.shardOf(hash)]
	s.mu.Lock()
	n := t.entryLocked(s, key, hash)
	if n == 0 {
		s.mu.Unlock()
		return choice{}, false
	}
	e := &t.entries.all[n]
	if int32(e.deadline-now) <= 0 && !t.rearmLocked(n, now) {
		s.expired++
		t.removeLocked(s, n)
		s.mu.Unlock()
		return choice{}, false
	}
	was := t.servers.get(e.server)
	rs := svc.bound(was, key.Family)
	if rs == nil || only != nil && !rs.Same(only) || !rs.acquire() {
		s.remove(hash, slotOf(n, false))
		e.tuple.DstPort = unusable
		s.mu.Unlock()
		return choice{}, false
	}
	if rs.id != was.id { // its mode was changed
		e.server = rs.id
	}
	e.local++
	e.deadline = now + t.links[n]
	if e.local == 1 {
		t.refileLocked(s, n)
	}
	s.mu.Unlock()
	return choice{rs, n}, true
}

// bound is the real server that a template of was binds a client of a family to,
// nil where it may not be used any more.
func (s *service) bound(was *RealServer, family uint8) *RealServer {
	rs := s.current(was, family)
	if rs == nil || rs.Weight == 0 && s.policy.ExpireQuiescedTemplates {
		return nil
	}
	return rs
}

// addTemplate remembers rs, which is acquired for a flow, for the client of
// key, unless another queue has chosen for it a moment ago.
func (t *Table) addTemplate(svc *service, key *packet.Tuple, hash uint64, rs *RealServer, now uint32) (choice, packet.Reason) {
	id := t.shardOf(hash)
	if t.live.Add(1) > t.limit && !t.evict(id, now) {
		t.live.Add(-1)
		rs.release()
		return choice{}, packet.TableFull
	}
	s := &t.shards[id]
	s.mu.Lock()
	if t.entryLocked(s, key, hash) != 0 {
		s.mu.Unlock()
		t.live.Add(-1)
		if c, ok := t.useTemplate(svc, key, hash, now, nil); ok {
			rs.release()
			return c, packet.OK
		}
		return t.addTemplate(svc, key, hash, rs, now)
	}
	n := t.allocateLocked(s, id)
	if n == 0 {
		s.mu.Unlock()
		t.live.Add(-1)
		rs.release()
		return choice{}, packet.TableFull
	}
	e := &t.entries.all[n]
	*e = entry{
		tuple:    *key,
		state:    TemplateNone,
		flags:    flagLive | flagOneSided,
		server:   rs.id,
		local:    1,
		deadline: now + svc.persistent.timeout,
		gen:      e.gen,
	}
	t.links[n] = svc.persistent.timeout
	rs.templates.Add(1)
	t.enterLocked(s, n, now)
	s.put(hash, slotOf(n, false))
	s.mu.Unlock()
	return choice{rs, n}, packet.OK
}

// unchoose gives back what choose took for a flow that was not opened, or
// that has ended.
func (t *Table) unchoose(c choice) {
	c.server.release()
	t.leave(c.template)
}

// leave tells a template that a flow of it has ended. The caller holds no lock.
func (t *Table) leave(template uint32) {
	if template == 0 {
		return
	}
	s := &t.shards[t.ownerOf(template)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &t.entries.all[template]
	if e.local--; e.local == 0 {
		t.refileLocked(s, template)
	}
}

// assure tells a template that a flow of it, which still counts, is
// established: no spoofed client has made it.
func (t *Table) assure(template uint32) {
	s := &t.shards[t.ownerOf(template)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := &t.entries.all[template]; e.state == TemplateNone {
		e.state = TemplateAssured // its class stays: it has a flow
	}
}

// assures says whether a packet that made the state of a flow of a template
// what it is assures the template (ip_vs_control_assure_ct).
func assures(was, is State, d Direction) bool {
	switch is {
	case TCPEstablished, SCTPEstablished:
		return was != is
	case UDPNormal:
		return d == Reply
	}
	return false
}

// class is what the flow, or template, of e is filed as. A template is not
// given up while it has flows.
func (e *entry) class() class {
	if e.state == TemplateNone && e.local > 0 {
		return classKept
	}
	return states[e.state].class
}

// rearmLocked keeps the template of entry n, which is due, while it controls
// flows. It is false for flows, and where there are none.
func (t *Table) rearmLocked(n, now uint32) bool {
	e := &t.entries.all[n]
	if !e.state.isTemplate() || e.local == 0 {
		return false
	}
	t.links[n] = ticks(rearmed)
	for int32(e.deadline-now) <= 0 {
		e.deadline += ticks(rearmed)
	}
	return true
}

// listed is the tuple that a template is listed with, by IPVS's rules: protocol
// and VIP are those of the service's only listen, and so is the port, unless it
// is FTP's, which stands for others too. A service with several listens is
// listed as a firewall mark would be.
func listed(f *Flow) packet.Tuple {
	t := packet.Tuple{Src: f.Tuple.Src, Family: f.Tuple.Family}
	if f.Tuple.DstPort == unusable {
		t.DstPort = unusable
	}
	listens := f.Server.service.listens
	if len(listens) != 1 {
		return t
	}
	l := listens[0]
	t.Dst, _ = packet.AddrFrom(l.VIP)
	t.Proto = l.Proto
	if first, last := l.ports(); t.DstPort == 0 && first == last && first != ftp {
		t.DstPort = first
	}
	return t
}
