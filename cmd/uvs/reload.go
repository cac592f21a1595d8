package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack/host"
)

// giveBackEvery is how often the director looks whether what outlived its real
// server or service has ended.
const giveBackEvery = 5 * time.Second

// reloadOn reads the configuration anew at each signal until ctx ends.
func (d *director) reloadOn(ctx context.Context, hup <-chan os.Signal, load func() (*config.Config, error)) error {
	look := time.NewTicker(giveBackEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			start := time.Now()
			if err := d.giveBack(ctx); err != nil {
				d.log.Error("what belonged to flows that have ended is still steered", "error", err)
			}
			// With millions of flows it takes a while, of which little is to be seen.
			look.Reset(max(giveBackEvery, 50*time.Since(start)))
		case <-hup:
			cfg, err := load()
			if err == nil {
				err = d.reload(ctx, cfg)
			}
			d.reloaded(err)
		}
	}
}

// reload puts cfg into force: services, real servers, timeouts, LIPs and what
// is announced. Where it fails, the configuration before it stays in force.
func (d *director) reload(ctx context.Context, cfg *config.Config) error {
	if err := unchangeable(d.cfg, cfg); err != nil {
		return err
	}
	p, err := d.newPlan(cfg)
	if err != nil {
		return err
	}
	speak, err := speakerOptions(cfg, d.log)
	if err != nil {
		return err
	}
	if err = d.balance(p); err == nil {
		err = d.steerAll(ctx, p)
	}
	if err == nil {
		back := d.adopt(cfg, p)
		// The routes go first, so that a peer that comes gets none that is not
		// for it.
		if err = errors.Join(d.announce(ctx), d.speaker.Configure(ctx, speak)); err != nil {
			back()
		}
	}
	if err != nil {
		return errors.Join(err, d.balance(d.plan), d.steer(ctx, d.plan), d.announce(ctx))
	}
	return nil
}

// adopt makes cfg and its plan what the director goes by. What it returns
// takes that back.
func (d *director) adopt(cfg *config.Config, p *plan) (back func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	oldCfg, oldPlan, oldLoaded := d.cfg, d.plan, d.loaded
	d.cfg, d.plan, d.loaded = cfg, p, time.Now()
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.cfg, d.plan, d.loaded = oldCfg, oldPlan, oldLoaded
	}
}

// steerAll steers what p wants, and what flows need that outlive their real
// server, its mode, their VIP or their service. Where the host cannot have the
// latter, because their addresses are in use otherwise by now, they end.
func (d *director) steerAll(ctx context.Context, p *plan) error {
	wanted := p.host
	p.host = withOutlived(wanted, d.plan.host, d.balancer.Flows(d.road.Now()))
	if steersMore(p.host, wanted) {
		p.asked = &wanted
	}
	// What is new is announced once it is judged.
	if err := d.silence(slices.Concat(d.plan.host.VIPs, p.host.VIPs)); err != nil {
		return err
	}
	if d.steer(ctx, p) == nil {
		return nil
	}
	p.host, p.asked = wanted, nil
	return d.steer(ctx, p)
}

// giveBack steers no longer what belonged to flows that have ended by now.
// Until then such packets went back to the host unchanged.
func (d *director) giveBack(ctx context.Context) error {
	if d.plan.asked == nil {
		return nil
	}
	p := *d.plan
	p.host = withOutlived(*p.asked, d.plan.host, d.balancer.Flows(d.road.Now()))
	if !steersMore(d.plan.host, p.host) {
		return nil
	}
	if !steersMore(p.host, *p.asked) {
		p.asked = nil
	}
	if err := d.steer(ctx, &p); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plan = &p
	return nil
}

// steersMore says whether a, which withOutlived made of b, or of what b was made
// of when more flows were left, asks for more than b.
func steersMore(a, b host.Desired) bool {
	return len(a.VIPs) > len(b.VIPs) || len(a.Replies) > len(b.Replies)
}

// withOutlived is wanted, and of what was steered before what flows still need:
// their VIPs, which are not announced any more, and in nat what their replies
// come from.
func withOutlived(wanted, before host.Desired, flows iter.Seq[lb.FlowInfo]) host.Desired {
	vips, replies := without(before.VIPs, wanted.VIPs), without(before.Replies, wanted.Replies)
	idleVIPs, idleReplies := setOf(vips), setOf(replies)
	for f := range flows {
		if len(idleVIPs)+len(idleReplies) == 0 {
			break
		}
		if f.IsTemplate() {
			continue
		}
		delete(idleVIPs, f.Tuple.Dst.Netip(f.Tuple.Family))
		// Only a reply to the client's own address is found by where it comes from.
		if t, ok := f.Server.Mode.ReplyTuple(f.Flow); ok && t.Dst == f.Tuple.Src {
			r := host.Reply{Addr: t.Src.Netip(t.Family), Proto: t.Proto, Port: t.SrcPort}
			delete(idleReplies, r)
			r.Port = 0
			delete(idleReplies, r)
			if t.Proto == packet.UDP && t.SrcPort == isakmp {
				delete(idleReplies, host.Reply{Addr: r.Addr, Proto: packet.ESP})
				delete(idleReplies, host.Reply{Addr: r.Addr, Proto: packet.AH})
			}
		}
	}
	vips = slices.DeleteFunc(vips, func(v netip.Addr) bool { return idleVIPs[v] })
	replies = slices.DeleteFunc(replies, func(r host.Reply) bool { return idleReplies[r] })
	d := wanted
	d.VIPs, d.Replies = slices.Concat(wanted.VIPs, vips), slices.Concat(wanted.Replies, replies)
	d.LAN.Silent = slices.Concat(wanted.LAN.Silent, vips)
	return d
}

// without is those of a that are not in b.
func without[T comparable](a, b []T) []T {
	drop := setOf(b)
	return slices.DeleteFunc(slices.Clone(a), func(v T) bool { return drop[v] })
}

func setOf[T comparable](all []T) map[T]bool {
	set := make(map[T]bool, len(all))
	for _, v := range all {
		set[v] = true
	}
	return set
}

// unchangeable is an error for each key that only a start can change.
func unchangeable(old, now *config.Config) error {
	var errs []error
	for _, k := range []struct {
		key     string
		changed bool
	}{
		{"node", old.Node != now.Node},
		{"device", old.Device != now.Device},
		{"limits", old.Limits != now.Limits},
		{"admin", old.Admin != now.Admin},
	} {
		if k.changed {
			errs = append(errs, fmt.Errorf("%s: cannot change while uvs runs; restart it", k.key))
		}
	}
	return errors.Join(errs...)
}

// reloaded notes how a reload ended.
func (d *director) reloaded(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = err
	if err != nil {
		d.reloads.bad++
		d.log.Error("configuration not reloaded; the one before stays in force", "error", err)
		return
	}
	d.reloads.good++
	d.log.Info("configuration reloaded", "services", len(d.cfg.Services))
}
