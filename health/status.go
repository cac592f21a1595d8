package health

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"time"
)

// showLocked makes what is known of mb public. cause says why its state
// changes, if it does; "": see member.why.
func (m *Monitor) showLocked(mb *member, cause string) {
	now := mb.state()
	if now == mb.shown {
		return
	}
	was := mb.shown
	mb.returned = now == Up && was != Checking
	mb.shown, mb.since = now, time.Now()
	mb.cause = cmp.Or(cause, mb.why())
	mb.transitions++
	level := slog.LevelInfo
	if was == Checking && now == Up {
		level = slog.LevelDebug // as it should be
	}
	m.log.Log(context.Background(), level, "real server is "+now.String(), "service", mb.Service, "real_server", serverText(mb.Server), "before", was, "cause", mb.cause)
	m.changedLocked(mb)
}

// serverText is a real server as the configuration writes it: without a port
// where it has none of its own.
func serverText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// changedLocked tells that the service of mb has changed.
func (m *Monitor) changedLocked(mb *member) {
	m.dirty[mb.Service] = true
	m.changed()
}

// Status is what is known of all Members, in no order.
func (m *Monitor) Status() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var all []Status
	for service := range m.members {
		all = m.appendLocked(all, service, now)
	}
	return all
}

// StatusOf is what is known of the Members of one service, in no order.
func (m *Monitor) StatusOf(service string) []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.appendLocked(nil, service, time.Now())
}

// appendLocked appends what is known of the Members of a service.
func (m *Monitor) appendLocked(all []Status, service string, now time.Time) []Status {
	for _, mb := range m.members[service] {
		all = append(all, mb.status(now))
	}
	return all
}

// TakeChanged is what is known of the Members of those services in which a
// state has changed since it was last called, by the service.
func (m *Monitor) TakeChanged() map[string][]Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	changed := make(map[string][]Status, len(m.dirty))
	for service := range m.dirty {
		if all := m.appendLocked(nil, service, now); all != nil {
			changed[service] = all
		}
	}
	clear(m.dirty)
	return changed
}
