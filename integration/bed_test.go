package integration

// The bed of most tests. The director has one arm; the real servers answer by
// the router (dr, tun), by the director (nat: from addresses of their own,
// whose default route it is), or to the director (fullnat: it owns the pool).
//
//	  client              router                              director
//	198.18.0.2 ─────── 198.18.0.1  192.0.2.1 ──── lan ──── 192.0.2.11
//	2001:db8:c::2   2001:db8:c::1  2001:db8:1::1   │        2001:db8:1::11
//	                                               ├──── rs1 192.0.2.21, nat .121
//	                                               │         2001:db8:1::21, nat ::121
//	                                               └──── rs2 192.0.2.22, nat .122
//	                                                         2001:db8:1::22, nat ::122
//
//	VIPs 203.0.113.0/24 and 2001:db8:a::/64, routed to the director
//	LIPs 198.51.100.0/24 and 2001:db8:f::/64, likewise

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/uvs-project/uvs/integration/lab"
)

const (
	vips = "203.0.113.0/24 2001:db8:a::/64"
	lips = "198.51.100.0/24 2001:db8:f::/64"
)

// A bed is the topology above with its servers running.
type bed struct {
	lab                           *lab.Lab
	client, router, lan, director *lab.Host
	rs                            [2]*lab.Host
}

// newBed draws the topology, without servers.
func newBed(l *lab.Lab) *bed {
	b := &bed{lab: l}
	b.client, b.router = l.Host("client"), l.Host("router").Forward()
	b.lan = l.Host("lan").Bridge("br0", "")
	b.director = l.Host("director").Forward()
	b.client.Link(b.router, "198.18.0.2/24 2001:db8:c::2/64", "198.18.0.1/24 2001:db8:c::1/64")
	b.client.Route("default", "198.18.0.1").Route("default", "2001:db8:c::1")
	b.router.Link(b.lan, "192.0.2.1/24 2001:db8:1::1/64", "")
	b.director.Link(b.lan, "192.0.2.11/24 2001:db8:1::11/64", "")
	b.director.Route("default", "192.0.2.1").Route("default", "2001:db8:1::1")
	for i := range b.rs {
		n := i + 1
		rs := l.Host(fmt.Sprintf("rs%d", n))
		rs.Link(b.lan, fmt.Sprintf("192.0.2.2%d/24 192.0.2.12%d/24 2001:db8:1::2%d/64 2001:db8:1::12%d/64", n, n, n, n), "")
		rs.Route("default", "192.0.2.1").Route("default", "2001:db8:1::1")
		rs.Rule(fmt.Sprintf("192.0.2.12%d 2001:db8:1::12%d", n, n), natTable)
		rs.TableRoute(natTable, "default", "192.0.2.11").TableRoute(natTable, "default", "2001:db8:1::11")
		b.rs[i] = rs
	}
	for i, via := range []string{"192.0.2.11", "2001:db8:1::11"} {
		b.router.Route(strings.Fields(vips)[i], via)
		for _, h := range append(b.rs[:], b.router) {
			h.Route(strings.Fields(lips)[i], via)
		}
	}
	return b
}

// natTable is the routing table of the real servers' answers in nat.
const natTable = 100

// serve starts the real servers' programs for the variants.
func (b *bed) serve(list []variant) error {
	for i, rs := range b.rs {
		for _, start := range []func(*lab.Host) error{nginx, bind, iperf, socatTCP} {
			if err := start(rs); err != nil {
				return err
			}
		}
		bound := map[netip.Addr]bool{}
		for _, v := range list {
			addr := v.served(i + 1)
			if bound[addr] {
				continue
			}
			bound[addr] = true
			if err := socatUDP(rs, addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// ownVIPs makes the real servers owners of the VIPs of dr and tun, by uvs itself.
func (b *bed) ownVIPs(bin string, list []variant) error {
	return nil
}

// echoPort is where socat echoes.
const echoPort = 7

func timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}
