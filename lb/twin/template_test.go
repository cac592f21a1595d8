package twin

import (
	"net/netip"
	"time"
)

// A client is what a persistent service tells clients apart by. As in IPVS the
// length of the network is not part of it.
type client struct {
	service string
	network netip.Addr
}

// A template remembers the real server of a persistent client.
type template struct {
	addr    netip.AddrPort
	timeout uint32 // ticks
	ends    uint32 // tick
	flows   map[*flow]bool

	// uvs frees a flow some time after its end, and keeps the template as long.
	// How long is its own affair, so a template without flows that is due is
	// doubtful if it had some lately: it may be there or not.
	lastFlow uint32 // tick at which the latest of its flows ended; 0: none did
	clear    uint32 // tick from which on it has surely none; 0: not yet
	doubtful uint32 // tick from which on it may have ended; 0: it is sure
	merged   bool   // it may have flows of a template that may have been it
}

// lately is for how long, in ticks, uvs may count a flow after its end, where
// its wheels are turned: one turn. A template that was due meanwhile has got
// another minute.
var (
	lately = ticks(300 * time.Second)
	minute = ticks(time.Minute)
)

// sweep is told that uvs has looked for all that is due.
func (m *model) sweep() {
	now := tick(m.now)
	for _, t := range m.templates {
		if len(t.flows) == 0 && t.clear == 0 && t.lastFlow != 0 && int32(now-t.lastFlow-lately) >= 0 {
			t.clear = now
		}
	}
}

func (s *service) persists() bool { return s.persistence.Timeout > 0 }

// client is who sends from an address.
func (s *service) client(a netip.Addr) client {
	bits := s.persistence.PrefixV4
	if a.Is6() {
		bits = s.persistence.PrefixV6
	}
	network, err := a.Prefix(bits)
	if err != nil {
		panic(err)
	}
	return client{s.name, network.Addr()}
}

// binding is the template of a client, if it binds it to a real server that the
// service has; sure is false where it may have ended.
func (m *model) binding(s *service, c client, v6 bool) (t *template, to *serverConfig, sure bool) {
	t = m.templates[c]
	if t == nil {
		return nil, nil, true
	}
	now, sure := tick(m.now), true
	if t.doubtful != 0 && int32(now-t.doubtful) >= 0 {
		sure = false
	}
	if int32(now-t.ends) >= 0 {
		switch {
		case len(t.flows) > 0:
			t.timeout = minute
			for int32(now-t.ends) >= 0 {
				t.ends += t.timeout
			}
		case t.merged || t.lastFlow != 0 && (t.clear == 0 || int32(t.ends-t.clear) < 0 && int32(now-t.clear-minute) < 0):
			sure = false
		case sure:
			delete(m.templates, c)
			return nil, nil, true
		}
	}
	_, all := s.candidates(v6)
	for _, r := range all {
		if r.addr == t.addr {
			to = r
		}
	}
	if to == nil || to.weight == 0 && s.policy.ExpireQuiescedTemplates {
		delete(m.templates, c) // whether it was there or not
		return nil, nil, true
	}
	return t, to, sure
}

// endTemplates ends those of removed real servers together with their flows. One
// that has flows just then, or has had lately, may stay. Where real servers have
// left afresh, uvs may look at those of others once more.
func (m *model) endTemplates(fresh map[load]bool) {
	removed := map[load]bool{}
	for _, rs := range m.servers {
		removed[rs.load()] = rs.removed
	}
	for c, t := range m.templates {
		l := load{c.service, t.addr}
		switch {
		case !m.ending[l] || !removed[l]:
		case fresh[l] && len(t.flows) == 0 && !t.merged && t.doubtful == 0 && (t.lastFlow == 0 || t.clear != 0):
			delete(m.templates, c)
		default:
			t.doubtful = max(1, tick(m.now))
		}
	}
}

// bind remembers that a client's flow f went to a real server. t is the
// template that it may have followed.
func (m *model) bind(s *service, c client, t *template, sure bool, to *serverConfig, f *flow, once bool) {
	fresh := &template{addr: to.addr, timeout: ticks(s.persistence.Timeout), flows: map[*flow]bool{}}
	switch {
	case t == nil || t.addr != to.addr:
		t = fresh
	case !sure:
		// It is the old one, which has at least its minute, or a new one.
		fresh.merged = true
		fresh.doubtful = tick(m.now) + min(t.timeout, fresh.timeout, minute)
		t = fresh
	default:
		if t.doubtful != 0 {
			t.doubtful = tick(m.now) + min(t.timeout, minute)
		}
	}
	t.ends = tick(m.now) + t.timeout
	m.templates[c] = t
	if once {
		return
	}
	f.template = t
	t.flows[f], t.clear = true, 0
}

// leave is told that a flow has ended.
func (t *template) leave(f *flow, now uint32) {
	if t == nil {
		return
	}
	delete(t.flows, f)
	if int32(f.ends-now) <= 0 {
		now = f.ends
	}
	t.lastFlow, t.clear = now, 0
}
