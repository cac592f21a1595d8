package main

import (
	"strings"

	"github.com/uvs-project/uvs/admin"
	"github.com/uvs-project/uvs/health"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/metrics"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

// state is the answer to GET /v1/state.
func (d *director) state() admin.State {
	balance, road := d.balancer.Stats(), d.road.Stats()
	total, fault := road.Total(), d.host.Fault() // which may wait for an Apply under way

	d.mu.Lock()
	defer d.mu.Unlock()
	s := admin.State{
		Node:    d.cfg.Node,
		Version: versionString(),
		Started: d.started,
		Config:  admin.ConfigState{File: d.file, Loaded: d.loaded},
		Device: admin.DeviceState{
			Name: d.tun.Name(), Queues: len(road.Queues), Offloads: d.tun.Offloads(), Egress: string(d.cfg.Device.Egress), FastLane: d.laneState(),
		},
		Warnings: faultLines(fault),
		Drains:   d.drainStates(),
		Flows: admin.FlowState{
			Now: balance.Flows.Now, InLane: balance.Flows.Offered, Limit: balance.Flows.Limit,
			Created: balance.Flows.Created, Expired: balance.Flows.Expired,
			Evicted: balance.Flows.Evicted, Dropped: balance.Flows.Dropped, Ended: balance.Flows.Ended,
			Resets: balance.Flows.Resets, ResetsLost: balance.Flows.ResetsLost,
		},
		Defence: admin.DefenceState{
			DropEntry: balance.Defence.DropEntry, DropPacket: balance.Defence.DropRate, SecureTCP: balance.Defence.SecureTCP,
			FewFlows: balance.Defence.FewFlows, LowMemory: balance.Defence.LowMemory,
		},
		Lookups:  admin.LookupState{Hit: balance.Lookups.Hit, MissSYN: balance.Lookups.MissSYN, MissNonSYN: balance.Lookups.MissNonSYN},
		Packets:  packetState(total),
		Drops:    occurred(total.Dropped),
		Lost:     occurred(total.Lost),
		Notes:    occurred(balance.Reasons),
		Total:    measured(&balance.Total),
		BGP:      d.peerStates(),
		Services: []admin.ServiceState{},
	}
	if d.failed != nil {
		s.Config.LastError = d.failed.Error()
	}
	for _, v := range d.vips() {
		s.VIPs = append(s.VIPs, admin.VIPState{Address: v.VIP.String(), Up: v.Announce, MED: v.MED, Level: v.Level.String(), Reason: v.Reason})
	}
	known := byServer(d.status())
	for i := range balance.Services {
		s.Services = append(s.Services, serviceState(&balance.Services[i], known))
	}
	return s
}

// faultLines are the faults of the host, one a line.
func faultLines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

func packetState(q stack.QueueStats) admin.PacketState {
	p := admin.PacketState{
		Received: q.Packets, Bytes: q.Bytes, Sent: q.Sent, Passed: q.Passed, Returned: q.Returned,
		ByLink: q.ByLink, ByKernel: q.ByKernel,
	}
	for r := range q.Dropped {
		p.Dropped += q.Dropped[r]
		p.Lost += q.Lost[r]
	}
	return p
}

func occurred(counts [packet.NumReasons]uint64) map[string]uint64 {
	m := map[string]uint64{}
	for r, n := range counts {
		if n > 0 {
			m[packet.Reason(r).String()] = n
		}
	}
	return m
}

func serviceState(s *lb.ServiceStats, known map[healthKey]*health.Status) admin.ServiceState {
	out := admin.ServiceState{
		Name:        s.Name,
		Measured:    measured(&s.Measured),
		RealServers: []admin.RealServerState{},
	}
	for _, l := range s.Listens {
		out.Listen = append(out.Listen, l.String())
	}
	for _, rs := range s.RealServers {
		state, checked := health.Checking.String(), (*admin.HealthState)(nil)
		if rs.Removed {
			state = "removed"
		} else if h := known[healthKey{s.Name, rs.Endpoint.AddrPort()}]; h != nil {
			state, checked = h.State.String(), healthState(h)
		}
		out.RealServers = append(out.RealServers, admin.RealServerState{
			Address: metrics.Address(rs.Endpoint), Mode: rs.Mode, Weight: rs.Weight, State: state, Health: checked,
			ActiveFlows: rs.ActiveFlows, InactiveFlows: rs.InactiveFlows, PathMTU: rs.PathMTU,
			Persistent: rs.Templates, MaxFlows: rs.MaxFlows, MinFlows: rs.MinFlows, Overloaded: rs.Overloaded,
			Refused: rs.Refused, Unanswered: rs.Unanswered,
			Measured: measured(&rs.Measured),
		})
	}
	return out
}

func measured(m *lb.Measured) admin.Measured {
	return admin.Measured{
		FlowsOpened: m.Flows,
		Requests:    admin.Traffic{Packets: m.RequestPackets, Bytes: m.RequestBytes},
		Replies:     admin.Traffic{Packets: m.ReplyPackets, Bytes: m.ReplyBytes},
		Rates: admin.Rates{
			FlowsOpened: m.Rates.Flows,
			Requests:    admin.Traffic{Packets: m.Rates.RequestPackets, Bytes: m.Rates.RequestBytes},
			Replies:     admin.Traffic{Packets: m.Rates.ReplyPackets, Bytes: m.Rates.ReplyBytes},
		},
	}
}

// source is the director as metrics sees it.
func (d *director) source() metrics.Source {
	return metrics.Source{
		Version:  versionString(),
		Device:   d.tun.Name(),
		Offloads: d.tun.Offloads(),
		Balancer: d.balancer.Stats,
		Road:     d.road.Stats,
		Health:   d.status,
		VIPs:     d.vips,
		Probes:   func() (good, bad uint64) { return d.probe.good.Load(), d.probe.bad.Load() },
		Routers:  d.speaker.Stats,
		FastLane: func() bool { return d.laneState() == laneOn },
		Refused: func() uint64 {
			if d.lane == nil {
				return 0
			}
			return d.lane.refused.Load()
		},
		Drains: d.drains.All,
		Reload: func() metrics.Reload {
			d.mu.Lock()
			defer d.mu.Unlock()
			return metrics.Reload{Loaded: d.loaded, Good: d.reloads.good, Bad: d.reloads.bad, LastBad: d.failed != nil}
		},
	}
}
