package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"
)

const (
	maxAS       = 1<<32 - 2 // 2^32-1 is nobody's (RFC 7300)
	asTrans     = 23456     // stands for others (RFC 6793)
	maxUint32   = 1<<32 - 1 // a MED or local preference
	maxPrepend  = 32        // routers refuse paths that are much longer
	maxPassword = 80        // TCP_MD5SIG_MAXKEYLEN
	maxHops     = 254       // TTL 255, less one
	minHold     = 3         // seconds (RFC 4271 section 4.2)
	maxHold     = 1<<16 - 1 // likewise
	maxRetry    = time.Hour // between attempts
	maxRestart  = 4095      // seconds; 12 bits (RFC 4724 section 3)

	minBFD = 10 * time.Millisecond // below it a busy host is taken for dead
	maxBFD = time.Minute           // above it the hold time is faster
)

func (fs *faults) checkBGP() {
	b := &fs.cfg.BGP
	if b.AS == 0 {
		fs.checkNoBGP()
		return
	}
	fs.checkAS("bgp.as", b.AS)
	switch {
	case !b.RouterID.IsValid():
		fs.add("bgp.router_id", "missing, and the file has no IPv4 address of this host (a peer's local_address or addresses.tunnel_source) to take it from; it is a number in the form of an IPv4 address, of each director another")
	case !b.RouterID.Is4() || b.RouterID.IsUnspecified():
		fs.add("bgp.router_id", "%v is not in the form of an IPv4 address", b.RouterID)
	}
	if b.ListenPort != -1 {
		fs.between("bgp.listen_port", b.ListenPort, 1, 65535)
	}
	if r := time.Duration(b.GracefulRestart); r != 0 {
		fs.wholeSeconds("bgp.graceful_restart", r, 1, maxRestart)
	}
	fs.checkCommunityNames()
	all := b.Attributes()
	all.Communities = b.Communities
	fs.checkAttributes("bgp", &all)
	fs.checkAggregates()
	if len(b.Peers) == 0 {
		fs.add("bgp.peers", "missing; a list such as [{address: 192.0.2.1, as: 65000}]")
	}
	for i := range b.Peers {
		fs.checkPeer(fmt.Sprintf("bgp.peers[%d]", i), &b.Peers[i], b.Peers[:i])
	}
	fs.checkServicesBGP()
}

// checkNoBGP notes what has no effect because there is no AS.
func (fs *faults) checkNoBGP() {
	b := fs.cfg.BGP
	def := Default().BGP
	if b.RouterID != def.RouterID || b.ListenPort != def.ListenPort || b.GracefulRestart != 0 || len(b.Communities) > 0 ||
		len(b.CommunityNames) > 0 || slices.Max(b.numbers()) != 0 || slices.Min(b.numbers()) != 0 || len(b.Aggregates) > 0 || len(b.Peers) > 0 {
		fs.add("bgp.as", "missing")
	}
	for i := range fs.cfg.Services {
		if !fs.cfg.Services[i].BGP.isZero() {
			fs.add(fmt.Sprintf("services[%d].bgp", i), "the file has no section bgp with an AS")
		}
	}
}

func (fs *faults) checkAS(path string, as int) {
	switch {
	case as == 0:
		fs.add(path, "missing")
	case as < 0 || as > maxAS || as == asTrans || as == 65535:
		fs.add(path, "%d is not the number of an AS", as)
	}
}

func (fs *faults) wholeSeconds(path string, d time.Duration, low, high int) {
	if d%time.Second != 0 || d < time.Duration(low)*time.Second || d > time.Duration(high)*time.Second {
		fs.add(path, "%v is out of range, whole seconds from %ds to %ds", d, low, high)
	}
}

var communityNamePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,62}$`)

func (fs *faults) checkCommunityNames() {
	seen := map[string]bool{}
	for i, n := range fs.cfg.BGP.CommunityNames {
		path := fmt.Sprintf("bgp.community_names[%d]", i)
		_, known := wellKnown[n.Name]
		switch {
		case !communityNamePattern.MatchString(n.Name):
			fs.add(path+".name", "%q: a name begins with a letter and has up to 63 letters, digits, points, hyphens and underscores", n.Name)
		case known:
			fs.add(path+".name", "%q is a well-known community", n.Name)
		case seen[n.Name]:
			fs.add(path+".name", "%q is there already", n.Name)
		}
		seen[n.Name] = true
		if _, err := communityNumbers(n.Value); err != nil {
			fs.add(path+".value", "%v", err)
		}
	}
}

func (fs *faults) checkAttributes(path string, a *ServiceBGP) {
	for i, c := range a.Communities {
		if _, _, err := fs.cfg.Communities([]string{c}); err != nil {
			fs.add(fmt.Sprintf("%s.communities[%d]", path, i), "%v", err)
		}
	}
	fs.between(path+".local_preference", a.LocalPreference, 0, maxUint32)
	fs.between(path+".med", a.MED, 0, maxUint32)
	fs.between(path+".prepend", a.Prepend, 0, maxPrepend)
	fs.between(path+".prepend_degraded", a.PrependDegraded, 0, maxPrepend)
	fs.between(path+".prepend_backup", a.PrependBackup, 0, maxPrepend)
}

func (fs *faults) checkAggregates() {
	list := fs.cfg.BGP.Aggregates
	for i, a := range list {
		path := fmt.Sprintf("bgp.aggregates[%d].prefix", i)
		switch {
		case !a.Prefix.IsValid():
			fs.add(path, "missing")
		case a.Prefix != a.Prefix.Masked():
			fs.add(path, "%v has bits after its length; write %v", a.Prefix, a.Prefix.Masked())
		case a.Prefix.Bits() == 0:
			fs.add(path, "%v is every address; a director announces its VIPs", a.Prefix)
		case !fs.holdsVIP(a.Prefix):
			fs.add(path, "%v holds no VIP of a service, so it would never be announced", a.Prefix)
		}
		if slices.ContainsFunc(list[:i], func(b Aggregate) bool { return b.Prefix == a.Prefix }) {
			fs.add(path, "%v is there already", a.Prefix)
		}
	}
}

func (fs *faults) holdsVIP(p netip.Prefix) bool {
	for i := range fs.cfg.Services {
		if slices.ContainsFunc(fs.cfg.Services[i].Listen, func(l Listen) bool { return p.Contains(l.Addr) }) {
			return true
		}
	}
	return len(fs.cfg.Services) == 0 // they may come later, by another way
}

func (fs *faults) checkPeer(path string, p *Peer, before []Peer) {
	fs.checkPeerAddress(path, p, before)
	fs.checkAS(path+".as", p.AS)
	fs.between(path+".port", p.Port, 1, 65535)
	fs.checkPeerTransport(path, p)
	fs.wholeSeconds(path+".hold_time", p.HoldTime, minHold, maxHold)
	fs.wholeSeconds(path+".connect_retry", p.ConnectRetry, 1, int(maxRetry/time.Second))
	for i, f := range p.Families {
		oneOf(fs, fmt.Sprintf("%s.families[%d]", path, i), f, IPv4, IPv6)
		if slices.Contains(p.Families[:i], f) {
			fs.add(fmt.Sprintf("%s.families[%d]", path, i), "%q is listed twice", string(f))
		}
	}
	fs.checkNextHop(path+".next_hop_ipv4", p.NextHop4, slices.Contains(p.Families, IPv4), true)
	fs.checkNextHop(path+".next_hop_ipv6", p.NextHop6, slices.Contains(p.Families, IPv6), false)
	if p.Address.Is4() && p.Interface == "" && slices.Contains(p.Families, IPv6) && !p.NextHop6.IsValid() {
		fs.add(path+".next_hop_ipv6", "missing: the session is IPv4, so it must be said where packets to IPv6 VIPs go, an IPv6 address of this host")
	}
	fs.checkBFD(path+".bfd", p.BFD)
}

func (fs *faults) checkPeerAddress(path string, p *Peer, before []Peer) {
	a := p.Address
	switch {
	case p.Interface != "" && a.IsValid():
		fs.add(path+".interface", "the address is given too; one of the two finds the peer")
	case p.Interface != "":
		fs.checkInterfaceName(path+".interface", p.Interface)
	case !a.IsValid():
		fs.add(path+".address", "missing; or give the interface of a peer that is found by its link-local address")
	case a.Is6() && a.IsLinkLocalUnicast():
		if a.Zone() == "" {
			fs.add(path+".address", "%v is link-local; write its interface too, as in %v%%eth0", a, a)
		}
	case fs.checkUnicast(path+".address", a):
		if why := fs.ourselves(a, p); why != "" {
			fs.add(path+".address", "%v is %s: the peer is ourselves", a, why)
		}
	}
	for _, q := range before {
		if q.Name() == p.Name() {
			fs.add(path+".address", "%s is a peer already", p.Name())
		}
	}
}

func (fs *faults) checkBFD(path string, b BFD) {
	switch {
	case !b.Enabled && b != BFD{}:
		fs.add(path+".enabled", "must be true for the other keys to count")
		return
	case !b.Enabled:
		return
	case fs.cfg.BGP.GracefulRestart != 0:
		fs.add(path, "BFD drops routes at once that bgp.graceful_restart keeps; one of the two")
	}
	if b.Interval < minBFD || b.Interval > maxBFD || b.Interval%time.Millisecond != 0 {
		fs.add(path+".interval", "%v is out of range, whole milliseconds from %v to %v", b.Interval, minBFD, maxBFD)
	}
	fs.between(path+".multiplier", b.Multiplier, 2, 255)
}

// ourselves says what makes an address one of the director's.
func (fs *faults) ourselves(a netip.Addr, p *Peer) string {
	switch {
	case a == p.LocalAddress:
		return "the local_address of its own session"
	case a == fs.cfg.BGP.RouterID:
		return "the router_id"
	case slices.Contains(fs.cfg.Addresses.TunnelSource, a):
		return "the tunnel_source"
	}
	if lip, ok := fs.poolHolding(a); ok {
		return fmt.Sprintf("in the fullnat_pool %v", lip)
	}
	for _, s := range fs.cfg.Services {
		if slices.ContainsFunc(s.Listen, func(l Listen) bool { return l.Addr == a }) {
			return fmt.Sprintf("a VIP of service %q", s.Name)
		}
	}
	return ""
}

func (fs *faults) checkPeerTransport(path string, p *Peer) {
	l := p.LocalAddress
	switch {
	case !l.IsValid():
	case p.Interface != "":
		fs.add(path+".local_address", "the session is between the link-local addresses of %s", p.Interface)
	case l.IsUnspecified() || l.IsMulticast():
		fs.add(path+".local_address", "%v is no address of a host", l)
	case p.Address.IsValid() && l.Is4() != p.Address.Is4():
		fs.add(path+".local_address", "%v and the peer's address %v are of two families", l, p.Address)
	}
	switch {
	case len(p.Password) > maxPassword:
		fs.add(path+".password", "longer than %d bytes, which TCP MD5 cannot use", maxPassword)
	case p.Password != "" && (p.Interface != "" || p.Address.Zone() != ""):
		fs.add(path+".password", "TCP MD5 between link-local addresses is not possible; give the peer an address")
	}
	if p.Passive && fs.cfg.BGP.ListenPort == -1 {
		fs.add(path+".passive", "nobody listens: set bgp.listen_port, as a rule to 179")
	}
	fs.between(path+".multihop", p.Multihop, 0, maxHops)
	switch {
	case p.Multihop > 0 && (p.Interface != "" || p.Address.Zone() != ""):
		fs.add(path+".multihop", "the peer is on the link itself")
	case p.Multihop > 0 && p.AS == fs.cfg.BGP.AS && !p.TTLSecurity && !p.BFD.Enabled:
		fs.add(path+".multihop", "the peer is of our own AS, which may be any number of hops away; the number only counts for ttl_security and bfd")
	}
}

func (fs *faults) checkNextHop(path string, hop netip.Addr, carried, ipv4 bool) {
	switch {
	case !hop.IsValid():
	case !carried:
		fs.add(path, "the peer does not get routes of that family")
	case !fs.checkUnicast(path, hop):
	case hop.Is4() != ipv4:
		fs.add(path, "%v is of the other family", hop)
	}
}

func (fs *faults) checkServicesBGP() {
	first := map[netip.Addr]int{} // the first announced service of a VIP
	for i := range fs.cfg.Services {
		s, path := &fs.cfg.Services[i], fmt.Sprintf("services[%d].bgp", i)
		own := s.BGP // without what it inherited, whose faults are said already
		own.subtract(&fs.cfg.BGP)
		fs.checkAttributes(path, &own)
		for j, name := range s.BGP.Peers {
			if !slices.ContainsFunc(fs.cfg.BGP.Peers, func(p Peer) bool { return p.Name() == name }) {
				fs.add(fmt.Sprintf("%s.peers[%d]", path, j), "%q is the address or interface of no peer in bgp.peers", name)
			}
		}
		if !s.Announce {
			continue
		}
		for _, l := range s.Listen {
			before, shared := first[l.Addr]
			if !shared {
				first[l.Addr] = i
				continue
			}
			if !fs.cfg.Services[before].BGP.equal(&s.BGP) {
				fs.add(path, "service %q has the VIP %v too, and another section bgp; a VIP is announced in one way", fs.cfg.Services[before].Name, l.Addr)
			}
		}
	}
}
