package lb

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// A Config is everything to balance. It is given whole to Balancer.Apply,
// which keeps no reference to it.
type Config struct {
	Services []ServiceConfig

	// Locals are the FullNAT addresses (LIP) in use. A packet to one of them
	// that no flow has is refused here instead of going up to the VIPs' netstack.
	Locals []netip.Prefix

	// Gone is the Policy of services that an earlier Config had, for the flows
	// that they left: IPVS has one for all, of what its sysctls say now. Nil:
	// each keeps the last that it had.
	Gone *Policy
}

// A ServiceConfig describes one service. The services of a Config have
// different names and no listen in common.
type ServiceConfig struct {
	Name        string // not empty; a service keeps its counters over a reload by its name
	Listens     []Listen
	Scheduler   NewScheduler
	OnNoServer  OnNoServer
	Timeouts    Timeouts
	Persistence Persistence
	Policy      Policy
	RealServers []RealServerConfig
}

// A Listen is a VIP with a protocol and a range of ports. FirstPort 0 takes
// every port of the VIP that no other listen names.
type Listen struct {
	VIP                 netip.Addr
	FirstPort, LastPort uint16 // LastPort 0: FirstPort only
	Proto               uint8  // packet.TCP, packet.UDP or packet.SCTP
}

// A RealServerConfig describes one real server of a service.
type RealServerConfig struct {
	Address netip.AddrPort // port 0 keeps the port that the client asked for
	Weight  int            // 0: gets no new flows
	Down    bool           // with Weight 0: nor do clients that are persistent to it come back, and its flows do as Policy.Down says
	Mode    Mode           // built for this service and real server by modes.New

	// AnswerFrom is the address of the director's from which the real server is
	// answered where Policy.AnswerUnknownReplies says so; without one it is the
	// address that the real server sent to.
	AnswerFrom netip.Addr

	// MaxFlows is the number of flows from which on no scheduler chooses the
	// real server (0: none), until they are fewer than MinFlows, or, where that
	// is 0, than three quarters. MinFlows is not above MaxFlows.
	MaxFlows, MinFlows int
}

// OnNoServer says what a client is told when no real server takes its flow.
type OnNoServer uint8

const (
	AnswerICMP  OnNoServer = iota // port unreachable from the VIP, as IPVS answers
	AnswerReset                   // RST to a TCP client, port unreachable to others
	AnswerDrop                    // nothing
)

// Timeouts are how long a flow of each state is kept without a packet. Zero is
// IPVS's default. They count for flows that exist too, from their next packet
// on.
type Timeouts [numStates]time.Duration

// DefaultTimeouts are those of IPVS.
func DefaultTimeouts() (t Timeouts) {
	for s := range t {
		t[s] = states[s].timeout
	}
	return t
}

// maxTimeout keeps deadlines far from the wrap of the table's clock.
const maxTimeout = 366 * 24 * time.Hour

// ports is the range with both ends.
func (l Listen) ports() (first, last uint16) {
	return l.FirstPort, max(l.FirstPort, l.LastPort)
}

// String is the form of the configuration: a.b.c.d:first-last/proto.
func (l Listen) String() string {
	s := netip.AddrPortFrom(l.VIP, l.FirstPort).String()
	if l.LastPort > l.FirstPort {
		s += fmt.Sprintf("-%d", l.LastPort)
	}
	return s + "/" + protoName(l.Proto)
}

func protoName(p uint8) string {
	switch p {
	case packet.TCP:
		return "tcp"
	case packet.UDP:
		return "udp"
	case packet.SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol %d", p)
}

// check finds every fault of c that Apply could not live with.
func (c *Config) check() error {
	var errs []error
	if c.Gone != nil {
		errs = append(errs, c.Gone.check())
	}
	names := map[string]bool{}
	listens := map[listenKey]string{}
	for i := range c.Services {
		s := &c.Services[i]
		fault := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("services[%d] %q: %w", i, s.Name, fmt.Errorf(format, args...)))
		}
		if s.Name == "" || names[s.Name] {
			fault("the name must be set and be its own")
		}
		names[s.Name] = true
		s.checkListens(listens, fault)
		s.check(fault)
	}
	return errors.Join(errs...)
}

// check finds every fault of s besides its name and its listens.
func (s *ServiceConfig) check(fault func(string, ...any)) {
	if s.Scheduler == nil {
		fault("no scheduler")
	}
	for state, d := range s.Timeouts {
		if d < 0 || d > maxTimeout {
			fault("timeout %v of state %v is not within 0 and %v", d, State(state), maxTimeout)
		}
	}
	if err := s.Persistence.check(); err != nil {
		fault("%w", err)
	}
	if err := s.Policy.check(); err != nil {
		fault("%w", err)
	}
	s.checkRealServers(fault)
}

func (s *ServiceConfig) checkListens(taken map[listenKey]string, fault func(string, ...any)) {
	if len(s.Listens) == 0 {
		fault("no listen")
	}
	for _, l := range s.Listens {
		if !l.VIP.IsValid() || l.VIP.Zone() != "" || l.VIP.Is4In6() || l.VIP.IsUnspecified() || l.VIP.IsMulticast() {
			fault("listen %v: not an address that can be a VIP", l)
			continue
		}
		if l.LastPort != 0 && (l.FirstPort == 0 || l.LastPort < l.FirstPort) {
			fault("listen %v: the port range runs backwards", l)
			continue
		}
		if l.Proto != packet.TCP && l.Proto != packet.UDP && l.Proto != packet.SCTP {
			fault("listen %v: the protocol is none of tcp, udp, sctp", l)
		}
		for k := range l.keys {
			if other, ok := taken[k]; ok {
				fault("listen %v: port %d belongs to service %q too", l, k.port, other)
				break
			}
			taken[k] = s.Name
		}
	}
}

func (s *ServiceConfig) checkRealServers(fault func(string, ...any)) {
	seen := map[netip.AddrPort]bool{}
	for _, rs := range s.RealServers {
		switch a := rs.Address.Addr(); {
		case !a.IsValid() || a.Is4In6() || a.IsUnspecified() || a.IsMulticast():
			fault("real server %v: not an address that a packet can be sent to", rs.Address)
		case seen[rs.Address]:
			fault("real server %v: given twice", rs.Address)
		case rs.Weight < 0:
			fault("real server %v: weight %d is below 0", rs.Address, rs.Weight)
		case rs.MaxFlows < 0 || rs.MinFlows < 0 || rs.MinFlows > rs.MaxFlows:
			fault("real server %v: thresholds %d and %d are not 0 <= lower <= upper", rs.Address, rs.MinFlows, rs.MaxFlows)
		case rs.Mode == nil:
			fault("real server %v: no mode", rs.Address)
		}
		seen[rs.Address] = true
	}
	if len(s.RealServers) == 0 {
		return
	}
	for _, l := range s.Listens {
		if !l.VIP.IsValid() {
			continue
		}
		_, family := packet.AddrFrom(l.VIP)
		if !s.anyFor(family) {
			fault("listen %v: no real server of its family", l)
		}
	}
}

// anyFor says whether a real server can take clients of family.
func (s *ServiceConfig) anyFor(family uint8) bool {
	for _, rs := range s.RealServers {
		_, f := packet.AddrFrom(rs.Address.Addr())
		if rs.Mode != nil && (f == family || rs.Mode.Crosses()) {
			return true
		}
	}
	return false
}
