package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack/host"
)

// A plan is what a configuration asks of the balancer and of the host.
type plan struct {
	balance lb.Config
	defence lb.Defence
	host    host.Desired
	asked   *host.Desired       // what the configuration asks, where host has more, for flows that outlive it; nil: host
	vips    []netip.Addr        // in the order of the configuration, none twice
	servers []netip.Addr        // RIPs, likewise
	reached map[netip.Addr]bool // the same as a set
	members []watched
	backups map[string]backup // by the name of the service
}

// newPlan translates cfg. It touches nothing: tunnelSource says from which
// address of the host packets to a real server go, for those tunnels whose
// source the configuration leaves open.
func newPlan(cfg *config.Config, tunnelSource func(rip netip.Addr) (netip.Addr, error)) (*plan, error) {
	p := &plan{
		balance: lb.Config{Locals: cfg.Addresses.FullNATPool},
		defence: defence(cfg),
		backups: map[string]backup{},
		reached: map[netip.Addr]bool{},
		host: host.Desired{
			LIPs: cfg.Addresses.FullNATPool,
			LAN:  host.LAN{Announce: cfg.LAN.Announce == config.AnnounceAuto, Interfaces: cfg.LAN.Interfaces},
		},
	}
	p.host.LAN.Silent = silent(cfg)
	var errs []error
	seen := map[netip.Addr]bool{}
	for i := range cfg.Services {
		s := &cfg.Services[i]
		sc := lb.ServiceConfig{
			Name:        s.Name,
			OnNoServer:  answers[s.OnNoServer],
			Timeouts:    timeouts(&s.Timeouts),
			Persistence: persistence(&s.Persistence),
			Policy:      policy(&s.Policy),
		}
		sc.Policy.Failures = s.Health.Passive.Failures
		var err error
		if sc.Scheduler, err = sched.New(s.Scheduler, schedulerOptions(s)); err != nil {
			errs = append(errs, fmt.Errorf("services[%d] %q: %w", i, s.Name, err))
		}
		for _, l := range s.Listen {
			sc.Listens = append(sc.Listens, listen(l))
			if !seen[l.Addr] {
				seen[l.Addr] = true
				p.vips = append(p.vips, l.Addr)
			}
		}
		for j := range s.RealServers {
			if err := p.addServer(cfg, &sc, s, &s.RealServers[j], tunnelSource); err != nil {
				errs = append(errs, fmt.Errorf("services[%d] %q: real_servers[%d]: %w", i, s.Name, j, err))
			}
		}
		if sorry, ok := s.Sorry(); ok {
			if err := p.addServer(cfg, &sc, s, &sorry, tunnelSource); err != nil {
				errs = append(errs, fmt.Errorf("services[%d] %q: sorry_server: %w", i, s.Name, err))
			}
		}
		if err := p.watch(s); err != nil {
			errs = append(errs, fmt.Errorf("services[%d] %q: %w", i, s.Name, err))
		}
		p.balance.Services = append(p.balance.Services, sc)
	}
	p.host.VIPs = p.vips
	return p, errors.Join(errs...)
}

// addServer adds a real server to a service and to what the host must do for
// it.
func (p *plan) addServer(cfg *config.Config, sc *lb.ServiceConfig, s *config.Service, rs *config.RealServer, tunnelSource func(netip.Addr) (netip.Addr, error)) error {
	mode, err := newMode(cfg, sc.Listens, rs, tunnelSource)
	if err != nil {
		return err
	}
	var answerFrom netip.Addr
	if sc.Policy.AnswerUnknownReplies && (rs.Mode == config.NAT || rs.Mode == config.FullNAT) {
		if answerFrom, err = sourceOf(cfg, rs.Address.Addr(), tunnelSource); err != nil {
			return err
		}
	}
	sc.RealServers = append(sc.RealServers, lb.RealServerConfig{
		Address: rs.Address, Weight: rs.Weight, MaxFlows: rs.MaxFlows, MinFlows: rs.MinFlows, Mode: mode,
		AnswerFrom: answerFrom,
	})
	p.steer(rs, s)
	if rip := rs.Address.Addr(); !p.reached[rip] {
		p.reached[rip] = true
		p.servers = append(p.servers, rip)
	}
	return nil
}

// silent are the VIPs that no service wants announced.
func silent(cfg *config.Config) []netip.Addr {
	announced := map[netip.Addr]bool{}
	for i := range cfg.Services {
		for _, l := range cfg.Services[i].Listen {
			announced[l.Addr] = announced[l.Addr] || cfg.Services[i].Announce
		}
	}
	var vips []netip.Addr
	for vip, wanted := range announced {
		if !wanted {
			vips = append(vips, vip)
		}
	}
	slices.SortFunc(vips, netip.Addr.Compare)
	return vips
}

var answers = map[config.OnNoServer]lb.OnNoServer{
	config.AnswerICMP:  lb.AnswerICMP,
	config.AnswerReset: lb.AnswerReset,
	config.AnswerDrop:  lb.AnswerDrop,
}

var removed = map[config.Removed]lb.Removed{
	config.RemovedServe:      lb.RemovedServe,
	config.RemovedKeep:       lb.RemovedKeep,
	config.RemovedReschedule: lb.RemovedReschedule,
	config.RemovedReset:      lb.RemovedReset,
}

var defenceModes = map[config.DefenceMode]lb.DefenceMode{
	config.DefenceOff:    lb.DefenceOff,
	config.DefenceAuto:   lb.DefenceAuto,
	config.DefenceAlways: lb.DefenceAlways,
}

func defence(cfg *config.Config) lb.Defence {
	d := cfg.Defence
	return lb.Defence{
		DropEntry:  defenceModes[d.DropEntry],
		DropPacket: defenceModes[d.DropPacket],
		SecureTCP:  defenceModes[d.SecureTCP],
		DropRate:   d.DropRate,
		FreeFlows:  max(1, cfg.Limits.Flows*d.FreeFlows/100),
		FreeMemory: int64(d.FreeMemory) << 20,
	}
}

var engines = map[config.PersistenceEngine]lb.Engine{
	config.NoEngine:  lb.NoEngine,
	config.SIPEngine: lb.SIPEngine,
}

func persistence(p *config.Persistence) lb.Persistence {
	return lb.Persistence{Timeout: p.Timeout, PrefixV4: p.PrefixV4, PrefixV6: p.PrefixV6, Engine: engines[p.Engine]}
}

func policy(p *config.Policy) lb.Policy {
	return lb.Policy{
		OnePacket:               *p.OnePacket,
		Sloppy:                  *p.Sloppy,
		SecureTCP:               *p.SecureTCP,
		Reuse:                   lb.Reuse(*p.Reuse),
		Removed:                 removed[*p.Removed],
		Down:                    removed[*p.Down],
		Drain:                   *p.Drain,
		ExpireQuiescedTemplates: *p.ExpireQuiescedTemplates,
		ScheduleICMP:            *p.ScheduleICMP,
		AnswerUnknownReplies:    *p.AnswerUnknownReplies,
		ResetExpired:            *p.ResetExpired,
		ClampMSS:                int(*p.ClampMSS),
	}
}

func timeouts(t *config.Timeouts) lb.Timeouts {
	return lb.Timeouts{
		lb.TCPEstablished:       t.TCP,
		lb.TCPFinWait:           t.TCPFIN,
		lb.UDPNormal:            t.UDP,
		lb.SCTPEstablished:      t.SCTP,
		lb.TCPNone:              t.TCPNone,
		lb.TCPSynSent:           t.TCPSynSent,
		lb.TCPSynRecv:           t.TCPSynRecv,
		lb.TCPTimeWait:          t.TCPTimeWait,
		lb.TCPClose:             t.TCPClose,
		lb.TCPCloseWait:         t.TCPCloseWait,
		lb.TCPLastAck:           t.TCPLastACK,
		lb.TCPListen:            t.TCPListen,
		lb.TCPSynAck:            t.TCPSynACK,
		lb.SCTPNone:             t.SCTPNone,
		lb.SCTPInit1:            t.SCTPInit1,
		lb.SCTPInit:             t.SCTPInit,
		lb.SCTPCookieSent:       t.SCTPCookieSent,
		lb.SCTPCookieReplied:    t.SCTPCookieReplied,
		lb.SCTPCookieWait:       t.SCTPCookieWait,
		lb.SCTPCookie:           t.SCTPCookie,
		lb.SCTPCookieEchoed:     t.SCTPCookieEchoed,
		lb.SCTPShutdownSent:     t.SCTPShutdownSent,
		lb.SCTPShutdownReceived: t.SCTPShutdownReceived,
		lb.SCTPShutdownAckSent:  t.SCTPShutdownACKSent,
		lb.SCTPRejected:         t.SCTPRejected,
		lb.SCTPClosed:           t.SCTPClosed,
	}
}

var protocols = map[config.Protocol]uint8{
	config.TCP:  packet.TCP,
	config.UDP:  packet.UDP,
	config.SCTP: packet.SCTP,
}

var tunnelKinds = map[config.TunnelType]packet.EncapKind{
	config.IPIP: packet.IPIP,
	config.GUE:  packet.GUE,
	config.GRE:  packet.GRE,
}

func schedulerOptions(s *config.Service) sched.Options {
	return sched.Options{Flags: s.SchedulerFlags, SlowStart: s.SlowStart, Maglev: sched.Maglev(s.Maglev)}
}

func listen(l config.Listen) lb.Listen {
	out := lb.Listen{VIP: l.Addr, FirstPort: l.First, Proto: protocols[l.Protocol]}
	if !l.EveryPort() && !l.SinglePort() {
		out.LastPort = l.Last
	}
	return out
}

func newMode(cfg *config.Config, listens []lb.Listen, rs *config.RealServer, tunnelSource func(netip.Addr) (netip.Addr, error)) (lb.Mode, error) {
	o := modes.Options{Listens: listens, RealServer: rs.Address, Locals: cfg.Addresses.FullNATPool}
	if rs.Mode == config.TUN {
		o.Tunnel = modes.Tunnel{
			Kind:     tunnelKinds[rs.Tunnel.Type],
			Port:     uint16(rs.Tunnel.Port),
			Checksum: rs.Tunnel.Checksum,
			Fragment: rs.Tunnel.Fragments(),
		}
		var err error
		if o.Tunnel.Source, err = sourceOf(cfg, rs.Address.Addr(), tunnelSource); err != nil {
			return nil, err
		}
	}
	return modes.New(string(rs.Mode), o)
}

// sourceOf is the DIP for a real server.
func sourceOf(cfg *config.Config, rip netip.Addr, tunnelSource func(netip.Addr) (netip.Addr, error)) (netip.Addr, error) {
	for _, a := range cfg.Addresses.TunnelSource {
		if a.Is4() == rip.Is4() {
			return a, nil
		}
	}
	return tunnelSource(rip)
}

// maxReplyPorts is the most ports of a range for which the replies of a real
// server are told apart one by one; of a longer one all its packets of the
// protocol come to uvs, which gives back what is no reply.
const maxReplyPorts = 32

// ftp is the port whose persistent service takes passive data connections too.
const ftp = 21

// isakmp is the port for which the real server of a client has its ESP and AH too.
const isakmp = 500

// steer notes what of a real server's packets the host must hand to uvs, and
// which real servers are reached by their link address.
func (p *plan) steer(rs *config.RealServer, s *config.Service) {
	rip := rs.Address.Addr()
	switch rs.Mode {
	case config.DR:
		p.host.OnLink = append(p.host.OnLink, rip)
	case config.NAT:
		for _, l := range s.Listen {
			if l.Addr.Is4() != rip.Is4() {
				continue
			}
			r := host.Reply{Addr: rip, Proto: protocols[l.Protocol], Port: rs.Address.Port()}
			if l.Protocol == config.UDP && l.First == isakmp && (r.Port == 0 || r.Port == isakmp) {
				p.host.Replies = append(p.host.Replies, host.Reply{Addr: rip, Proto: packet.ESP}, host.Reply{Addr: rip, Proto: packet.AH})
			}
			if l.Protocol == config.TCP && l.First == ftp && s.Persistence.Timeout > 0 {
				r.Port = 0 // passive data connections come from any
				p.host.Replies = append(p.host.Replies, r)
				continue
			}
			if r.Port != 0 || l.EveryPort() || int(l.Last)-int(l.First) >= maxReplyPorts {
				p.host.Replies = append(p.host.Replies, r)
				continue
			}
			for port := int(l.First); port <= int(l.Last); port++ {
				r.Port = uint16(port)
				p.host.Replies = append(p.host.Replies, r)
			}
		}
	}
}
