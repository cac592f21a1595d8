package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bgpFile is a file with a section bgp and a service on two VIPs.
func bgpFile(bgp ...string) string {
	return "bgp:\n  as: 65011\n  router_id: 192.0.2.11\n  " + strings.Join(bgp, "\n  ") + "\n" +
		service("listen: [\"203.0.113.10:80/tcp\"]")
}

func TestParseRefusesBGP(t *testing.T) {
	const peer = "peers: [{address: 192.0.2.1, as: 65000}]"
	web := `services[0] "web": `
	tests := []struct {
		name string
		raw  string
		want []string
	}{
		{name: "a section without its AS", raw: "bgp: {router_id: 192.0.2.11}\n",
			want: []string{"bgp.as: missing"}},
		{name: "a service's section without one of the file", raw: service("bgp: {med: 5}"),
			want: []string{web + "bgp: the file has no section bgp with an AS"}},
		{name: "no router ID and no IPv4 address", raw: "bgp: {as: 65011, peers: [{address: \"2001:db8::1\", as: 65000}]}\n",
			want: []string{"bgp.router_id: missing, and the file has no IPv4 address of this host (a peer's local_address or addresses.tunnel_source) to take it from; it is a number in the form of an IPv4 address, of each director another"}},
		{name: "a router ID of the wrong form", raw: "bgp: {as: 65011, router_id: \"2001:db8::1\", " + peer + "}\n",
			want: []string{"bgp.router_id: 2001:db8::1 is not in the form of an IPv4 address"}},
		{name: "no peers", raw: bgpFile(),
			want: []string{"bgp.peers: missing; a list such as [{address: 192.0.2.1, as: 65000}]"}},
		{name: "numbers that no AS has", raw: "bgp: {as: 23456, router_id: 192.0.2.11, peers: [{address: 192.0.2.1}, {address: 192.0.2.2, as: 4294967295}]}\n",
			want: []string{
				"bgp.as: 23456 is not the number of an AS",
				"bgp.peers[0].as: missing",
				"bgp.peers[1].as: 4294967295 is not the number of an AS",
			}},
		{name: "communities that are none", raw: bgpFile("communities: [65011:100000, a:b:c, site, known]", "community_names: [{name: known, value: \"1:2:3\"}, {name: no-export, value: \"1:2\"}, {name: known, value: x}]", peer),
			want: []string{
				`bgp.community_names[1].name: "no-export" is a well-known community`,
				`bgp.community_names[2].name: "known" is there already`,
				`bgp.community_names[2].value: "x" is no community: write two numbers (65011:100), three (65011:1:2), or a name of community_names or of the RFCs`,
				`bgp.communities[0]: "65011:100000" is no community: "100000" is not a number of 16 bits`,
				`bgp.communities[1]: "a:b:c" is no community: "a" is not a number of 32 bits`,
				`bgp.communities[2]: "site" is no community: write two numbers (65011:100), three (65011:1:2), or a name of community_names or of the RFCs`,
			}},
		{name: "aggregates of nothing and of everything", raw: bgpFile("aggregates: [{prefix: 198.51.100.0/24}, {prefix: 0.0.0.0/0}, {prefix: 203.0.113.1/24}, {}]", peer),
			want: []string{
				"bgp.aggregates[0].prefix: 198.51.100.0/24 holds no VIP of a service, so it would never be announced",
				"bgp.aggregates[1].prefix: 0.0.0.0/0 is every address; a director announces its VIPs",
				"bgp.aggregates[2].prefix: 203.0.113.1/24 has bits after its length; write 203.0.113.0/24",
				"bgp.aggregates[3].prefix: missing",
			}},
		{name: "a peer that is ourselves", raw: "addresses: {tunnel_source: [192.0.2.12], fullnat_pool: [198.51.100.0/29]}\n" +
			bgpFile("peers: [{address: 192.0.2.11, as: 65000}, {address: 192.0.2.12, as: 65000}, {address: 203.0.113.10, as: 65000}, {address: 198.51.100.1, as: 65000}, {address: 192.0.2.1, local_address: 192.0.2.1, as: 65000}, {address: 127.0.0.1, as: 65000}]"),
			want: []string{
				"bgp.peers[0].address: 192.0.2.11 is the router_id: the peer is ourselves",
				"bgp.peers[1].address: 192.0.2.12 is the tunnel_source: the peer is ourselves",
				`bgp.peers[2].address: 203.0.113.10 is a VIP of service "web": the peer is ourselves`,
				"bgp.peers[3].address: 198.51.100.1 is in the fullnat_pool 198.51.100.0/29: the peer is ourselves",
				"bgp.peers[4].address: 192.0.2.1 is the local_address of its own session: the peer is ourselves",
				"bgp.peers[5].address: 127.0.0.1 is not a unicast address that routers forward to",
			}},
		{name: "a peer without an address, with two, twice, and on no link", raw: bgpFile("peers: [{as: 65000}, {interface: eth0, address: 192.0.2.1, as: 65000}, {address: 192.0.2.2, as: 1}, {address: 192.0.2.2, as: 1}, {address: \"fe80::1\", as: 1}]"),
			want: []string{
				"bgp.peers[0].address: missing; or give the interface of a peer that is found by its link-local address",
				"bgp.peers[1].interface: the address is given too; one of the two finds the peer",
				"bgp.peers[3].address: 192.0.2.2 is a peer already",
				"bgp.peers[4].address: fe80::1 is link-local; write its interface too, as in fe80::1%eth0",
			}},
		{name: "what a session cannot be", raw: bgpFile(
			"peers:",
			"  - {address: 192.0.2.1, as: 65000, passive: true, local_address: \"2001:db8::1\", hold_time: 2s, connect_retry: 1500ms, multihop: 300, port: 0}",
			"  - {interface: eth0, as: 65000, password: x, local_address: 192.0.2.11, multihop: 2}",
			"  - {address: 192.0.2.3, as: 65011, multihop: 2, password: \""+strings.Repeat("p", 81)+"\"}",
		),
			want: []string{
				"bgp.peers[0].port: 0 is out of range, 1 to 65535",
				"bgp.peers[0].local_address: 2001:db8::1 and the peer's address 192.0.2.1 are of two families",
				"bgp.peers[0].passive: nobody listens: set bgp.listen_port, as a rule to 179",
				"bgp.peers[0].multihop: 300 is out of range, 0 to 254",
				"bgp.peers[0].hold_time: 2s is out of range, whole seconds from 3s to 65535s",
				"bgp.peers[0].connect_retry: 1.5s is out of range, whole seconds from 1s to 3600s",
				"bgp.peers[1].local_address: the session is between the link-local addresses of eth0",
				"bgp.peers[1].password: TCP MD5 between link-local addresses is not possible; give the peer an address",
				"bgp.peers[1].multihop: the peer is on the link itself",
				"bgp.peers[2].password: longer than 80 bytes, which TCP MD5 cannot use",
				"bgp.peers[2].multihop: the peer is of our own AS, which may be any number of hops away; the number only counts for ttl_security and bfd",
			}},
		{name: "BFD beside graceful restart, too fast, and not enabled", raw: bgpFile("graceful_restart: 60s", "peers:",
			"  - {address: 192.0.2.1, as: 65000, bfd: {enabled: true}}",
			"  - {address: 192.0.2.2, as: 65000, bfd: {enabled: true, interval: 5ms, multiplier: 1}}",
			"  - {address: 192.0.2.3, as: 65000, bfd: {interval: 300ms}}"),
			want: []string{
				"bgp.peers[0].bfd: BFD drops routes at once that bgp.graceful_restart keeps; one of the two",
				"bgp.peers[1].bfd: BFD drops routes at once that bgp.graceful_restart keeps; one of the two",
				"bgp.peers[1].bfd.interval: 5ms is out of range, whole milliseconds from 10ms to 1m0s",
				"bgp.peers[1].bfd.multiplier: 1 is out of range, 2 to 255",
				"bgp.peers[2].bfd.enabled: must be true for the other keys to count",
			}},
		{name: "next hops that do not fit", raw: bgpFile(
			"peers:",
			"  - {address: 192.0.2.1, as: 65000, families: [ipv4, ipv6]}",
			"  - {address: 192.0.2.2, as: 65000, families: [ipv6, ipv6, ipx], next_hop_ipv6: 192.0.2.11, next_hop_ipv4: 192.0.2.11}",
		),
			want: []string{
				"bgp.peers[0].next_hop_ipv6: missing: the session is IPv4, so it must be said where packets to IPv6 VIPs go, an IPv6 address of this host",
				`bgp.peers[1].families[1]: "ipv6" is listed twice`,
				`bgp.peers[1].families[2]: "ipx" is none of ipv4, ipv6`,
				"bgp.peers[1].next_hop_ipv4: the peer does not get routes of that family",
				"bgp.peers[1].next_hop_ipv6: 192.0.2.11 is of the other family",
			}},
		{name: "values out of range", raw: bgpFile("listen_port: 0", "graceful_restart: on", "local_preference: -1", "med: 4294967296", "prepend: 33", "prepend_degraded: -1", "prepend_backup: 33", peer),
			want: []string{
				`bgp.graceful_restart: must be "off" or a duration with its unit, such as 120s, is the text "on"`,
				"bgp.listen_port: 0 is out of range, 1 to 65535",
				"bgp.local_preference: -1 is out of range, 0 to 4294967295",
				"bgp.med: 4294967296 is out of range, 0 to 4294967295",
				"bgp.prepend: 33 is out of range, 0 to 32",
				"bgp.prepend_degraded: -1 is out of range, 0 to 32",
				"bgp.prepend_backup: 33 is out of range, 0 to 32",
			}},
		{name: "a service for a peer that is not there", raw: "bgp: {as: 65011, router_id: 192.0.2.11, " + peer + "}\n" + service("bgp: {peers: [192.0.2.9], communities: [nowhere]}"),
			want: []string{
				web + `bgp.communities[0]: "nowhere" is no community: write two numbers (65011:100), three (65011:1:2), or a name of community_names or of the RFCs`,
				web + `bgp.peers[0]: "192.0.2.9" is the address or interface of no peer in bgp.peers`,
			}},
		{name: "a VIP announced in two ways", raw: "bgp: {as: 65011, router_id: 192.0.2.11, " + peer + "}\nservices:\n" +
			"  - {name: web, listen: [\"203.0.113.10:80/tcp\"], mode: nat, bgp: {med: 5}}\n" +
			"  - {name: tls, listen: [\"203.0.113.10:443/tcp\"], mode: nat}\n",
			want: []string{`services[1] "tls": bgp: service "web" has the VIP 203.0.113.10 too, and another section bgp; a VIP is announced in one way`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.raw), "yaml", Options{})
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(tt.want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNoFaultShowsAPassword(t *testing.T) {
	raw := bgpFile("peers: [{address: 192.0.2.1, as: 0, password: hush, hold_time: 1s, colour: red}, {interface: eth0, password: hush}]")
	_, err := Parse([]byte(raw), "yaml", Options{})
	if err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("%v", err)
	}
}

func TestRouterIDIsTakenFromTheFile(t *testing.T) {
	for _, raw := range []string{
		"bgp: {as: 65011, peers: [{address: 192.0.2.1, as: 65000, local_address: 192.0.2.11}]}\n",
		"addresses: {tunnel_source: [\"2001:db8::11\", 192.0.2.11]}\nbgp: {as: 65011, peers: [{address: \"2001:db8::1\", as: 65000}]}\n",
	} {
		cfg, err := Parse([]byte(raw), "yaml", Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.BGP.RouterID.String(); got != "192.0.2.11" {
			t.Errorf("router ID %s of\n%s", got, raw)
		}
	}
}

func TestCommunitiesByNumberAndName(t *testing.T) {
	c := &Config{BGP: BGP{CommunityNames: []CommunityName{{"site", "65011:1:2"}, {"rack", "65011:7"}}}}
	standard, large, err := c.Communities([]string{"65011:100", "graceful-shutdown", "site", "rack", "4294967294:0:1"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint32{65011<<16 | 100, 0xFFFF0000, 65011<<16 | 7}, standard); diff != "" {
		t.Errorf("standard (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([][3]uint32{{65011, 1, 2}, {4294967294, 0, 1}}, large); diff != "" {
		t.Errorf("large (-want +got):\n%s", diff)
	}
}
