package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/uvs-project/uvs/health"
	"github.com/uvs-project/uvs/lb"
)

// maxFailing is how many reports of failing real servers wait at most. One
// that finds no room comes again when the real server has failed as often anew.
const maxFailing = 256

// fails takes a report of the balancer's.
func (d *director) fails(f lb.Failing) {
	select {
	case d.failing <- f:
	default:
	}
}

// followFailing ejects real servers that fail, as far as their services can do
// without them.
func (d *director) followFailing(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-d.failing:
			d.eject(f)
		}
	}
}

func (d *director) eject(f lb.Failing) {
	d.applying.Lock()
	p := d.applied
	d.applying.Unlock()
	why := fmt.Sprintf("%d connections of clients failed in a row, %d refused and %d not answered", f.Row.All(), f.Row.Refused, f.Row.Unanswered)
	for i := range p.balance.Services {
		s := &p.balance.Services[i]
		if s.Name != f.Service {
			continue
		}
		known := byServer(d.markDrained(d.health.StatusOf(f.Service)))
		if limit := notEjected(s, p.backups[s.Name], f.Server, known); limit != "" {
			d.health.Spare(f.Service, f.Server, why, limit)
			return
		}
		d.health.Eject(f.Service, f.Server, why)
	}
}

// notEjected says why server, of service s, may not be ejected besides those
// that are; "" if it may.
func notEjected(s *lb.ServiceConfig, b backup, server netip.AddrPort, known map[healthKey]*health.Status) string {
	all, out, others := 0, 0, false
	for j := range s.RealServers {
		rs := &s.RealServers[j]
		h := known[healthKey{s.Name, rs.Address}]
		switch {
		case h == nil || rs.Address == b.sorry:
			continue
		case rs.Address == server || !h.Ejected.IsZero():
			out += rs.Weight
		case h.State.Usable() && share(rs.Weight, h.Percent) > 0:
			others = true
		}
		all += rs.Weight
	}
	switch {
	case !others:
		return "no other real server is fit"
	case 100*out > b.ejected*all:
		return fmt.Sprintf("more than %d %% of the weight would be ejected", b.ejected)
	}
	return ""
}
