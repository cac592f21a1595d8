package demo

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// The families as they are written.
const (
	ipv4 = "ipv4"
	ipv6 = "ipv6"
)

// A Case is a mode with the families of its VIP and of its real servers. Each
// has a VIP of its own.
type Case struct {
	Mode        string `json:"mode"`
	Tunnel      string `json:"tunnel,omitempty"` // of mode tun
	Family      string `json:"family"`           // of the VIP
	RealServers string `json:"real_servers"`     // their family
}

// cases in the order in which they are shown.
var cases = []Case{
	{Mode: "dr", Family: ipv4, RealServers: ipv4},
	{Mode: "dr", Family: ipv6, RealServers: ipv6},
	{Mode: "nat", Family: ipv4, RealServers: ipv4},
	{Mode: "nat", Family: ipv6, RealServers: ipv6},
	{Mode: "tun", Tunnel: "ipip", Family: ipv4, RealServers: ipv4},
	{Mode: "tun", Tunnel: "ipip", Family: ipv6, RealServers: ipv6},
	{Mode: "tun", Tunnel: "ipip", Family: ipv4, RealServers: ipv6},
	{Mode: "tun", Tunnel: "ipip", Family: ipv6, RealServers: ipv4},
	{Mode: "tun", Tunnel: "gue", Family: ipv4, RealServers: ipv4},
	{Mode: "tun", Tunnel: "gue", Family: ipv6, RealServers: ipv6},
	{Mode: "tun", Tunnel: "gre", Family: ipv4, RealServers: ipv4},
	{Mode: "tun", Tunnel: "gre", Family: ipv6, RealServers: ipv6},
	{Mode: "fullnat", Family: ipv4, RealServers: ipv4},
	{Mode: "fullnat", Family: ipv6, RealServers: ipv6},
	{Mode: "fullnat", Family: ipv4, RealServers: ipv6},
	{Mode: "fullnat", Family: ipv6, RealServers: ipv4},
}

// name is unique among the cases and fits into a host name.
func (c Case) name() string {
	name := c.Mode
	if c.Tunnel != "" {
		name += "-" + c.Tunnel
	}
	name += "-" + c.Family
	if c.RealServers != c.Family {
		name += "-" + c.RealServers
	}
	return name
}

// vip is the case's own.
func (c Case) vip() netip.Addr {
	for i := range cases {
		if cases[i] == c {
			if c.Family == ipv6 {
				return netip.MustParseAddr(fmt.Sprintf("2001:db8:a::%d", i+1))
			}
			return netip.MustParseAddr(fmt.Sprintf("203.0.113.%d", i+1))
		}
	}
	panic("demo: a case that is not in the list")
}

// owned says whether the real servers own the VIP and answer the client
// directly.
func (c Case) owned() bool { return c.Mode == "dr" || c.Mode == "tun" }

// rip is the address of real server number i, from 0. Those of nat are apart:
// their default route is the director.
func (c Case) rip(i int) netip.Addr {
	host := 21 + i
	if c.Mode == "nat" {
		host += 100
	}
	if c.RealServers == ipv6 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:e::%d", host))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", host))
}

// The ports of the services on each VIP, and where the real servers of nat and
// fullnat, which map ports, have them.
const (
	httpPort, mappedHTTPPort = 80, 8080
	udpPort, mappedUDPPort   = 7, 7007
)

// mapped is the port that the real server sees for a port of the VIP.
func (c Case) mapped(port uint16) uint16 {
	if c.owned() {
		return port
	}
	return map[uint16]uint16{httpPort: mappedHTTPPort, udpPort: mappedUDPPort}[port]
}

// served is where real server i answers what is sent to a port of the VIP.
func (c Case) served(i int, port uint16) netip.AddrPort {
	if c.owned() {
		return netip.AddrPortFrom(c.vip(), port)
	}
	return netip.AddrPortFrom(c.rip(i), c.mapped(port))
}

// configuration is the director's: all cases at once. JSON, so that nothing
// need be quoted by hand.
func configuration(socket string) ([]byte, error) {
	type object map[string]any
	var services []object
	for _, c := range cases {
		for proto, port := range map[string]uint16{"tcp": httpPort, "udp": udpPort} {
			var servers []object
			for i := range realServers {
				servers = append(servers, object{"address": netip.AddrPortFrom(c.rip(i), c.mapped(port)).String()})
			}
			s := object{
				"name": c.name() + "-" + proto, "mode": c.Mode, "scheduler": "rr", "announce": false,
				"listen":       []string{fmt.Sprintf("%v/%s", netip.AddrPortFrom(c.vip(), port), proto)},
				"real_servers": servers,
			}
			if c.Tunnel != "" {
				s["tunnel"] = object{"type": c.Tunnel}
			}
			services = append(services, s)
		}
	}
	return json.MarshalIndent(object{
		"node":      "director",
		"addresses": object{"tunnel_source": []string{dip4, dip6}, "fullnat_pool": []string{pool4, pool6}},
		"admin":     object{"socket": socket, "listen": ""},
		"services":  services,
	}, "", "  ")
}
