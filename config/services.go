package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// inherit fills in what a service takes from the file and a real server from
// its service.
func (fs *faults) inherit() {
	for i := range fs.cfg.Services {
		s := &fs.cfg.Services[i]
		s.Tunnel.Type = cmp.Or(s.Tunnel.Type, IPIP)
		s.Tunnel.inherit(Tunnel{})
		s.Health.inherit()
		for j := range s.RealServers {
			rs := &s.RealServers[j]
			if rs.Mode == "" {
				rs.Mode = s.Mode
			}
			rs.Tunnel.inherit(s.Tunnel)
		}
		s.Timeouts.inherit(&fs.cfg.Timeouts)
		s.Policy.inherit(&fs.cfg.Policy)
		s.Policy.complete()
	}
	fs.cfg.Policy.complete()
	fs.inheritBGP()
}

// inherit replaces a section that is not there; one that is there counts as
// a whole.
func (t *Tunnel) inherit(from Tunnel) {
	if *t == (Tunnel{}) {
		*t = from
	}
	if t.Type == GUE && t.Port == 0 {
		t.Port = DefaultGUEPort
	}
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func (fs *faults) checkServices(o Options) {
	fs.vips = map[netip.Addr]string{}
	for i := range fs.cfg.Services {
		for _, l := range fs.cfg.Services[i].Listen {
			if _, ok := fs.vips[l.Addr]; !ok {
				fs.vips[l.Addr] = fs.cfg.Services[i].Name
			}
		}
	}
	names := map[string]int{}
	for i := range fs.cfg.Services {
		s, path := &fs.cfg.Services[i], fmt.Sprintf("services[%d]", i)
		if first, ok := names[s.Name]; ok && s.Name != "" {
			fs.add(path+".name", "%q is the name of services[%d] already", s.Name, first)
		}
		names[s.Name] = i
		fs.checkService(path, s, o)
	}
	fs.checkDuplicateListens()
}

func (fs *faults) checkService(path string, s *Service, o Options) {
	switch {
	case s.Name == "":
		fs.add(path+".name", "missing")
	case !namePattern.MatchString(s.Name):
		fs.add(path+".name", "%q: a name has up to 63 letters, digits, points, hyphens and underscores", s.Name)
	}
	fs.checkMode(path+".mode", s.Mode)
	fs.checkScheduler(path, s, o)
	fs.checkTunnel(path+".tunnel", s.Tunnel)
	if s.Tunnel != (Tunnel{Type: IPIP}) && s.Mode != TUN && !slices.ContainsFunc(s.RealServers, func(rs RealServer) bool { return rs.Mode == TUN }) {
		fs.add(path+".tunnel", "no real server of the service is in mode tun")
	}
	fs.checkPersistence(path+".persistence", s)
	oneOf(fs, path+".on_no_server", s.OnNoServer, AnswerICMP, AnswerReset, AnswerDrop)
	fs.checkHealth(path+".health", s)
	fs.checkQuorum(path, s)
	fs.checkSorry(path+".sorry_server", s)
	fs.checkTimeouts(path+".timeouts", &s.Timeouts, &fs.cfg.Timeouts)

	fs.checkPolicy(path+".policy", &s.Policy, &fs.cfg.Policy)

	if len(s.Listen) == 0 {
		fs.add(path+".listen", `missing; a list such as ["203.0.113.10:80/tcp"]`)
	}
	for j, l := range s.Listen {
		fs.checkListen(fmt.Sprintf("%s.listen[%d]", path, j), l)
	}
	for j := range s.RealServers {
		fs.checkRealServer(fmt.Sprintf("%s.real_servers[%d]", path, j), s, j)
	}
	fs.checkFamilies(path, s)
	fs.checkKeptPorts(path, s)
}

func (fs *faults) checkScheduler(path string, s *Service, o Options) {
	if o.Schedulers != nil && !slices.Contains(o.Schedulers, s.Scheduler) {
		fs.add(path+".scheduler", "%q is none of %s", s.Scheduler, strings.Join(o.Schedulers, ", "))
		return
	}
	if o.SchedulerFlags != nil {
		flags := o.SchedulerFlags(s.Scheduler)
		for j, f := range s.SchedulerFlags {
			if !slices.Contains(flags, f) {
				fs.add(fmt.Sprintf("%s.scheduler_flags[%d]", path, j), "%q is no flag of %s, which has %s", f, s.Scheduler, strings.Join(flags, ", "))
			}
		}
	}
	if o.MaglevFaults != nil && s.Scheduler == "maglev" {
		faults := o.MaglevFaults(s.Maglev)
		for _, key := range slices.Sorted(maps.Keys(faults)) {
			fs.add(path+".maglev."+key, "%s", faults[key])
		}
	}
	if s.Scheduler != "maglev" && !reflect.ValueOf(s.Maglev).IsZero() {
		fs.add(path+".maglev", "the scheduler is %s", s.Scheduler)
	}
	if s.SlowStart < 0 || s.SlowStart > maxSlowStart {
		fs.add(path+".slow_start", "%v is out of range, 0s to %v", s.SlowStart, maxSlowStart)
	}
}

func (fs *faults) checkMode(path string, m Mode) {
	if m == "proxy" {
		fs.add(path, "proxy is not in this version of uvs")
		return
	}
	oneOf(fs, path, m, DR, NAT, TUN, FullNAT)
}

func (fs *faults) checkTunnel(path string, t Tunnel) {
	oneOf(fs, path+".type", t.Type, IPIP, GUE, GRE)
	switch {
	case t.Type == GUE:
		fs.between(path+".port", t.Port, 1, 65535)
	case t.Port != 0:
		fs.add(path+".port", "only gue has a port")
	}
	if t.Type == IPIP && t.Checksum {
		fs.add(path+".checksum", "ipip has no checksum")
	}
}

func (fs *faults) checkListen(path string, l Listen) {
	if !fs.checkUnicast(path, l.Addr) {
		return
	}
	if slices.Contains(fs.cfg.Addresses.TunnelSource, l.Addr) {
		fs.add(path, "%v is the tunnel_source; a VIP belongs to uvs alone", l.Addr)
	}
	if lip, ok := fs.poolHolding(l.Addr); ok {
		fs.add(path, "%v lies in the fullnat_pool %v", l.Addr, lip)
	}
}

// serverText is a real server's address as it is written: without a port where
// it has none.
func serverText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

func (fs *faults) poolHolding(a netip.Addr) (netip.Prefix, bool) {
	for _, p := range fs.cfg.Addresses.FullNATPool {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

func (fs *faults) checkRealServer(path string, s *Service, index int) {
	rs := &s.RealServers[index]
	fs.between(path+".weight", rs.Weight, 0, maxWeight)
	fs.checkThresholds(path, rs)
	if rs.Mode != s.Mode {
		fs.checkMode(path+".mode", rs.Mode)
	}
	if rs.Tunnel != s.Tunnel {
		fs.checkTunnel(path+".tunnel", rs.Tunnel)
		if rs.Mode != TUN {
			fs.add(path+".tunnel", "the real server is in mode %s, which has no tunnel", rs.Mode)
		}
	}
	fs.checkServerAddress(path+".address", s, rs, s.RealServers[:index])
}

// checkServerAddress notes what is wrong with where rs is, beside the others.
func (fs *faults) checkServerAddress(path string, s *Service, rs *RealServer, others []RealServer) {
	addr := rs.Address.Addr()
	if !fs.checkUnicast(path, addr) {
		return
	}
	for j := range others {
		if others[j].Address == rs.Address {
			fs.add(path, "%s is real_servers[%d] already", serverText(rs.Address), j)
		}
	}
	if lip, ok := fs.poolHolding(addr); ok {
		fs.add(path, "%v lies in the fullnat_pool %v", addr, lip)
	}
	if name, ok := fs.vips[addr]; ok {
		fs.add(path, "%v is a VIP, of service %q; its packets would come back to uvs", addr, name)
	}
	for _, l := range s.Listen {
		fs.checkServerOnListen(path, rs, l)
	}
}

// checkServerOnListen notes what the mode of a real server cannot do with the
// packets of a listen.
func (fs *faults) checkServerOnListen(path string, rs *RealServer, l Listen) {
	if !l.Addr.IsValid() {
		return
	}
	port := rs.Address.Port()
	switch rs.Mode {
	case DR, TUN:
		switch {
		case port == 0 || l.SinglePort() && port == l.First:
		case l.SinglePort():
			fs.add(path, "%s keeps port %d of %v; write port %d, or none", rs.Mode, l.First, l, l.First)
		default:
			fs.add(path, "%s keeps the client's port and %v has more than one; write the address without a port", rs.Mode, l)
		}
	case FullNAT:
		if l.Protocol == SCTP {
			fs.add(path, "fullnat does not carry SCTP (%v); use nat, dr or tun", l)
		}
	}
}

// checkFamilies holds the rules of mixed families: dr and nat stay within
// one, tun and fullnat do not. Fullnat needs LIPs of the real server's.
func (fs *faults) checkFamilies(path string, s *Service) {
	family := func(a netip.Addr) string {
		if a.Is4() {
			return "IPv4"
		}
		return "IPv6"
	}
	crosses := func(rs RealServer) bool { return rs.Mode == TUN || rs.Mode == FullNAT }
	valid := func(rs RealServer) bool { return rs.Address.IsValid() }

	servers := slices.DeleteFunc(slices.Clone(s.RealServers), func(rs RealServer) bool { return !valid(rs) })
	for j, l := range s.Listen {
		served := slices.ContainsFunc(servers, func(rs RealServer) bool {
			return crosses(rs) || rs.Address.Addr().Is4() == l.Addr.Is4()
		})
		if l.Addr.IsValid() && len(servers) > 0 && !served {
			fs.add(fmt.Sprintf("%s.listen[%d]", path, j), "%v has no real server of its family, %s, and mode %s does not cross families", l, family(l.Addr), s.Mode)
		}
	}
	for j, rs := range s.RealServers {
		if !valid(rs) {
			continue
		}
		a := rs.Address.Addr()
		p := fmt.Sprintf("%s.real_servers[%d].address", path, j)
		reached := slices.ContainsFunc(s.Listen, func(l Listen) bool {
			return !l.Addr.IsValid() || l.Addr.Is4() == a.Is4()
		})
		if !crosses(rs) && !reached && len(s.Listen) > 0 {
			fs.add(p, "%v is %s, no listen of the service is, and mode %s does not cross families", a, family(a), rs.Mode)
		}
		hasLIP := slices.ContainsFunc(fs.cfg.Addresses.FullNATPool, func(q netip.Prefix) bool {
			return !q.IsValid() || q.Addr().Is4() == a.Is4()
		})
		if rs.Mode == FullNAT && !hasLIP {
			fs.add(p, "fullnat needs an %s address in addresses.fullnat_pool to reach %v", family(a), a)
		}
	}
}

// checkDuplicateListens notes two listens that would get the same packet. A
// listen on every port stands behind those on some.
func (fs *faults) checkDuplicateListens() {
	type place struct {
		listen Listen
		path   string
		name   string
	}
	byVIP := map[Listen][]place{} // key without ports
	for i, s := range fs.cfg.Services {
		for j, l := range s.Listen {
			if !l.Addr.IsValid() {
				continue
			}
			here := place{l, fmt.Sprintf("services[%d].listen[%d]", i, j), s.Name}
			vip := Listen{Addr: l.Addr, Protocol: l.Protocol}
			for _, p := range byVIP[vip] {
				if p.listen.EveryPort() == l.EveryPort() && p.listen.First <= l.Last && l.First <= p.listen.Last {
					fs.add(here.path, "%v is taken by %v of service %q", l, p.listen, p.name)
				}
			}
			byVIP[vip] = append(byVIP[vip], here)
		}
	}
}
