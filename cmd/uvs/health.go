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

// watch adds the real servers of s to those whose health is watched.
func (p *plan) watch(s *config.Service) error {
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

// weighted is c with the weights that the health of the real servers leaves.
func weighted(c lb.Config, all []health.Status) lb.Config {
	known := byServer(all)
	c.Services = slices.Clone(c.Services)
	for i := range c.Services {
		c.Services[i] = weightedService(c.Services[i], known)
	}
	return c
}

func weightedService(s lb.ServiceConfig, known map[healthKey]*health.Status) lb.ServiceConfig {
	s.RealServers = slices.Clone(s.RealServers)
	for j := range s.RealServers {
		rs := &s.RealServers[j]
		h := known[healthKey{s.Name, rs.Address}]
		if h == nil || !h.State.Usable() {
			rs.Weight = 0
		}
		rs.Down = h != nil && (h.State == health.Down || h.State == health.Maintenance)
	}
	return s
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
	}
}

// applyHealth gives the balancer the weights of the services in which the
// health of a real server has changed.
func (d *director) applyHealth() error {
	d.applying.Lock()
	defer d.applying.Unlock()
	changed := d.health.TakeChanged()
	var errs []error
	for i := range d.applied.Services {
		s := d.applied.Services[i]
		if all, ok := changed[s.Name]; ok {
			errs = append(errs, d.balancer.UpdateService(weightedService(s, byServer(all))))
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
