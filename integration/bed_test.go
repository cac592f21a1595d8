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
//	                                               ├──── rs2 192.0.2.22, nat .122
//	                                               │         2001:db8:1::22, nat ::122
//	                                               ├──── gue1, gue2: 192.0.2.31, .32 …
//	                                               └──── gre1, gre2: 192.0.2.41, .42 …
//
// A real server unpacks one kind of tunnel: rs1 and rs2 ipip, the others gue
// and gre. Those that no variant of a test uses are not made.
//
//	VIPs 203.0.113.0/24 and 2001:db8:a::/64, routed to the director
//	LIPs 198.51.100.0/24 and 2001:db8:f::/64, likewise

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
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
	groups                        map[string][2]*lab.Host // the real servers, by the name before their number
	uvs                           *director               // nil where something else is the director
	unpack                        []string                // how uvs realserver unpacks tunnels; nil: as it does by itself
}

// newBed draws the topology for the variants, without servers.
func newBed(l *lab.Lab, list []variant) *bed {
	b := &bed{lab: l, groups: map[string][2]*lab.Host{}}
	b.client, b.router = l.Host("client"), l.Host("router").Forward()
	b.lan = l.Host("lan").Bridge("br0", "")
	b.director = l.Host("director").Forward()
	b.client.Link(b.router, "198.18.0.2/24 2001:db8:c::2/64", "198.18.0.1/24 2001:db8:c::1/64")
	b.client.Route("default", "198.18.0.1").Route("default", "2001:db8:c::1")
	b.router.Link(b.lan, "192.0.2.1/24 2001:db8:1::1/64", "")
	b.director.Link(b.lan, "192.0.2.11/24 2001:db8:1::11/64", "")
	b.director.Route("default", "192.0.2.1").Route("default", "2001:db8:1::1")
	for i, via := range []string{"192.0.2.11", "2001:db8:1::11"} {
		b.router.Route(strings.Fields(vips)[i], via).Route(strings.Fields(lips)[i], via)
	}
	for _, v := range list {
		if _, there := b.groups[v.group()]; !there {
			b.groups[v.group()] = [2]*lab.Host{b.realServer(v, 1), b.realServer(v, 2)}
		}
	}
	return b
}

// realServer draws real server n of the variant's group.
func (b *bed) realServer(v variant, n int) *lab.Host {
	h := b.lab.Host(fmt.Sprintf("%s%d", v.group(), n))
	host := v.hostNumber(n)
	h.Link(b.lan, fmt.Sprintf("192.0.2.%d/24 192.0.2.%d/24 2001:db8:1::%d/64 2001:db8:1::%d/64", host, host+100, host, host+100), "")
	h.Route("default", "192.0.2.1").Route("default", "2001:db8:1::1")
	h.Rule(fmt.Sprintf("192.0.2.%d 2001:db8:1::%d", host+100, host+100), natTable)
	for i, via := range []string{"192.0.2.11", "2001:db8:1::11"} {
		h.TableRoute(natTable, "default", via).Route(strings.Fields(lips)[i], via)
	}
	return h
}

// offloadsOff switches them off on every link.
func (b *bed) offloadsOff() {
	onLAN := []*lab.Host{b.router, b.director}
	for _, group := range b.groups {
		onLAN = append(onLAN, group[:]...)
	}
	for _, h := range onLAN {
		h.Offload("lan", false)
		b.lan.Offload(h.Name, false)
	}
	b.client.Offload("router", false)
	b.router.Offload("client", false)
}

// natTable is the routing table of the real servers' answers in nat.
const natTable = 100

// serve starts the real servers' programs.
func (b *bed) serve(list []variant) error {
	for _, group := range b.groups {
		for _, rs := range group {
			for _, start := range []func(*lab.Host) error{nginx, bind, socatTCP} {
				if err := start(rs); err != nil {
					return err
				}
			}
		}
	}
	bound := map[*lab.Host]map[netip.Addr]bool{}
	for _, v := range list {
		for i, rs := range b.groups[v.group()] {
			addr := v.served(i + 1)
			if bound[rs] == nil {
				bound[rs] = map[netip.Addr]bool{}
			}
			if bound[rs][addr] {
				continue
			}
			bound[rs][addr] = true
			if err := socatUDP(rs, addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// ownVIPs makes the real servers of dr and tun what these modes want, as a
// user would, by uvs realserver setup.
func (b *bed) ownVIPs(bin string, list []variant) error {
	for name, group := range b.groups {
		for _, mode := range []string{"dr", "tun"} {
			args := []string{"realserver", "setup", "--foreground", "--mode", mode}
			owned := len(args)
			for _, v := range list {
				if v.group() == name && v.mode == mode {
					args = append(args, "--vip", v.vip.String())
				}
			}
			if len(args) == owned {
				continue
			}
			if mode == "tun" {
				args = append(args, b.unpack...)
			}
			if mode == "tun" && name != "rs" {
				args = append(args, "--tunnel", name)
			}
			for _, rs := range group {
				if err := setUp(rs, exec.Command(bin, args...)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// setUp runs uvs realserver setup until it says that it is done.
func setUp(rs *lab.Host, cmd *exec.Cmd) error {
	p, err := rs.Start(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := timeout()
	defer cancel()
	return lab.Wait(ctx, rs.Name+" to be a real server", func() error {
		if out := p.Output(); !strings.Contains(out, "real server is set up") {
			return errors.New(out)
		}
		return nil
	})
}

// echoPort is where socat echoes.
const echoPort = 7

func timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}
