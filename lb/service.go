package lb

import (
	"iter"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// A service is one ServiceConfig in a snapshot. It never changes; a reload
// builds a new one that shares the traffic counters.
type service struct {
	name       string
	listens    []Listen
	onNoServer OnNoServer
	lifetimes  *lifetimes
	policy     Policy
	keepTrails bool                            // the policy may have to reset a connection, see reset.go
	set        []*RealServer                   // all, newest first
	persistent *persistent                     // nil: not
	byEndpoint map[packet.Endpoint]*RealServer // set, where persistent
	v4, v6     Scheduler                       // over the real servers that can take clients of the family; nil: none
}

// under is s with another policy, or with its own where p is nil.
func (s *service) under(p *Policy) *service {
	if p == nil || s.policy == *p {
		return s
	}
	next := *s
	next.policy, next.keepTrails = *p, p.mayReset()
	return &next
}

// pick chooses the real server for a new flow.
func (s *service) pick(t *packet.Tuple, now time.Duration) *RealServer {
	sched := s.v4
	if t.Family == packet.IPv6 {
		sched = s.v6
	}
	if sched == nil {
		return nil
	}
	return sched.Pick(t, now)
}

// current is rs as the service has it now, if it can take a persistent client
// of a family, or nil.
func (s *service) current(rs *RealServer, family uint8) *RealServer {
	is := s.byEndpoint[rs.Endpoint]
	if is == nil || is.Down || is.Endpoint.Family != family && !is.Mode.Crosses() {
		return nil
	}
	return is
}

// endpoints is the set by address and port.
func (s *service) endpoints() map[packet.Endpoint]*RealServer {
	m := make(map[packet.Endpoint]*RealServer, len(s.set))
	for _, rs := range s.set {
		m[rs.Endpoint] = rs
	}
	return m
}

// A listenKey is what a packet must be sent to, to belong to a service. Port 0
// is every port.
type listenKey struct {
	vip    packet.Addr
	port   uint16
	proto  uint8
	family uint8
}

// keys are the ports of l one by one: a lookup is then one or two accesses to a
// map however many services there are.
func (l Listen) keys(yield func(listenKey) bool) {
	first, last := l.ports()
	k := listenKey{proto: l.Proto}
	k.vip, k.family = packet.AddrFrom(l.VIP)
	for p := int(first); p <= int(last); p++ {
		k.port = uint16(p)
		if !yield(k) {
			return
		}
	}
}

var _ iter.Seq[listenKey] = Listen{}.keys

// A vipKey is an address that the netstack behind the VIPs answers for.
type vipKey struct {
	addr   packet.Addr
	family uint8
}

// A place is where the packet loops find a service: UpdateService puts the
// next form of it there and leaves all others alone.
type place struct{ atomic.Pointer[service] }

// A snapshot is a whole configuration as the packet loops read it.
type snapshot struct {
	services []*place // in the order of the Config
	listens  map[listenKey]*place
	vips     map[vipKey]struct{}
	locals   []netip.Prefix
	ftp      map[vipKey]*place       // services on port 21
	callers  atomic.Pointer[callers] // nil: none
	served   [2]bool                 // IPv4, IPv6: there is a service
}

// The ports of FTP and of the data connections that an FTP server opens.
const (
	ftp     = 21
	ftpData = 20
)

// isFTP says whether l is on FTP's port alone.
func (l Listen) isFTP() bool {
	first, last := l.ports()
	return l.Proto == packet.TCP && first == ftp && last == ftp
}

// find is the service that a request belongs to, or nil: first by its port,
// then one for all ports. As in IPVS (ip_vs_schedule) what comes from FTP's data
// port answers a connection that the director has not seen, and is no request.
func (s *snapshot) find(t *packet.Tuple) *service {
	if t.SrcPort == ftpData {
		return nil
	}
	k := listenKey{vip: t.Dst, port: t.DstPort, proto: t.Proto, family: t.Family}
	p := s.listens[k]
	if p == nil {
		if p = s.findFTP(t); p != nil {
			if svc := p.Load(); svc.persistent != nil {
				return svc
			}
			return nil // not even by the service for all ports
		}
		k.port = 0
		if p = s.listens[k]; p == nil {
			return nil
		}
	}
	return p.Load()
}

// names says whether s listens on port by itself, or on all.
func (s *service) names(port uint16) bool {
	return slices.ContainsFunc(s.listens, func(l Listen) bool {
		first, last := l.ports()
		return first == 0 || first <= port && port <= last
	})
}

// findFTP is the service on FTP's port whose data connection t may be, or nil.
// Only a persistent one can give it to the client's real server, and gets the
// whole range (ip_vs_service_find): uvs does not read which ports that names.
func (s *snapshot) findFTP(t *packet.Tuple) *place {
	if len(s.ftp) == 0 || t.Proto != packet.TCP || t.DstPort != ftpData && t.DstPort < 1024 {
		return nil
	}
	return s.ftp[vipKey{t.Dst, t.Family}]
}

func (s *snapshot) isVIP(t *packet.Tuple) bool {
	_, ok := s.vips[vipKey{t.Dst, t.Family}]
	return ok
}

func (s *snapshot) isLocal(t *packet.Tuple) bool {
	if len(s.locals) == 0 {
		return false
	}
	a := t.Dst.Netip(t.Family)
	for _, p := range s.locals {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
