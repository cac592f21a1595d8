package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/uvs-project/uvs/admin"
	"github.com/uvs-project/uvs/bgp"
	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/drain"
	"github.com/uvs-project/uvs/health"
)

// lookEvery is how often a drain is looked at.
const lookEvery = time.Second

// status is what was found of the real servers, those that are drained marked
// so.
func (d *director) status() []health.Status { return d.markDrained(d.health.Status()) }

func (d *director) markDrained(all []health.Status) []health.Status {
	for i := range all {
		if s := &all[i]; s.State.Usable() && d.drains.Server(s.Service, s.Server) {
			s.State, s.Cause = health.Draining, "drained by the operator"
		}
	}
	return all
}

// startDrain begins a drain. exit ends the director when it is gone.
func (d *director) startDrain(ctx context.Context, t drain.Target, o drain.Options, exit bool) error {
	if err := d.knows(t); err != nil {
		return err
	}
	if exit && !t.Node {
		return errors.New("exit goes with the node only")
	}
	if err := d.drains.Start(t, o, d.loads()(t), time.Now()); err != nil {
		return err
	}
	if t.Node {
		d.exitWhenGone.Store(exit) // the drain of anything else says nothing about the node's
	}
	d.log.Info("draining", "what", t.String(), "deadline", o.Deadline, "flows", o.Flows, "quiet", o.Quiet)
	return d.drainChanged(ctx, t)
}

func (d *director) undoDrain(ctx context.Context, t drain.Target) error {
	if !d.drains.Undo(t) {
		return fmt.Errorf("%v is not drained", t)
	}
	if t.Node {
		d.exitWhenGone.Store(false)
	}
	d.log.Info("no longer drained", "what", t.String())
	return d.drainChanged(ctx, t)
}

// knows is an error where t is nothing that this director has.
func (d *director) knows(t drain.Target) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.cfg.Services {
		s := &d.cfg.Services[i]
		switch {
		case t.Node, t.VIP.IsValid() && listensOn(s, t.VIP):
			return nil
		case t.Server.IsValid() && (t.Service == "" || t.Service == s.Name):
			if slices.ContainsFunc(s.RealServers, func(rs config.RealServer) bool { return rs.Address == t.Server }) {
				return nil
			}
		}
	}
	if t.Node {
		return nil // also without services
	}
	return fmt.Errorf("no service has the %v; uvs status lists what there is", t)
}

func listensOn(s *config.Service, vip netip.Addr) bool {
	return slices.ContainsFunc(s.Listen, func(l config.Listen) bool { return l.Addr == vip })
}

// drainChanged puts the drains into force.
func (d *director) drainChanged(ctx context.Context, t drain.Target) error {
	var errs []error
	if t.Server.IsValid() {
		errs = append(errs, d.reweigh(t.Server))
	}
	return errors.Join(append(errs, d.announce(ctx))...)
}

// reweigh gives the balancer the weights of the services of a real server.
func (d *director) reweigh(server netip.AddrPort) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	known := byServer(d.status())
	var errs []error
	for _, s := range d.applied.balance.Services {
		if known[healthKey{s.Name, server}] != nil {
			errs = append(errs, d.balancer.UpdateService(d.applied.weightedService(s, known)))
		}
	}
	return errors.Join(errs...)
}

// followDrains looks at the drains until ctx ends. It ends by itself when the
// node is gone and was to exit then.
func (d *director) followDrains(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if len(d.drains.All()) == 0 {
			continue
		}
		if nodeGone := d.stepDrains(ctx); nodeGone && d.exitWhenGone.Load() {
			return nil
		}
	}
}

// stepDrains looks at the drains once, and says whether the node is gone by it.
func (d *director) stepDrains(ctx context.Context) (nodeGone bool) {
	for _, gone := range d.drains.Step(time.Now(), d.loads()) {
		d.log.Info("drained", "what", gone.Target.String(), "cause", gone.Cause, "flows", gone.Left)
		if err := d.drainChanged(ctx, gone.Target); err != nil {
			d.log.Error("the drain is not in force", "what", gone.Target.String(), "error", err)
		}
		nodeGone = nodeGone || gone.Target.Node
	}
	return nodeGone
}

// loads is what goes over targets at this moment.
func (d *director) loads() func(drain.Target) drain.Load {
	stats := d.balancer.Stats()
	return func(t drain.Target) (l drain.Load) {
		for i := range stats.Services {
			s := &stats.Services[i]
			vip := false
			for _, on := range s.Listens {
				vip = vip || on.VIP == t.VIP
			}
			for j := range s.RealServers {
				rs := &s.RealServers[j]
				if t.Node || vip || rs.Endpoint.AddrPort() == t.Server && (t.Service == "" || t.Service == s.Name) {
					l.Flows += rs.ActiveFlows
					l.Packets += rs.RequestPackets
				}
			}
		}
		return l
	}
}

// withDrains is routes as the drains leave them: those of VIPs that are
// leaving ask routers for other directors, those that are gone are left out.
func (d *director) withDrains(cfg *config.Config, routes []bgp.Route) []bgp.Route {
	var left []bgp.Route
	for _, r := range routes {
		phase := d.drains.Of(drain.Target{Node: true})
		if r.Prefix.IsSingleIP() {
			phase = d.drains.VIP(r.Prefix.Addr())
		}
		switch phase {
		case drain.Gone:
			continue
		case drain.Leaving:
			r.Communities = append(r.Communities, bgp.GracefulShutdown)
			r.Prepend += cfg.Drain.Prepend
		}
		left = append(left, r)
	}
	return left
}

// leave drains the node as the configuration says, before the director stops.
// It returns at once where no router could be told, and early at another
// signal or when ctx ends.
func (d *director) leave(ctx context.Context, again <-chan os.Signal) {
	d.mu.Lock()
	o, speaks := drainOptions(&d.cfg.Drain), d.cfg.BGP.AS != 0
	d.mu.Unlock()
	if !speaks || o.Deadline == 0 {
		return
	}
	node := drain.Target{Node: true}
	if err := d.startDrain(ctx, node, o, false); err != nil {
		d.log.Error("cannot drain", "error", err)
		return
	}
	// Whoever kills what does not stop in time counts from the signal, so the
	// deadline is not to wait for the next look.
	over := time.NewTimer(o.Deadline)
	defer over.Stop()
	tick := time.NewTicker(lookEvery / 10)
	defer tick.Stop()
	for d.drains.Of(node) == drain.Leaving {
		select {
		case <-ctx.Done():
			return
		case <-again:
			d.log.Info("asked again: not waiting any longer")
			return
		case <-over.C:
			d.stepDrains(ctx)
		case <-tick.C:
		}
	}
}

func drainOptions(c *config.Drain) drain.Options {
	return drain.Options{Deadline: c.Deadline, Flows: int64(c.Flows), Quiet: c.Quiet}
}

// drainStates are the drains as admin shows them.
func (d *director) drainStates() []admin.DrainState {
	list := []admin.DrainState{}
	for _, s := range d.drains.All() {
		list = append(list, admin.DrainState{
			DrainTarget: admin.DrainTarget{Node: s.Target.Node, VIP: s.Target.VIP, Service: s.Target.Service, Server: s.Target.Server},
			What:        s.Target.String(), Phase: string(s.Phase), Cause: s.Cause, Began: s.Began, Deadline: s.Began.Add(s.Deadline),
			Flows: s.Left,
		})
	}
	return list
}

// drainer answers the requests of admin.
func (d *director) drainer() admin.Drainer {
	target := func(t admin.DrainTarget) drain.Target {
		return drain.Target{Node: t.Node, VIP: t.VIP, Service: t.Service, Server: t.Server}
	}
	return admin.Drainer{
		List: d.drainStates,
		Start: func(ctx context.Context, r admin.DrainRequest) error {
			o := drain.Options{Deadline: r.Deadline, Flows: r.Flows, Quiet: r.Quiet}
			return d.startDrain(ctx, target(r.DrainTarget), o, r.Exit)
		},
		Undo: func(ctx context.Context, t admin.DrainTarget) error { return d.undoDrain(ctx, target(t)) },
	}
}
