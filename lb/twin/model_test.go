package twin

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
)

// A model is what a balancer does, in maps: no hash, no shard, no wheel, no
// incremental checksum. Where uvs is free to choose, a real server or a local
// port, the model looks at what it chose and says whether that was allowed.
type model struct {
	now       time.Duration
	services  []*service
	locals    []netip.Prefix
	mtu       map[netip.Addr]int
	servers   map[serverID]*server
	flows     map[key]*flow   // by the client's packets
	replies   map[key][]*flow // by the real server's, the newest first
	errors    []bucket        // of each queue's ICMP errors
	resets    []bucket        // and of its resets and what the host behind the VIPs answers
	templates map[client]*template
	over      map[load]string // "yes": the real server takes no flows; "perhaps": it does if an old one ends by the packet
	ending    map[load]bool   // real servers whose flows were ended
	peek      func(key) (lb.Flow, bool)
	total     lb.Traffic
	served    map[bool]bool // by IPv6: there is a service of the family
	would     uint64        // packets that would have opened a flow while it was on
	dropRate  int
}

// A service is one service of the configuration in force.
type service struct {
	name        string
	listens     []lb.Listen
	scheduler   string
	onNo        lb.OnNoServer
	timeouts    lb.Timeouts
	policy      lb.Policy
	persistence lb.Persistence
	servers     []*serverConfig
}

type serverConfig struct {
	addr        netip.AddrPort
	weight      int
	most, least int // thresholds
	mode        string
	tunnel      modes.Tunnel
}

// A serverID is what makes a real server the same one in two configurations.
type serverID struct {
	service string
	addr    netip.AddrPort
	mode    string
	named   string // the listens whose ports become the real server's; empty: every port does
}

// id is what c is in the service.
func (s *service) id(c *serverConfig) serverID {
	_, named := s.named()
	return serverID{s.name, c.addr, c.mode, named}
}

// named are the listens whose ports become those of the real servers. A
// persistent service on every port keeps the ports that it does not name.
func (s *service) named() (named []lb.Listen, id string) {
	every := false
	for _, l := range s.listens {
		if l.FirstPort == 0 {
			every = true
			continue
		}
		named = append(named, l)
	}
	if !every || !s.persists() {
		return nil, ""
	}
	return named, fmt.Sprint("only ", named)
}

// A server is a real server, also after it was removed.
type server struct {
	serverID
	service *service    // as it is, or as it was when it was removed
	names   []lb.Listen // see serverID.named
	tunnel  modes.Tunnel
	weight  int
	removed bool // and not there in another mode either
}

// A load is a real server with all the modes that it has had.
type load struct {
	service string
	addr    netip.AddrPort
}

func (s *server) load() load { return load{s.serverID.service, s.addr} }

// leaves says whether its flows are ended.
func (s *server) leaves() bool { return s.removed && s.service.policy.Removed >= lb.RemovedReschedule }

func (s *server) oneSided() bool { return s.mode == "dr" || s.mode == "tun" }

// A flow is what is remembered of a client.
type flow struct {
	client   key // of its packets
	server   *server
	local    netip.AddrPort // of fullnat
	template *template      // nil: none
	state    string
	ends     uint32 // tick from which on it is gone

	// How far the connection has come by the client's packets, where the policy
	// may have to reset it.
	trailed   bool
	next, ack uint32
}

// A tick is uvs's unit of time, 67 ms. Times are cut to whole ticks, lifetimes
// are rounded up.
func tick(d time.Duration) uint32  { return uint32(d >> 26) }
func ticks(d time.Duration) uint32 { return uint32((d + 1<<26 - 1) >> 26) }

func (f *flow) serverEnd() netip.AddrPort {
	a, port := f.server.addr, f.client.dst.Port()
	keeps := f.server.named != "" && !slices.ContainsFunc(f.server.names, func(l lb.Listen) bool {
		return l.FirstPort <= port && port <= max(l.FirstPort, l.LastPort)
	})
	if a.Port() == 0 || keeps {
		return netip.AddrPortFrom(a.Addr(), f.client.dst.Port())
	}
	return a
}

// replyKey is that of the real server's packets, if they come back this way.
func (f *flow) replyKey() (key, bool) {
	switch f.server.mode {
	case "nat":
		return key{f.serverEnd(), f.client.src, f.client.proto}, true
	case "fullnat":
		return key{f.serverEnd(), f.local, f.client.proto}, true
	}
	return key{}, false
}

// advance lets time pass.
func (m *model) advance(to time.Duration) {
	m.now = to
	for _, f := range m.flows {
		if int32(f.ends-tick(to)) <= 0 {
			m.remove(f)
		}
	}
}

func (m *model) remove(f *flow) {
	delete(m.flows, f.client)
	f.template.leave(f, tick(m.now))
	if k, ok := f.replyKey(); ok {
		m.replies[k] = slices.DeleteFunc(m.replies[k], func(o *flow) bool { return o == f })
		if len(m.replies[k]) == 0 {
			delete(m.replies, k)
		}
	}
}

// mostRivals is how many flows one tuple of replies leads to at most.
const mostRivals = 4

func (m *model) add(f *flow) {
	m.flows[f.client] = f
	if k, ok := f.replyKey(); ok {
		all := append([]*flow{f}, m.replies[k]...) // the newest flow has them
		m.replies[k] = all[:min(len(all), mostRivals)]
	}
}

// apply replaces the configuration.
func (m *model) apply(services []*service) {
	m.services = services
	m.served = map[bool]bool{}
	for _, s := range services {
		for _, l := range s.listens {
			m.served[l.VIP.Is6()] = true
		}
		for _, c := range s.servers {
			id := s.id(c)
			if m.servers[id] == nil {
				m.servers[id] = &server{serverID: id}
				m.servers[id].names, _ = s.named()
			}
			m.servers[id].tunnel = c.tunnel
		}
	}
	for _, rs := range m.servers {
		replaced := true
		rs.removed, rs.weight = true, 0
		for _, s := range services {
			if s.name != rs.serverID.service {
				continue
			}
			rs.service = s
			for _, c := range s.servers {
				if c.addr == rs.addr {
					rs.removed, rs.weight = false, c.weight
					replaced = s.id(c) != rs.serverID
				}
			}
		}
		if !rs.leaves() && (rs.removed || !replaced) {
			m.ending[rs.load()] = false
		}
	}
}

// tick ends the flows of real servers that have left, once for each, and
// returns those whose ends are reset.
func (m *model) tick() (reset []*flow) {
	fresh := map[load]bool{}
	for _, rs := range m.servers {
		if rs.leaves() && !m.ending[rs.load()] {
			m.ending[rs.load()], fresh[rs.load()] = true, true
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	m.endTemplates(fresh)
	for _, f := range m.flows {
		removed := f.server.removed && f.server.service.policy.Removed == lb.RemovedReset
		switch {
		case !m.ending[f.server.load()]:
		case f.trailed && f.server.service.keepsTrails() && (f.state == "ES" || f.state == "FW" || f.state == "CW"):
			reset = append(reset, f)
			f.state = "CL"
			f.ends = tick(m.now) + ticks(f.server.service.lifetime("CL"))
		case f.server.service.keepsTrails() && f.state == "CL", removed && f.client.proto == packet.TCP:
		default:
			m.remove(f)
		}
	}
	return reset
}

func (s *service) keepsTrails() bool {
	return s.policy.ResetExpired || s.policy.Removed == lb.RemovedReset
}

// trail follows the connection by a packet of the client's.
func (f *flow) trail(in *pkt) {
	if in.event() == "syn" {
		f.trailed = false
		return
	}
	if in.proto != packet.TCP || in.cut > 0 || in.flags&(packet.ACK|packet.RST) != packet.ACK {
		return
	}
	next := in.seq + uint32(in.size)
	if in.flags&packet.FIN != 0 {
		next++
	}
	if !f.trailed || int32(next-f.next) > 0 {
		f.next = next
	}
	if !f.trailed || int32(in.ack-f.ack) > 0 {
		f.ack = in.ack
	}
	f.trailed = true
}

// resets are the two segments that end the connection f, to its real server
// and to its client.
func (f *flow) resets(got []byte) [2][]byte {
	rst := pkt{
		src: f.client.src, dst: f.client.dst, proto: packet.TCP, ttl: 64, df: true,
		flags: packet.RST | packet.ACK, seq: f.next, ack: f.ack,
	}
	toServer := f.carry(false, &rst, got).bytes
	rst.src, rst.dst, rst.seq, rst.ack = rst.dst, rst.src, rst.ack, rst.seq
	return [2][]byte{toServer, rst.bytes()}
}

// find is the service that a packet is sent to: that of its port, or one for
// all ports. What comes from FTP's data port is never a request.
func (m *model) find(k key) *service {
	var all *service
	if k.src.Port() == 20 {
		return nil
	}
	for _, s := range m.services {
		for _, l := range s.listens {
			switch port := k.dst.Port(); {
			case l.VIP != k.dst.Addr() || l.Proto != k.proto:
			case l.FirstPort == 0:
				all = s
			case port == l.FirstPort || port > l.FirstPort && port <= l.LastPort:
				return s
			}
		}
	}
	return all
}

func (m *model) isVIP(a netip.Addr) bool {
	for _, s := range m.services {
		for _, l := range s.listens {
			if l.VIP == a {
				return true
			}
		}
	}
	return false
}

func (m *model) isLocal(a netip.Addr) bool {
	return slices.ContainsFunc(m.locals, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (m *model) count(s *server, reply bool, n int) {
	if reply {
		m.total.ReplyPackets++
		m.total.ReplyBytes += uint64(n)
		return
	}
	m.total.RequestPackets++
	m.total.RequestBytes += uint64(n)
}
