package integration

// Every kind of session against BIRD, one after the other in the topology of
// bgp_test.go. What is asked of each: it is established, both VIPs are in the
// router's kernel, and a client gets an answer.

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

func TestBGPSessionsWithBIRD(t *testing.T) {
	need(t, "bird", "birdc", "nginx", "curl", "ip")
	n := newTor(t)
	if err := nginx(n.rs); err != nil {
		t.Fatal(err)
	}
	// For multihop the peers are loopback addresses behind each other's own.
	n.router.Addr("lo", "10.255.0.1/32 2001:db8:255::1/128").Route("10.255.0.11/32", "192.0.2.11").Route("2001:db8:255::11/128", "2001:db8:1::11")
	n.lb[0].Addr("lo", "10.255.0.11/32 2001:db8:255::11/128").Route("10.255.0.1/32", "192.0.2.1").Route("2001:db8:255::1/128", "2001:db8:1::1")
	// An unnumbered link of its own: there are two routers on the LAN.
	n.router.Link(n.lb[0], "", "")
	drawn(t, n.client.Lab())

	const v4, v6 = "203.0.113.10", "2001:db8:a::10"
	tests := []struct {
		name  string
		bird  string // protocols from the template
		uvs   string // keys of the section bgp
		names string // of bird's protocols, all of them; lb where empty
		vips  string // in the router's kernel
		hops  string // the next hops of those
		bfd   bool   // bird sees an Up session
	}{
		{name: "IPv4 and IPv6, a session each", names: "s4 s6", vips: v4 + " " + v6, hops: "192.0.2.11 2001:db8:1::11",
			bird: "protocol bgp s4 from director { neighbor 192.0.2.11 as 65011; }\nprotocol bgp s6 from director { neighbor 2001:db8:1::11 as 65011; }",
			uvs:  "peers: [{address: 192.0.2.1, as: 65000}, {address: \"2001:db8:1::1\", as: 65000}]"},
		{name: "both families over IPv4", vips: v4 + " " + v6, hops: "192.0.2.11 2001:db8:1::11",
			bird: "protocol bgp lb from director { neighbor 192.0.2.11 as 65011; }",
			uvs:  "peers: [{address: 192.0.2.1, as: 65000, families: [ipv4, ipv6], next_hop_ipv6: \"2001:db8:1::11\"}]"},
		{name: "both families over IPv6, IPv4 with an IPv6 next hop (RFC 8950)", vips: v4 + " " + v6, hops: "2001:db8:1::11 2001:db8:1::11",
			bird: "protocol bgp lb from director { neighbor 2001:db8:1::11 as 65011; ipv4 { import all; export none; extended next hop on; }; }",
			uvs:  "peers: [{address: \"2001:db8:1::1\", as: 65000, families: [ipv4, ipv6]}]"},
		{name: "both families over IPv6, IPv4 with an IPv4 next hop", vips: v4 + " " + v6, hops: "192.0.2.11 2001:db8:1::11",
			bird: "protocol bgp lb from director { neighbor 2001:db8:1::11 as 65011; }",
			uvs:  "peers: [{address: \"2001:db8:1::1\", as: 65000, families: [ipv4, ipv6], next_hop_ipv4: 192.0.2.11}]"},
		{name: "of our own AS", vips: v4, hops: "192.0.2.11",
			bird: "protocol bgp lb from director { local as 65011; neighbor 192.0.2.11 as 65011; }",
			uvs:  "peers: [{address: 192.0.2.1, as: 65011}]"},
		{name: "TCP MD5, we connect", vips: v4, hops: "192.0.2.11",
			bird: "protocol bgp lb from director { neighbor 192.0.2.11 as 65011; password \"s3cret\"; passive on; }",
			uvs:  "peers: [{address: 192.0.2.1, as: 65000, password: s3cret}]"},
		{name: "TCP MD5, the router connects", vips: v4, hops: "192.0.2.11",
			bird: "protocol bgp lb from director { neighbor 192.0.2.11 as 65011; password \"s3cret\"; }",
			uvs:  "listen_port: 179\n  peers: [{address: 192.0.2.1, as: 65000, password: s3cret, passive: true}]"},
		{name: "TCP MD5 over IPv6, the router connects", vips: v6, hops: "2001:db8:1::11",
			bird: "protocol bgp lb from director { neighbor 2001:db8:1::11 as 65011; password \"s3cret\"; }",
			uvs:  "listen_port: 179\n  peers: [{address: \"2001:db8:1::1\", as: 65000, password: s3cret, passive: true}]"},
		{name: "passive, on another port", vips: v4, hops: "192.0.2.11",
			bird: "protocol bgp lb from director { neighbor 192.0.2.11 port 1179 as 65011; }",
			uvs:  "listen_port: 1179\n  peers: [{address: 192.0.2.1, as: 65000, passive: true}]"},
		{name: "both sides connect", vips: v4, hops: "192.0.2.11",
			bird: "protocol bgp lb from director { neighbor 192.0.2.11 as 65011; }",
			uvs:  "listen_port: 179\n  peers: [{address: 192.0.2.1, as: 65000}]"},
		{name: "TTL security", vips: v4, hops: "192.0.2.11",
			bird: "protocol bgp lb from director { neighbor 192.0.2.11 as 65011; ttl security on; }",
			uvs:  "peers: [{address: 192.0.2.1, as: 65000, ttl_security: true}]"},
		{name: "TTL security, the router connects", vips: v4, hops: "192.0.2.11",
			bird: "protocol bgp lb from director { neighbor 192.0.2.11 as 65011; ttl security on; }",
			uvs:  "listen_port: 179\n  peers: [{address: 192.0.2.1, as: 65000, ttl_security: true, passive: true}]"},
		{name: "multihop between loopbacks", vips: v4, hops: "192.0.2.11",
			bird: "protocol static { ipv4; route 10.255.0.11/32 via 192.0.2.11; }\nprotocol bgp lb from director { local 10.255.0.1 as 65000; neighbor 10.255.0.11 as 65011; multihop 3; }",
			uvs:  "peers: [{address: 10.255.0.1, as: 65000, multihop: 3, local_address: 10.255.0.11}]"},
		{name: "add-path", vips: v4, hops: "192.0.2.11",
			bird: "protocol bgp lb from director { neighbor 192.0.2.11 as 65011; ipv4 { import all; export none; add paths rx; }; }",
			uvs:  "peers: [{address: 192.0.2.1, as: 65000, add_path: true}]"},
		{name: "unnumbered, a router that advertises", vips: v4 + " " + v6, hops: "dev~lb1 dev~lb1",
			bird: "protocol radv { interface \"lb1\" { max ra interval 4; }; }\nprotocol bgp lb from director { neighbor range fe80::/10 as 65011; interface \"lb1\"; ipv4 { import all; export none; extended next hop on; }; }",
			uvs:  "peers: [{interface: router, as: 65000}]", names: "dynbgp1"},
		{name: "unnumbered, a router that only answers pings", vips: v4 + " " + v6, hops: "dev~lb1 dev~lb1",
			bird: "protocol bgp lb from director { neighbor range fe80::/10 as 65011; interface \"lb1\"; ipv4 { import all; export none; extended next hop on; }; }",
			uvs:  "peers: [{interface: router, as: 65000}]", names: "dynbgp1"},
		{name: "BFD", vips: v4, hops: "192.0.2.11", bfd: true,
			bird: "protocol bfd { interface \"lan\" { interval 300 ms; multiplier 10; }; }\nprotocol bgp lb from director { neighbor 192.0.2.11 as 65011; bfd on; }",
			uvs:  "peers: [{address: 192.0.2.1, as: 65000, bfd: {enabled: true, multiplier: 10}}]"},
		{name: "BFD over IPv6", vips: v6, hops: "2001:db8:1::11", bfd: true,
			bird: "protocol bfd { interface \"lan\" { interval 300 ms; multiplier 10; }; }\nprotocol bgp lb from director { neighbor 2001:db8:1::11 as 65011; bfd on; }",
			uvs:  "peers: [{address: \"2001:db8:1::1\", as: 65000, bfd: {enabled: true, multiplier: 10}}]"},
		{name: "BFD over several hops", vips: v4, hops: "192.0.2.11", bfd: true,
			bird: "protocol bfd { multihop { interval 300 ms; multiplier 10; }; }\nprotocol static { ipv4; route 10.255.0.11/32 via 192.0.2.11; }\nprotocol bgp lb from director { local 10.255.0.1 as 65000; neighbor 10.255.0.11 as 65011; multihop 3; bfd on; }",
			uvs:  "peers: [{address: 10.255.0.1, as: 65000, multihop: 3, local_address: 10.255.0.11, bfd: {enabled: true, multiplier: 10}}]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := startBird(t, n.router, "192.0.2.1", tt.bird)
			d := startDirector(t, n.lb[0], n.config(0, "bgp:\n  as: 65011\n  router_id: 192.0.2.11\n  "+tt.uvs))
			if tt.names == "" {
				tt.names = "lb"
			}
			b.established(t, strings.Fields(tt.names)...)
			hops := strings.Fields(tt.hops)
			for i, vip := range strings.Fields(tt.vips) {
				fib(t, n.router, vip, strings.ReplaceAll(hops[i], "~", " "))
				url := "http://" + vip + "/who"
				if strings.Contains(vip, ":") {
					url = "http://[" + vip + "]/who"
				}
				if got := run(t, n.client, "curl", "-sS", "--fail", "--max-time", "60", url); !strings.HasPrefix(got, "rs ") {
					t.Errorf("%s: answer %q", url, got)
				}
			}
			if tt.bfd {
				b.bfdUp(t)
			}
			d.process.Stop()
			for _, vip := range strings.Fields(tt.vips) {
				fib(t, n.router, vip)
			}
			b.process.Stop()
		})
	}
}

// bfdUp waits until the one BFD session is up.
func (b *bird) bfdUp(t *testing.T) {
	t.Helper()
	err := lab.Wait(within(t), "BFD to be up", func() error {
		if out := b.ask(t, "show", "bfd", "sessions"); !strings.Contains(out, " Up ") {
			return errors.New(out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestBGPAttributes: what the configuration says of the routes is what BIRD
// gets, and only the peers that are to have a route get it.
func TestBGPAttributes(t *testing.T) {
	need(t, "bird", "birdc", "ip")
	n := newTor(t)
	b := startBird(t, n.router, "192.0.2.1", `
protocol bgp ext from director { neighbor 192.0.2.11 as 65011; }
protocol bgp ext6 from director { neighbor 2001:db8:1::11 as 65011; }
`)
	const peers = `
  peers:
    - {address: 192.0.2.1, as: 65000}
    - {address: "2001:db8:1::1", as: 65000, families: [ipv4, ipv6], next_hop_ipv4: 192.0.2.11}
services:
  - name: plain
    mode: fullnat
    listen: ["203.0.113.10:80/tcp", "[2001:db8:a::10]:80/tcp"]
    real_servers: [{address: "192.0.2.21:80"}]
  - name: special
    mode: fullnat
    listen: ["203.0.113.11:80/tcp", "198.51.100.200:80/tcp"]
    real_servers: [{address: "192.0.2.21:80"}]
`
	const head = "addresses: {fullnat_pool: [\"198.51.100.11/32\"]}\nbgp:\n  as: 65011\n  router_id: 192.0.2.11\n  communities: [\"65011:100\", site]\n" +
		"  community_names: [{name: site, value: \"65011:1:2\"}]\n  med: 10\n  aggregates: [{prefix: 198.51.100.192/26, only: true}]"
	special := "    bgp: {communities: [no-export], med: 20, prepend: 2, peers: [192.0.2.1]}\n"
	d := startDirector(t, n.lb[0], head+peers+special)
	b.established(t, "ext", "ext6")
	routes := func(vip, protocol string) string {
		return b.ask(t, "show", "route", vip, "protocol", protocol, "all")
	}
	has := func(vip, protocol string, wanted ...string) {
		t.Helper()
		err := lab.Wait(within(t), vip+" at "+protocol, func() error {
			got := routes(vip, protocol)
			for _, w := range wanted {
				if !strings.Contains(got, w) {
					return fmt.Errorf("want %q in\n%s", w, got)
				}
			}
			if strings.Contains(got, "4294967295") {
				return fmt.Errorf("our own marks are seen:\n%s", got)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	hasNot := func(vip, protocol string) {
		t.Helper()
		err := lab.Wait(within(t), "no "+vip+" at "+protocol, func() error {
			if got := routes(vip, protocol); strings.Contains(got, "unicast") {
				return errors.New(got)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	has("203.0.113.10/32", "ext", "BGP.as_path: 65011\n", "BGP.med: 10", "(65011,100)", "(65011, 1, 2)", "BGP.next_hop: 192.0.2.11")
	has("203.0.113.10/32", "ext6", "BGP.next_hop: 192.0.2.11")
	has("2001:db8:a::10/128", "ext6", "BGP.as_path: 65011\n", "BGP.med: 10")
	has("203.0.113.11/32", "ext", "BGP.as_path: 65011 65011 65011\n", "BGP.med: 20", "(65011,100) (65535,65281)", "(65011, 1, 2)")
	hasNot("203.0.113.11/32", "ext6")
	has("198.51.100.192/26", "ext", "BGP.med: 10")
	hasNot("198.51.100.200/32", "ext")

	// A reload changes attributes and peers in place.
	if err := d.reload(head + peers + "    bgp: {peers: [\"2001:db8:1::1\"]}\n"); err != nil {
		t.Fatal(err)
	}
	has("203.0.113.11/32", "ext6", "BGP.as_path: 65011\n", "BGP.med: 10")
	hasNot("203.0.113.11/32", "ext")
	if err := d.reload(head + peers); err != nil {
		t.Fatal(err)
	}
	has("203.0.113.11/32", "ext")
	has("203.0.113.11/32", "ext6")
}
