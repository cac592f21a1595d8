package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// BGP says to which routers the VIPs are announced. Without an AS there is no
// such section, and nothing is announced.
type BGP struct {
	AS         int        `mapstructure:"as"`
	RouterID   netip.Addr `mapstructure:"router_id"`   // after Parse always set
	ListenPort int        `mapstructure:"listen_port"` // -1: only connect out

	// GracefulRestart is for how long routers keep the routes of a director
	// that is gone. Zero, written "off": not at all.
	GracefulRestart Restart `mapstructure:"graceful_restart"`

	Communities     []string        `mapstructure:"communities"` // of every VIP; see Config.Communities
	CommunityNames  []CommunityName `mapstructure:"community_names"`
	LocalPreference int             `mapstructure:"local_preference"` // 0: not sent
	MED             int             `mapstructure:"med"`              // 0: not sent, which routers take as 0
	Prepend         int             `mapstructure:"prepend"`
	PrependDegraded int             `mapstructure:"prepend_degraded"` // besides, of a VIP of which announcement.degraded_below holds
	PrependBackup   int             `mapstructure:"prepend_backup"`   // besides, of one that only a sorry server or failing open answers
	Aggregates      []Aggregate     `mapstructure:"aggregates"`
	Peers           []Peer          `mapstructure:"peers"`
}

// Restart is a duration, or "off".
type Restart time.Duration

// A CommunityName stands for a community wherever one is written.
type CommunityName struct {
	Name  string `mapstructure:"name"`
	Value string `mapstructure:"value"`
}

// An Aggregate is a network that is announced while a VIP in it is.
type Aggregate struct {
	Prefix netip.Prefix `mapstructure:"prefix"`
	Only   bool         `mapstructure:"only"` // and the VIPs in it are not announced by themselves
}

// A Peer is a router that VIPs are announced to.
type Peer struct {
	Address      netip.Addr    `mapstructure:"address"`   // or
	Interface    string        `mapstructure:"interface"` // with one router on it, found by its link-local address
	AS           int           `mapstructure:"as"`
	LocalAddress netip.Addr    `mapstructure:"local_address"`
	Port         int           `mapstructure:"port"`
	Password     string        `mapstructure:"password"` // TCP MD5
	Passive      bool          `mapstructure:"passive"`
	Multihop     int           `mapstructure:"multihop"`
	TTLSecurity  bool          `mapstructure:"ttl_security"`
	HoldTime     time.Duration `mapstructure:"hold_time"`
	ConnectRetry time.Duration `mapstructure:"connect_retry"`
	Families     []Family      `mapstructure:"families"` // after Parse at least one
	NextHop4     netip.Addr    `mapstructure:"next_hop_ipv4"`
	NextHop6     netip.Addr    `mapstructure:"next_hop_ipv6"`
	AddPath      bool          `mapstructure:"add_path"`
	BFD          BFD           `mapstructure:"bfd"`
}

// BFD is how the loss of a peer is found out in less than its hold time. Not
// enabled, the rest is zero after Parse.
type BFD struct {
	Enabled    bool          `mapstructure:"enabled"`
	Interval   time.Duration `mapstructure:"interval"`
	Multiplier int           `mapstructure:"multiplier"`
}

// Name is how the file calls the peer: by its address or interface.
func (p *Peer) Name() string {
	if p.Interface != "" {
		return p.Interface
	}
	return p.Address.String()
}

// Family is an address family of routes.
type Family string

// The families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// ServiceBGP is how the VIPs of a service differ from others in BGP.
type ServiceBGP struct {
	Communities     []string `mapstructure:"communities"`      // besides those of every VIP
	LocalPreference int      `mapstructure:"local_preference"` // after Parse the section bgp's, unless set
	MED             int      `mapstructure:"med"`              // likewise
	Prepend         int      `mapstructure:"prepend"`          // likewise
	PrependDegraded int      `mapstructure:"prepend_degraded"` // likewise
	PrependBackup   int      `mapstructure:"prepend_backup"`   // likewise
	Peers           []string `mapstructure:"peers"`            // their names; none: all
}

func (s *ServiceBGP) isZero() bool { return s.equal(&ServiceBGP{}) }

func (s *ServiceBGP) equal(t *ServiceBGP) bool {
	if !slices.Equal(s.Communities, t.Communities) || !slices.Equal(s.Peers, t.Peers) {
		return false
	}
	for i, n := range s.numbers() {
		if *n != *t.numbers()[i] {
			return false
		}
	}
	return true
}

// numbers are those that s may have from the section bgp, in the order of
// BGP.numbers.
func (s *ServiceBGP) numbers() []*int {
	return []*int{&s.LocalPreference, &s.MED, &s.Prepend, &s.PrependDegraded, &s.PrependBackup}
}

func (b *BGP) numbers() []int {
	return []int{b.LocalPreference, b.MED, b.Prepend, b.PrependDegraded, b.PrependBackup}
}

// wellKnown are the communities that have a name everywhere (IANA's registry).
var wellKnown = map[string]uint32{
	"graceful-shutdown":   0xFFFF0000, // RFC 8326
	"blackhole":           0xFFFF029A, // RFC 7999
	"no-export":           0xFFFFFF01,
	"no-advertise":        0xFFFFFF02,
	"no-export-subconfed": 0xFFFFFF03,
	"no-peer":             0xFFFFFF04, // RFC 3765
}

// Communities reads a list of communities: well-known names, those of
// community_names, standard ones such as "65011:100" and large ones such as
// "65011:1:2". After Parse every list of the Config can be read.
func (c *Config) Communities(list []string) (standard []uint32, large [][3]uint32, err error) {
	for _, s := range list {
		if value, ok := wellKnown[s]; ok {
			standard = append(standard, value)
			continue
		}
		for _, n := range c.BGP.CommunityNames {
			if n.Name == s {
				s = n.Value
				break
			}
		}
		numbers, err := communityNumbers(s)
		if err != nil {
			return nil, nil, err
		}
		if len(numbers) == 2 {
			standard = append(standard, numbers[0]<<16|numbers[1])
		} else {
			large = append(large, [3]uint32(numbers))
		}
	}
	return standard, large, nil
}

// communityNumbers reads "a:b" or "a:b:c".
func communityNumbers(s string) ([]uint32, error) {
	parts := strings.Split(s, ":")
	bits := map[int]int{2: 16, 3: 32}[len(parts)]
	if bits == 0 {
		return nil, fmt.Errorf("%q is no community: write two numbers (65011:100), three (65011:1:2), or a name of community_names or of the RFCs", s)
	}
	numbers := make([]uint32, len(parts))
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, bits)
		if err != nil {
			return nil, fmt.Errorf("%q is no community: %q is not a number of %d bits", s, p, bits)
		}
		numbers[i] = uint32(n)
	}
	return numbers, nil
}

// Attributes are those of a route that is no single service's.
func (b *BGP) Attributes() ServiceBGP {
	var s ServiceBGP
	s.inherit(b)
	return s
}

// inheritBGP fills in what follows from the rest of the file.
func (fs *faults) inheritBGP() {
	b := &fs.cfg.BGP
	for i := range b.Peers {
		p := &b.Peers[i]
		if p.BFD.Enabled {
			p.BFD.Interval = cmp.Or(p.BFD.Interval, 300*time.Millisecond)
			p.BFD.Multiplier = cmp.Or(p.BFD.Multiplier, 3)
		}
		switch {
		case len(p.Families) > 0:
		case p.Interface != "":
			p.Families = []Family{IPv4, IPv6}
		case p.Address.Is4():
			p.Families = []Family{IPv4}
		default:
			p.Families = []Family{IPv6}
		}
	}
	if b.AS != 0 && !b.RouterID.IsValid() {
		b.RouterID = fs.someIPv4()
	}
	for i := range fs.cfg.Services {
		fs.cfg.Services[i].BGP.inherit(b)
	}
}

// inherit replaces what is not set.
func (s *ServiceBGP) inherit(b *BGP) {
	for i, own := range s.numbers() {
		*own = cmp.Or(*own, b.numbers()[i])
	}
}

// subtract takes out what inherit may have put in.
func (s *ServiceBGP) subtract(b *BGP) {
	for i, own := range s.numbers() {
		if *own == b.numbers()[i] {
			*own = 0
		}
	}
}

// someIPv4 is an address of the director that the file tells.
func (fs *faults) someIPv4() netip.Addr {
	for i := range fs.cfg.BGP.Peers {
		if a := fs.cfg.BGP.Peers[i].LocalAddress; a.Is4() {
			return a
		}
	}
	for _, a := range fs.cfg.Addresses.TunnelSource {
		if a.Is4() {
			return a
		}
	}
	return netip.Addr{}
}
