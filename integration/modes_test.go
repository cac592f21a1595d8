package integration

import (
	"fmt"
	"net/netip"
	"strings"
)

// A variant is a mode with the families of its VIP and its real servers, on a VIP of its own.
type variant struct {
	name   string
	mode   string
	tunnel string // of mode tun
	vip    netip.Addr
	rs6    bool // the real servers are addressed by IPv6
}

// variants are all that a director of the bed balances at once.
var variants = func() []variant {
	list := []variant{
		{name: "dr IPv4", mode: "dr"},
		{name: "dr IPv6", mode: "dr", rs6: true},
		{name: "nat IPv4", mode: "nat"},
		{name: "nat IPv6", mode: "nat", rs6: true},
		{name: "tun ipip IPv4", mode: "tun", tunnel: "ipip"},
		{name: "tun ipip IPv6", mode: "tun", tunnel: "ipip", rs6: true},
		{name: "tun ipip IPv4 in IPv6", mode: "tun", tunnel: "ipip", rs6: true},
		{name: "tun ipip IPv6 in IPv4", mode: "tun", tunnel: "ipip"},
		{name: "tun gue IPv4", mode: "tun", tunnel: "gue"},
		{name: "tun gue IPv6", mode: "tun", tunnel: "gue", rs6: true},
		{name: "tun gre IPv4", mode: "tun", tunnel: "gre"},
		{name: "tun gre IPv6", mode: "tun", tunnel: "gre", rs6: true},
		{name: "fullnat IPv4", mode: "fullnat"},
		{name: "fullnat IPv6", mode: "fullnat", rs6: true},
		{name: "fullnat IPv4 to IPv6", mode: "fullnat", rs6: true},
		{name: "fullnat IPv6 to IPv4", mode: "fullnat"},
	}
	for i := range list {
		v := &list[i]
		vip6 := v.rs6
		if strings.HasSuffix(v.name, "IPv4 in IPv6") || strings.HasSuffix(v.name, "IPv4 to IPv6") {
			vip6 = false
		}
		if strings.HasSuffix(v.name, "IPv6 in IPv4") || strings.HasSuffix(v.name, "IPv6 to IPv4") {
			vip6 = true
		}
		v.vip = netip.MustParseAddr(fmt.Sprintf("203.0.113.%d", 10+i))
		if vip6 {
			v.vip = netip.MustParseAddr(fmt.Sprintf("2001:db8:a::%d", 10+i))
		}
	}
	return list
}()

// group is the name, without its number, of the variant's real servers.
func (v *variant) group() string {
	if v.tunnel == "gue" || v.tunnel == "gre" {
		return v.tunnel
	}
	return "rs"
}

// hostNumber is the last part of the addresses of real server n, from 1.
func (v *variant) hostNumber(n int) int {
	return map[string]int{"rs": 20, "gue": 30, "gre": 40}[v.group()] + n
}

// rip is the address of real server n in this variant.
func (v *variant) rip(n int) netip.Addr {
	host := v.hostNumber(n)
	if v.mode == "nat" {
		host += 100
	}
	if v.rs6 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%d", host))
	}
	return netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", host))
}

// served is the address that the real server's programs answer on.
func (v *variant) served(n int) netip.Addr {
	if v.mode == "dr" || v.mode == "tun" {
		return v.vip
	}
	return v.rip(n)
}

// clientAddr is the address of the bed's client in the family of the VIP.
func (v *variant) clientAddr() netip.Addr {
	if v.vip.Is6() {
		return netip.MustParseAddr("2001:db8:c::2")
	}
	return netip.MustParseAddr("198.18.0.2")
}

// service is the variant in the director's configuration. iperf3 has several
// connections that belong together, so it has a service with one real server.
func (v *variant) service() string {
	var b strings.Builder
	write := func(name string, listen []string, ports string, servers ...int) {
		fmt.Fprintf(&b, "  - name: %s%s\n    mode: %s\n", strings.ReplaceAll(v.name, " ", "-"), name, v.mode)
		if v.tunnel != "" {
			fmt.Fprintf(&b, "    tunnel: {type: %s}\n", v.tunnel)
		}
		b.WriteString("    scheduler: rr\n    health: {type: none}\n    listen:\n")
		for _, l := range listen {
			network, port, _ := strings.Cut(l, "/")
			fmt.Fprintf(&b, "      - %q\n", fmt.Sprintf("%s:%s/%s", literal(v.vip), port, network))
		}
		b.WriteString("    real_servers:\n")
		for _, n := range servers {
			fmt.Fprintf(&b, "      - {address: %q}\n", literal(v.rip(n))+ports)
		}
	}
	write("", []string{"tcp/80", "tcp/53", "udp/53", "tcp/7", "udp/7"}, "", 1, 2)
	write("-iperf", []string{"tcp/5201"}, "", 1)
	if v.mode == "nat" || v.mode == "fullnat" {
		write("-mapped", []string{"tcp/8080"}, ":80", 1, 2)
	}
	return b.String()
}
