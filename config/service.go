package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A Service is one or more VIPs, ports and protocols that share their real
// servers.
type Service struct {
	Name           string        `mapstructure:"name"`
	Listen         []Listen      `mapstructure:"listen"`
	Mode           Mode          `mapstructure:"mode"`
	Scheduler      string        `mapstructure:"scheduler"`
	SchedulerFlags []string      `mapstructure:"scheduler_flags"`
	SlowStart      time.Duration `mapstructure:"slow_start"` // of returned real servers; 0: none
	Maglev         Maglev        `mapstructure:"maglev"`
	Tunnel         Tunnel        `mapstructure:"tunnel"`
	Persistence    Persistence   `mapstructure:"persistence"` // Timeout 0: none
	OnNoServer     OnNoServer    `mapstructure:"on_no_server"`
	Announce       bool          `mapstructure:"announce"`
	BGP            ServiceBGP    `mapstructure:"bgp"`

	Quorum      int            `mapstructure:"quorum"`            // healthy weight without which the VIPs are not announced, or the sorry server answers
	Hysteresis  int            `mapstructure:"quorum_hysteresis"` // more than the quorum to come up, less to go down
	FailOpen    bool           `mapstructure:"fail_open"`         // where no real server is fit, all are used
	SorryServer netip.AddrPort `mapstructure:"sorry_server"`      // not valid: none

	Health      Health       `mapstructure:"health"`
	Timeouts    Timeouts     `mapstructure:"timeouts"` // after Parse each is set: the file's, unless set here
	Policy      Policy       `mapstructure:"policy"`   // likewise
	RealServers []RealServer `mapstructure:"real_servers"`
}

// A RealServer is one destination of a service.
type RealServer struct {
	Address  netip.AddrPort `mapstructure:"address"`   // port 0: the client's port stays
	Weight   int            `mapstructure:"weight"`    // 0: no new flows
	MaxFlows int            `mapstructure:"max_flows"` // from so many on no new flows; 0: no bound
	MinFlows int            `mapstructure:"min_flows"` // until there are fewer than so many; 0: than three quarters
	Mode     Mode           `mapstructure:"mode"`      // after Parse never empty: the service's, unless set
	Tunnel   Tunnel         `mapstructure:"tunnel"`    // after Parse the service's, unless set
}

// Maglev are the settings of the scheduler maglev. Zero values are its own
// defaults; Options.MaglevFaults checks them.
type Maglev struct {
	Slots   int      `mapstructure:"slots"`
	Fields  []string `mapstructure:"fields"`
	Key     string   `mapstructure:"key"`
	MaxLoad int      `mapstructure:"max_load"` // per cent of the fair share; 0: no bound
}

// Mode is a forwarding mode.
type Mode string

// The forwarding modes.
const (
	DR      Mode = "dr"
	NAT     Mode = "nat"
	TUN     Mode = "tun"
	FullNAT Mode = "fullnat"
)

// Tunnel is the encapsulation of mode tun.
type Tunnel struct {
	Type     TunnelType `mapstructure:"type"`
	Port     int        `mapstructure:"port"`     // GUE: destination port
	Checksum bool       `mapstructure:"checksum"` // GUE: UDP checksum; GRE: checksum field

	// PMTUDiscovery says what becomes of an IPv4 packet that is too large for
	// the tunnel and may not be fragmented: nil or true refuses it, false
	// fragments the outer packet (IPVS: sysctl pmtu_disc).
	PMTUDiscovery *bool `mapstructure:"pmtu_discovery"`
}

// Fragments says whether outer packets may always be fragmented.
func (t *Tunnel) Fragments() bool { return t.PMTUDiscovery != nil && !*t.PMTUDiscovery }

// TunnelType is a kind of encapsulation.
type TunnelType string

// The tunnel types.
const (
	IPIP TunnelType = "ipip"
	GUE  TunnelType = "gue"
	GRE  TunnelType = "gre"
)

// DefaultGUEPort is where the Linux kernel's IPVS and most decapsulators
// expect GUE (IANA: gue).
const DefaultGUEPort = 6080

// OnNoServer is the answer to a client when no real server can take its flow.
type OnNoServer string

// The answers.
const (
	AnswerICMP  OnNoServer = "icmp"  // ICMP port unreachable, as IPVS
	AnswerReset OnNoServer = "reset" // TCP RST; ICMP for other protocols
	AnswerDrop  OnNoServer = "drop"  // silence
)

// Protocol is a transport protocol.
type Protocol string

// The protocols.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	SCTP Protocol = "sctp"
)

// A Listen is a VIP with a port, a range of ports or every port, written
// "203.0.113.10:80/tcp", "[2001:db8::10]:8000-8010/udp" or, for every port,
// "203.0.113.10:0/tcp".
type Listen struct {
	Addr        netip.Addr
	First, Last uint16 // both included; 0-65535 is every port
	Protocol    Protocol
}

// ParseListen reads the form that String writes.
func ParseListen(s string) (Listen, error) {
	endpoint, proto, ok := strings.Cut(s, "/")
	if !ok {
		return Listen{}, fmt.Errorf("%q lacks the protocol: write %s/tcp, /udp or /sctp", s, s)
	}
	l := Listen{Protocol: Protocol(proto)}
	switch l.Protocol {
	case TCP, UDP, SCTP:
	default:
		return Listen{}, fmt.Errorf("%q: protocol %q is not tcp, udp or sctp", s, proto)
	}
	colon := strings.LastIndexByte(endpoint, ':')
	if colon < 0 || strings.HasSuffix(endpoint, "]") {
		return Listen{}, fmt.Errorf("%q lacks the port: write address:port/%s; port 0 is every port", s, proto)
	}
	host, ports := endpoint[:colon], endpoint[colon+1:]
	var err error
	if l.Addr, err = parseHost(host); err != nil {
		return Listen{}, fmt.Errorf("%q: %w", s, err)
	}
	first, last, isRange := strings.Cut(ports, "-")
	if l.First, err = parsePort(first); err != nil {
		return Listen{}, fmt.Errorf("%q: %w", s, err)
	}
	l.Last = l.First
	switch {
	case isRange:
		if l.Last, err = parsePort(last); err != nil {
			return Listen{}, fmt.Errorf("%q: %w", s, err)
		}
		if l.First == 0 || l.Last < l.First {
			return Listen{}, fmt.Errorf("%q: a range of ports goes upwards from 1; port 0 alone is every port", s)
		}
	case l.First == 0:
		l.Last = 65535
	}
	return l, nil
}

// EveryPort says whether the service takes all ports of its VIP.
func (l Listen) EveryPort() bool { return l.First == 0 && l.Last == 65535 }

// SinglePort says whether the service is on one port only.
func (l Listen) SinglePort() bool { return l.First == l.Last }

// String is the canonical form of the configuration file.
func (l Listen) String() string {
	ports := strconv.Itoa(int(l.First))
	if !l.EveryPort() && !l.SinglePort() {
		ports += "-" + strconv.Itoa(int(l.Last))
	}
	host := l.Addr.String()
	if l.Addr.Is6() {
		host = "[" + host + "]"
	}
	return host + ":" + ports + "/" + string(l.Protocol)
}

// parseServer reads a real server's address: with a port, or without one,
// which keeps the client's.
func parseServer(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is not an IP address with or without a port", s)
	}
	a, err := parseHost(s[:colon])
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q: %w", s, err)
	}
	port, err := parsePort(s[colon+1:])
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q: %w", s, err)
	}
	return netip.AddrPortFrom(a, port), nil
}

// parseHost reads the address in front of a port: IPv6 stands in brackets.
func parseHost(s string) (netip.Addr, error) {
	bare, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		bare = strings.TrimSuffix(bare, "]")
	}
	a, err := netip.ParseAddr(bare)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	}
	if a.Is6() != bracketed {
		return netip.Addr{}, fmt.Errorf("%q: an IPv6 address, and no other, stands in brackets before a port", s)
	}
	return a, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a port (0-65535)", s)
	}
	return uint16(n), nil
}
