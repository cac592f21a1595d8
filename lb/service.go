package lb

import (
	"iter"
	"net/netip"
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
	set        []*RealServer // all, newest first
	v4, v6     Scheduler     // over the real servers that can take clients of the family; nil: none
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
}

// find is the service that a request belongs to, or nil: first by its port,
// then one for all ports.
func (s *snapshot) find(t *packet.Tuple) *service {
	k := listenKey{vip: t.Dst, port: t.DstPort, proto: t.Proto, family: t.Family}
	p := s.listens[k]
	if p == nil {
		k.port = 0
		if p = s.listens[k]; p == nil {
			return nil
		}
	}
	return p.Load()
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
