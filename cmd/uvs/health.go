package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/uvs-project/uvs/admin"
	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/health"
	"github.com/uvs-project/uvs/lb"
)

// A backup says what a service does where too few of its real servers are fit.
type backup struct {
	quorum, hysteresis int
	sorry              netip.AddrPort // answers below the quorum, in place of all real servers; not valid: none
	failOpen           bool           // where none is fit, all are used
}

// watch adds the real servers of s to those whose health is watched.
func (p *plan) watch(s *config.Service) error {
	p.backups[s.Name] = backup{quorum: s.Quorum, hysteresis: s.Hysteresis, sorry: s.SorryServer, failOpen: s.FailOpen}
	if sorry, ok := s.Sorry(); ok {
		p.members = append(p.members, health.Member{Service: s.Name, Server: sorry.Address, Options: health.Options{Type: health.None}})
	}
	o := checkOptions(&s.Health)
	check, err := health.New(o)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	for j := range s.RealServers {
		rs := &s.RealServers[j]
		p.members = append(p.members, health.Member{
			Service: s.Name, Server: rs.Address,
			Check: check, Options: o,
			To: health.Target{Addr: netip.AddrPortFrom(rs.Address.Addr(), s.CheckPort(rs))},
			Timing: health.Timing{
				Interval: s.Health.Interval, Fast: s.Health.FastInterval, Timeout: s.Health.Timeout,
				Rise: s.Health.Rise, Fall: s.Health.Fall,
			},
			SlowStart: s.SlowStart,
		})
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
		}
		rs.Down = rs.Weight == 0 && h != nil && (h.State == health.Down || h.State == health.Maintenance)
	}
	return s
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
		Good: s.Good, Bad: s.Bad, LastError: s.LastError, LastSeconds: s.LastTook.Seconds(),
	}
}
