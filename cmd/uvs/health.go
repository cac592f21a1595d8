package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/admin"
	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/health"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// A backup says what a service does where too few of its real servers are fit.
type backup struct {
	quorum, hysteresis int
	sorry              netip.AddrPort // answers below the quorum, in place of all real servers; not valid: none
	failOpen           bool           // where none is fit, all are used
	ejected            int            // per cent of the weight that connections of clients may eject at one time
}

// A watched is a real server whose health is watched, by its own address or
// through the forwarding mode.
type watched struct {
	health.Member
	through bool
}

// watch adds the real servers of s to those whose health is watched.
func (p *plan) watch(s *config.Service) error {
	p.backups[s.Name] = backup{quorum: s.Quorum, hysteresis: s.Hysteresis, sorry: s.SorryServer, failOpen: s.FailOpen, ejected: s.Health.Passive.Limit}
	if sorry, ok := s.Sorry(); ok {
		p.members = append(p.members, watched{Member: health.Member{Service: s.Name, Server: sorry.Address, Options: health.Options{Type: health.None}}})
	}
	o := checkOptions(&s.Health)
	check, err := health.New(o)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	for j := range s.RealServers {
		rs := &s.RealServers[j]
		w := watched{
			Member: health.Member{
				Service: s.Name, Server: rs.Address,
				Check: check, Options: o,
				To: health.Target{Addr: netip.AddrPortFrom(rs.Address.Addr(), s.CheckPort(rs))},
				Timing: health.Timing{
					Interval: s.Health.Interval, Fast: s.Health.FastInterval, Timeout: s.Health.Timeout,
					Rise: s.Health.Rise, Fall: s.Health.Fall,
				},
				Ejection:  s.Health.Passive.Ejection,
				SlowStart: s.SlowStart,
			},
			through: s.Health.Via == config.ViaMode,
		}
		if a := &s.Health.Agent; a.Port != 0 {
			w.Agent = health.Agent{Addr: netip.AddrPortFrom(rs.Address.Addr(), uint16(a.Port)), Send: a.Send, Interval: a.Interval, Timeout: a.Timeout}
		}
		if w.through {
			w.To.Addr, _ = s.CheckVIP(rs) // checked by package config
			p.host.FromVIPs = p.host.FromVIPs || rs.Mode != config.FullNAT
		}
		p.members = append(p.members, w)
	}
	return nil
}

func checkOptions(h *config.Health) health.Options {
	o := health.Options{
		Type:   h.Type,
		Method: h.Method, Path: h.Path, Host: h.Host, Body: h.Body,
		Send: h.Send, Receive: string(h.Expect),
		TLS:  health.TLS(h.TLS),
		Name: h.Name, Record: h.Record, Service: h.Service, Command: h.Command,
	}
	if h.WantsCodes() {
		o.Receive = ""
		codes, _ := config.ParseCodes(h.Expect) // checked by package config
		for _, c := range codes {
			o.Expect = append(o.Expect, health.Codes(c))
		}
	}
	return o
}

// A healthKey names a real server of a service.
type healthKey struct {
	service string
	server  netip.AddrPort
}

// byServer is what was found, to be looked up.
func byServer(all []health.Status) map[healthKey]*health.Status {
	m := make(map[healthKey]*health.Status, len(all))
	for i := range all {
		m[healthKey{all[i].Service, all[i].Server}] = &all[i]
	}
	return m
}

// weighted is what p balances, with the weights that the health of the real
// servers leaves.
func (p *plan) weighted(all []health.Status) lb.Config {
	known := byServer(all)
	c := p.balance
	c.Services = slices.Clone(c.Services)
	for i := range c.Services {
		c.Services[i] = p.weightedService(c.Services[i], known)
	}
	return c
}

func (p *plan) weightedService(s lb.ServiceConfig, known map[healthKey]*health.Status) lb.ServiceConfig {
	b := p.backups[s.Name]
	configured := s.RealServers
	s.RealServers = slices.Clone(configured)
	_, fit := weights(&s, b, known)
	for j := range s.RealServers {
		rs := &s.RealServers[j]
		h := known[healthKey{s.Name, rs.Address}]
		switch {
		case rs.Address == b.sorry:
			if fit < b.quorum {
				rs.Weight = 1
			}
		case b.sorry.IsValid() && fit < b.quorum:
			rs.Weight = 0
		case fit == 0 && b.failOpen && h != nil && h.State == health.Down:
		case h == nil || !h.State.Usable():
			rs.Weight = 0
		default:
			rs.Weight = share(rs.Weight, h.Percent)
		}
		if h != nil && h.MaxFlows > 0 {
			limitFlows(rs, h.MaxFlows)
		}
		rs.Down = rs.Weight == 0 && h != nil && (h.State == health.Down || h.State == health.Maintenance)
	}
	return s
}

// limitFlows bounds rs as its agent wants it. A lower threshold that does not
// fit gives way to the default one.
func limitFlows(rs *lb.RealServerConfig, most int) {
	rs.MaxFlows = most
	if rs.MinFlows > most {
		rs.MinFlows = 0
	}
}

// share is so many per cent of a weight, and only of none nothing.
func share(weight, percent int) int {
	if weight == 0 || percent == 0 {
		return 0
	}
	return max(1, weight*percent/100)
}

// weights are those of all real servers of s and of those that are fit.
func weights(s *lb.ServiceConfig, b backup, known map[healthKey]*health.Status) (all, fit int) {
	for j := range s.RealServers {
		rs := &s.RealServers[j]
		if rs.Address == b.sorry {
			continue
		}
		all += rs.Weight
		if h := known[healthKey{s.Name, rs.Address}]; h != nil && h.State.Usable() {
			fit += rs.Weight
		}
	}
	return all, fit
}

// members are the real servers of p to be watched now: through the mode not
// before the host sends packets to VIPs to us.
func (d *director) members(p *plan) []health.Member {
	var all []health.Member
	for _, w := range p.members {
		if w.through {
			if !d.steered {
				continue
			}
			w.To.Prepare = func(fd int, proto uint8) (func(), error) { return d.pin(&w.Member, fd, proto) }
		}
		all = append(all, w.Member)
	}
	return all
}

// watchThrough has those real servers watched too that are checked through
// their mode.
func (d *director) watchThrough() {
	d.applying.Lock()
	defer d.applying.Unlock()
	d.steered = true
	d.health.Set(d.members(d.applied))
}

// pin makes the connection of a check one of the real server's: to the VIP,
// from an address of the host's own, by the flow that the balancer keeps for
// it. In fullnat its replies come back through uvs, else from the real server.
func (d *director) pin(m *health.Member, fd int, proto uint8) (unpin func(), err error) {
	source, err := d.checkSource(m)
	if err != nil {
		return nil, err
	}
	local, err := bindTo(fd, source)
	if err != nil {
		return nil, err
	}
	t := packet.Tuple{SrcPort: local.Port(), DstPort: m.To.Addr.Port(), Proto: proto}
	t.Src, t.Family = packet.AddrFrom(local.Addr())
	t.Dst, _ = packet.AddrFrom(m.To.Addr.Addr())
	d.applying.Lock() // while a reload is under way, the balancer may not have the real server yet
	defer d.applying.Unlock()
	if err := d.balancer.Pin(m.Service, m.Server, t, d.road.Now()); err != nil {
		return nil, err
	}
	return func() { d.balancer.Unpin(t, d.road.Now()) }, nil
}

// checkSource is the address of the host from which m is checked through its
// mode: the one that the real server answers to, or, where the VIP is of the
// other family, that which the kernel chooses.
func (d *director) checkSource(m *health.Member) (netip.Addr, error) {
	to := m.Server.Addr()
	if to.Is4() != m.To.Addr.Addr().Is4() {
		to = m.To.Addr.Addr()
	}
	return d.host.SourceFor(to)
}

// bindTo binds a socket to an address and any port of it.
func bindTo(fd int, a netip.Addr) (netip.AddrPort, error) {
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: a.As16()}
	if a.Is4() {
		to = &unix.SockaddrInet4{Addr: a.As4()}
	}
	if err := unix.Bind(fd, to); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("bind", err)
	}
	at, err := unix.Getsockname(fd)
	switch at := at.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(a, uint16(at.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(a, uint16(at.Port)), nil
	}
	return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
}

// firstResults is how long a start waits for the first results of the checks,
// so that real servers that work are there for the first clients.
const firstResults = 3 * time.Second

func (d *director) awaitFirstResults(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-d.health.Settled():
	case <-time.After(firstResults):
	}
}

// followHealth gives the balancer new weights when the health of real servers
// changes.
func (d *director) followHealth(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.healthChanged:
			if err := d.applyHealth(); err != nil {
				d.log.Error("weights not changed", "error", err)
			}
		}
		if !d.carrying.Load() {
			continue // nothing is announced before packets are carried
		}
		if err := d.announce(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("announcements not changed", "error", err)
		}
	}
}

// applyHealth gives the balancer the weights of the services in which the
// health of a real server has changed.
func (d *director) applyHealth() error {
	d.applying.Lock()
	defer d.applying.Unlock()
	changed := d.health.TakeChanged()
	var errs []error
	for _, s := range d.applied.balance.Services {
		if all, ok := changed[s.Name]; ok {
			errs = append(errs, d.balancer.UpdateService(d.applied.weightedService(s, byServer(d.markDrained(all)))))
		}
	}
	return errors.Join(errs...)
}

// healthState is s for the answer to GET /v1/state.
func healthState(s *health.Status) *admin.HealthState {
	return &admin.HealthState{
		Check: s.Check, Since: s.Since, Cause: s.Cause, Transitions: s.Transitions,
		Ejected: s.Ejected, Ejections: s.Ejections, Spared: s.Spared,
		Good: s.Good, Bad: s.Bad, LastError: s.LastError, LastSeconds: s.LastTook.Seconds(),
	}
}
