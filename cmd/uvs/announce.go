package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/uvs-project/uvs/admin"
	"github.com/uvs-project/uvs/announce"
	"github.com/uvs-project/uvs/bgp"
	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/drain"
	"github.com/uvs-project/uvs/health"
	"github.com/uvs-project/uvs/lb"
)

// announce makes what the configuration in force wants announced, and what the
// real servers are fit for, what is announced to routers and on the LAN.
func (d *director) announce(ctx context.Context) error {
	d.announcing.Lock()
	defer d.announcing.Unlock()
	d.mu.Lock()
	cfg, p := d.cfg, d.plan
	d.mu.Unlock()
	verdicts := d.decide(cfg, p)
	var routes []bgp.Route
	if cfg.BGP.AS != 0 {
		var err error
		if routes, err = announcements(cfg, verdicts); err != nil {
			return err
		}
	}
	return errors.Join(d.speaker.Announce(ctx, d.withDrains(cfg, routes)), d.silenceLocked(p.host.VIPs))
}

// silence is silenceLocked for a caller that does not hold d.announcing.
func (d *director) silence(vips []netip.Addr) error {
	d.announcing.Lock()
	defer d.announcing.Unlock()
	return d.silenceLocked(vips)
}

// silenceLocked has those of vips not answered for on the LAN that are not to
// be announced, and those that nothing was decided about yet. d.announcing is
// held.
func (d *director) silenceLocked(vips []netip.Addr) error {
	var silent []netip.Addr
	for _, vip := range vips {
		if !d.verdicts[vip].Announce || d.drains.VIP(vip) == drain.Gone {
			silent = append(silent, vip)
		}
	}
	return d.host.Silence(silent)
}

// decide judges the VIPs by the health of this moment and logs those whose
// verdict has changed. d.announcing is held.
func (d *director) decide(cfg *config.Config, p *plan) map[netip.Addr]announce.Verdict {
	known := byServer(d.status())
	var services []announce.Service
	for i := range cfg.Services {
		if cfg.Services[i].Announce {
			services = append(services, announced(&p.balance.Services[i], p.backups[cfg.Services[i].Name], known))
		}
	}
	now := time.Since(d.started)
	a := &cfg.Announcement
	o := announce.Options{All: a.VIPUp == config.VIPUpAll, HoldDown: a.HoldDown, Span: a.MEDSpan, Degraded: a.DegradedBelow}
	d.probe.keep(p.vips)
	if a.SelfProbe {
		o.Fault = d.probe.fault
	}
	verdicts, next := d.decider.Decide(now, o, services)
	if next > 0 {
		d.lookAgain.Reset(next - now)
	}
	d.judged.Store(&verdicts)
	before := d.verdicts
	d.verdicts = make(map[netip.Addr]announce.Verdict, len(verdicts))
	for _, v := range verdicts {
		d.verdicts[v.VIP] = v
		was, ok := before[v.VIP]
		switch {
		case v.Announce != was.Announce || !ok && !v.Announce:
			d.log.Info("VIP is "+upOrDown(v.Announce), "vip", v.VIP, "level", v.Level, "cause", v.Reason)
		case v.Level != was.Level:
			d.log.Info("VIP has another level", "vip", v.VIP, "level", v.Level, "before", was.Level, "cause", v.Reason)
		}
	}
	return d.verdicts
}

// vips is what was decided last about each VIP.
func (d *director) vips() []announce.Verdict {
	if v := d.judged.Load(); v != nil {
		return *v
	}
	return nil
}

func upOrDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

// announced is a service as the policy of announcements sees it.
func announced(s *lb.ServiceConfig, b backup, known map[healthKey]*health.Status) announce.Service {
	out := announce.Service{Name: s.Name, Quorum: b.quorum, Hysteresis: b.hysteresis}
	for _, l := range s.Listens {
		out.VIPs = append(out.VIPs, l.VIP)
	}
	out.Weight, out.Healthy = weights(s, b, known)
	switch {
	case b.sorry.IsValid():
		out.Answers = "the sorry server answers"
	case b.failOpen:
		out.Answers = "it fails open"
	}
	return out
}

// announcements are the routes of a director that carries packets: every VIP
// of a service that wants it announced and that is fit for it, and the
// aggregates of these.
func announcements(cfg *config.Config, verdicts map[netip.Addr]announce.Verdict) ([]bgp.Route, error) {
	var routes []bgp.Route
	var errs []error
	seen := map[netip.Addr]bool{}
	for i := range cfg.Services {
		s := &cfg.Services[i]
		if !s.Announce {
			continue
		}
		for _, l := range s.Listen {
			v := verdicts[l.Addr]
			if seen[l.Addr] || !v.Announce {
				continue
			}
			seen[l.Addr] = true
			attributes := s.BGP
			attributes.MED += v.MED
			r, err := route(cfg, netip.PrefixFrom(l.Addr, l.Addr.BitLen()), attributes, v.Level)
			errs = append(errs, err)
			if !onlyAggregated(cfg, l.Addr) {
				routes = append(routes, r)
			}
		}
	}
	for _, a := range cfg.BGP.Aggregates {
		best, some := announce.Backup, false
		for vip := range seen {
			if a.Prefix.Contains(vip) {
				best, some = min(best, verdicts[vip].Level), true
			}
		}
		if some {
			r, err := route(cfg, a.Prefix, cfg.BGP.Attributes(), best)
			errs = append(errs, err)
			routes = append(routes, r)
		}
	}
	return routes, errors.Join(errs...)
}

// onlyAggregated says whether a VIP is announced by nothing but a network
// that it lies in.
func onlyAggregated(cfg *config.Config, vip netip.Addr) bool {
	for _, a := range cfg.BGP.Aggregates {
		if a.Only && a.Prefix.Contains(vip) {
			return true
		}
	}
	return false
}

// route is a prefix with its attributes at a level.
func route(cfg *config.Config, prefix netip.Prefix, s config.ServiceBGP, level announce.Level) (bgp.Route, error) {
	prepend := s.Prepend
	switch level {
	case announce.Degraded:
		prepend += s.PrependDegraded
	case announce.Backup:
		prepend += s.PrependBackup
	}
	r := bgp.Route{Prefix: prefix, Prepend: prepend, LocalPref: unlessZero(s.LocalPreference), MED: unlessZero(s.MED)}
	for _, list := range [][]string{cfg.BGP.Communities, s.Communities} {
		standard, large, err := cfg.Communities(list)
		if err != nil {
			return r, fmt.Errorf("%v: %w", prefix, err)
		}
		for _, c := range standard {
			r.Communities = append(r.Communities, bgp.Community(c))
		}
		for _, c := range large {
			r.LargeCommunities = append(r.LargeCommunities, bgp.LargeCommunity(c))
		}
	}
	for i := range cfg.BGP.Peers {
		for _, name := range s.Peers {
			if cfg.BGP.Peers[i].Name() == name {
				r.Peers = append(r.Peers, name)
			}
		}
	}
	return r, nil
}

func unlessZero(n int) *uint32 {
	if n == 0 {
		return nil
	}
	v := uint32(n)
	return &v
}

// speakerOptions are those of the BGP speaker of cfg, which is silent where
// there is no section bgp.
func speakerOptions(cfg *config.Config, log *slog.Logger) (bgp.Options, error) {
	o := bgp.Options{
		AS: uint32(cfg.BGP.AS), RouterID: cfg.BGP.RouterID, ListenPort: cfg.BGP.ListenPort,
		GracefulRestart: time.Duration(cfg.BGP.GracefulRestart), Log: log,
	}
	if o.AS == 0 {
		return bgp.Options{Log: log}, nil
	}
	own, err := ownAddresses()
	if err != nil {
		return o, err
	}
	for i := range cfg.BGP.Peers {
		p := &cfg.BGP.Peers[i]
		if own[p.Address] {
			return o, fmt.Errorf("bgp.peers[%d].address: %v is an address of this host: the peer is ourselves", i, p.Address)
		}
		peer := bgp.Peer{
			Name: p.Name(), Address: p.Address, Interface: p.Interface, AS: uint32(p.AS), LocalAddress: p.LocalAddress,
			Port: uint16(p.Port), Password: p.Password, Passive: p.Passive, Multihop: p.Multihop, TTLSecurity: p.TTLSecurity,
			HoldTime: p.HoldTime, ConnectRetry: p.ConnectRetry, NextHop4: p.NextHop4, NextHop6: p.NextHop6,
			AddPath: p.AddPath, BFD: bgp.BFD{Interval: p.BFD.Interval, Multiplier: p.BFD.Multiplier},
		}
		for _, f := range p.Families {
			peer.IPv4 = peer.IPv4 || f == config.IPv4
			peer.IPv6 = peer.IPv6 || f == config.IPv6
		}
		o.Peers = append(o.Peers, peer)
	}
	return o, nil
}

// ownAddresses are the addresses of this host.
func ownAddresses() (map[netip.Addr]bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this host: %w", err)
	}
	own := map[netip.Addr]bool{}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own[ip.Unmap()] = true
			}
		}
	}
	return own, nil
}

// peerStates are the sessions as admin shows them.
func (d *director) peerStates() []admin.PeerState {
	list := []admin.PeerState{}
	for _, p := range d.speaker.Stats().Peers {
		s := admin.PeerState{
			Peer: p.Peer, AS: p.AS, State: string(p.State), Since: p.Since, Flaps: p.Downs,
			Announced: p.Announced, Refused: p.Refused, LastError: p.LastError,
		}
		if p.BFD != nil {
			s.BFD = p.BFD.State.String()
		}
		list = append(list, s)
	}
	return list
}
