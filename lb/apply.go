package lb

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/uvs-project/uvs/packet"
)

// An account is what lives on of a service over reloads, by its name.
type account struct {
	id      uint32             // its own, never given to another
	servers []*RealServer      // the last form of each record, those removed but not freed too
	retired map[string]Traffic // of the records that were freed, by the name of their mode
	meter   meter
	leaving []*RealServer // of servers, those whose flows are to end; see leave.go
}

// Apply replaces the configuration as a whole, or returns every fault of c and
// changes nothing.
//
// Flows go on with the real server and the mode that opened them; of those of
// removed real servers and services, Policy.Removed decides. A real server
// that stays keeps its place, its counters and its flows; one that comes back
// before its last flow has ended gets counters and flows back; one whose mode
// changes keeps place and flows and counts its packets from zero. New ones go
// to the head of the list, as in IPVS, in the order of the configuration.
func (b *Balancer) Apply(c Config) error {
	if err := c.check(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.freeRecords()

	byID := slices.Clone(*b.servers.byID.Load())
	next := &snapshot{
		listens: map[listenKey]*place{},
		vips:    map[vipKey]struct{}{},
		ftp:     map[vipKey]*place{},
		locals:  slices.Clone(c.Locals),
	}
	byName := map[string]*service{}
	for i := range c.Services {
		s := b.buildService(&c.Services[i], &byID)
		byName[s.name] = s
		p := new(place)
		p.Store(s)
		next.services = append(next.services, p)
		for _, l := range s.listens {
			for k := range l.keys {
				next.listens[k] = p
				next.vips[vipKey{k.vip, k.family}] = struct{}{}
			}
			if l.isFTP() {
				vip, family := packet.AddrFrom(l.VIP)
				next.ftp[vipKey{vip, family}] = p
			}
		}
	}
	next.findCallers()
	// What outlived its service under another policy may have changed too.
	carries := c.Gone == nil && maps.EqualFunc(b.byName, byName, (*service).carriesAs)
	b.byName = byName
	for k := range next.vips {
		next.served[familyIndex(k.family)] = true
	}
	for name, a := range b.accounts {
		a.settle(byName[name], c.Gone, next.served, byID)
		b.noteLeaving(a)
	}
	b.servers.byID.Store(&byID) // before the services that pick from it
	b.state.Store(next)
	b.setOrigins()
	if !carries {
		b.takeBack()
	}
	return nil
}

// UpdateService replaces one service by c, which has the name and the listens
// of a service in force, or returns every fault of c and changes nothing. It
// means to that service what Apply does, and nothing to the others: its cost
// is that of one service however many there are.
func (b *Balancer) UpdateService(c ServiceConfig) error {
	var errs []error
	c.check(func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("service %q: %w", c.Name, fmt.Errorf(format, args...)))
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.byName[c.Name]
	switch {
	case was == nil:
		return fmt.Errorf("service %q: there is none of that name; a new one needs the whole configuration", c.Name)
	case !slices.Equal(was.listens, c.Listens):
		return fmt.Errorf("service %q: other listens need the whole configuration", c.Name)
	}
	b.freeRecordsOf(b.accounts[c.Name])
	byID := slices.Clone(*b.servers.byID.Load())
	s := b.buildService(&c, &byID)
	b.byName[c.Name] = s
	b.accounts[c.Name].settle(s, nil, b.state.Load().served, byID)
	b.noteLeaving(b.accounts[c.Name])
	b.servers.byID.Store(&byID) // before the service that picks from it
	for k := range c.Listens[0].keys {
		b.state.Load().listens[k].Store(s)
		break // all listens lead to one place
	}
	if s.policy.AnswerUnknownReplies || was.policy.AnswerUnknownReplies {
		b.setOrigins()
	}
	if was.calls() || s.calls() {
		b.state.Load().findCallers()
	}
	if !was.carriesAs(s) {
		b.takeBack()
	}
	return nil
}

// freeRecords forgets the real servers that were removed and have no flow any
// more, so that their ids can be given to others.
func (b *Balancer) freeRecords() {
	for name, a := range b.accounts {
		b.freeRecordsOf(a)
		if b.byName[name] == nil && len(a.servers) == 0 {
			b.gone.add(a.former())
			delete(b.accounts, name)
			delete(b.left, a)
		}
	}
}

// freeRecordsOf does so for one account.
func (b *Balancer) freeRecordsOf(a *account) {
	a.servers = slices.DeleteFunc(a.servers, func(rs *RealServer) bool {
		if !rs.removed || !rs.free() {
			return false
		}
		sum := a.retired[rs.Mode.String()]
		sum.add(rs.counted())
		a.retired[rs.Mode.String()] = sum
		b.freeIDs = append(b.freeIDs, rs.id)
		return true
	})
}

func (b *Balancer) buildService(c *ServiceConfig, byID *[]*RealServer) *service {
	a := b.accounts[c.Name]
	if a == nil {
		b.numAccounts++
		a = &account{id: b.numAccounts, retired: map[string]Traffic{}}
		b.accounts[c.Name] = a
	}
	s := &service{
		name:       c.Name,
		listens:    slices.Clone(c.Listens),
		onNoServer: c.OnNoServer,
		lifetimes:  c.Timeouts.lifetimes(),
		policy:     c.Policy,
		keepTrails: c.Policy.mayReset(),
	}
	s.persistent = newPersistent(c.Persistence, a.id)
	before := b.byName[c.Name]
	if before == nil {
		before = new(service)
	}
	known := map[packet.Endpoint][]int{} // places in a.servers, by mode more than one
	for i, rs := range a.servers {
		known[rs.Endpoint] = append(known[rs.Endpoint], i)
	}
	wanted := map[packet.Endpoint]*RealServerConfig{}
	for i := range c.RealServers {
		wanted[packet.EndpointFrom(c.RealServers[i].Address)] = &c.RealServers[i]
	}
	for _, rs := range before.set {
		if rc := wanted[rs.Endpoint]; rc != nil {
			next := b.buildRealServer(rc, s, a, known, byID)
			if next.Weight == 0 {
				next.LastWeight = rs.LastWeight
			}
			s.set = append(s.set, next)
			delete(wanted, rs.Endpoint)
		}
	}
	for i := range c.RealServers {
		rc := &c.RealServers[i]
		if wanted[packet.EndpointFrom(rc.Address)] != nil {
			s.set = slices.Insert(s.set, 0, b.buildRealServer(rc, s, a, known, byID))
		}
	}
	if s.persistent != nil {
		s.byEndpoint = s.endpoints()
	}
	s.v4 = s.scheduler(packet.IPv4, c.Scheduler, before.v4)
	s.v6 = s.scheduler(packet.IPv6, c.Scheduler, before.v6)
	return s
}

// scheduler is the one for clients of a family, nil where the service has no
// such listen or real server.
func (s *service) scheduler(family uint8, build NewScheduler, before Scheduler) Scheduler {
	listens := slices.ContainsFunc(s.listens, func(l Listen) bool {
		_, f := packet.AddrFrom(l.VIP)
		return f == family
	})
	if !listens {
		return nil
	}
	var set []*RealServer
	for _, rs := range s.set {
		if rs.Endpoint.Family == family || rs.Mode.Crosses() {
			set = append(set, rs)
		}
	}
	if len(set) == 0 {
		return nil
	}
	return build(set, before)
}

// buildRealServer gives the real server the record that it had, or a new one.
func (b *Balancer) buildRealServer(c *RealServerConfig, s *service, a *account, known map[packet.Endpoint][]int, byID *[]*RealServer) *RealServer {
	rs := &RealServer{
		Endpoint:   packet.EndpointFrom(c.Address),
		Weight:     c.Weight,
		Down:       c.Down,
		LastWeight: c.Weight,
		Mode:       c.Mode,
		MaxFlows:   c.MaxFlows,
		MinFlows:   c.MinFlows,
		service:    s,
		answerFrom: addrOf(c.AnswerFrom),
		mapped:     s.mapped(),
	}
	if how := rs.flowsDo(); how != RemovedServe {
		rs.judged = true
		rs.fates = [2]fate{fateOf(how, true), fateOf(how, true)}
	}
	for _, i := range known[rs.Endpoint] {
		was := a.servers[i]
		rs.load = was.load
		// Where the mode remembers nothing in the flow, those that there are go on
		// with its new options, as in IPVS: a tunnel is the destination's.
		same := reflect.DeepEqual(was.Mode, rs.Mode)
		if was.mapsAs(rs.mapped) && (same || was.oneSided && was.Mode.String() == rs.Mode.String()) {
			rs.record = was.record
			rs.setThresholds(rs.MaxFlows, rs.MinFlows)
			if same {
				rs.Mode = was.Mode
			}
			a.servers[i] = rs
			(*byID)[rs.id] = rs
			return rs
		}
	}
	if rs.load == nil {
		rs.load = new(load)
	}
	rs.setThresholds(rs.MaxFlows, rs.MinFlows)
	rs.record = &record{traffic: make(traffic, len(b.queues))}
	_, replies := rs.Mode.ReplyTuple(Flow{Server: rs})
	rs.oneSided = !replies
	rs.pathMTU.Store(int32(b.pathMTU[c.Address.Addr()]))
	if n := len(b.freeIDs); n > 0 {
		rs.id = b.freeIDs[n-1]
		b.freeIDs = b.freeIDs[:n-1]
		(*byID)[rs.id] = rs
	} else {
		rs.id = uint32(len(*byID))
		*byID = append(*byID, rs)
	}
	rs.offload = b.table.offload
	rs.carriedBefore = rs.carried()
	a.servers = append(a.servers, rs)
	return rs
}
