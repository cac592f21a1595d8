package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/uvs-project/uvs/integration/lab"
)

// topology is the network as it is shown.
const topology = `
   client ───────────── router ───────────── director
   198.18.0.2              │                    │  10.0.0.11, 2001:db8:e::11
   2001:db8:c::2           └─────── lan ────────┘
                                 │       │
                               rs1       rs2
                         10.0.0.21       10.0.0.22          for nat .121 and .122,
                    2001:db8:e::21       2001:db8:e::22     which answer by the director

   VIPs  203.0.113.0/24   2001:db8:a::/64    routed to the director
   LIPs  198.51.100.0/29  2001:db8:f::/125   stand in for the clients in fullnat
`

const (
	dip4, dip6   = "10.0.0.11", "2001:db8:e::11"
	pool4, pool6 = "198.51.100.0/29", "2001:db8:f::/125"
	vips         = "203.0.113.0/24 2001:db8:a::/64"

	realServers = 2
	natTable    = 100 // routes answers from the real servers' addresses for nat
)

// A network is the topology with everything running.
type network struct {
	lab                      *lab.Lab
	client, router, director *lab.Host
	rs                       [realServers]*lab.Host
	uvs                      *lab.Process
	macs                     map[string]string // link address to the name of its host
	dir                      string            // of the director's configuration and socket
	program                  string

	// asked are the client's UDP sockets. They stay open so that no port is
	// given out twice: the director would know its flow, and no turn be taken.
	asked []net.Conn

	stopServers context.CancelFunc
	servers     sync.WaitGroup
}

// start builds the network and runs everything in it. close ends it.
func start(ctx context.Context, program string) (*network, error) {
	l, err := lab.New("uvs-demo")
	if err != nil {
		return nil, err
	}
	n := &network{lab: l, program: program, stopServers: func() {}}
	if err := n.start(ctx); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *network) start(ctx context.Context) (err error) {
	if n.dir, err = os.MkdirTemp("", "uvs-demo-"); err != nil {
		return err
	}
	n.draw()
	if err := n.lab.Err(); err != nil {
		return err
	}
	if n.macs, err = macs(n.hosts()...); err != nil {
		return err
	}
	var serving context.Context
	serving, n.stopServers = context.WithCancel(ctx)
	for i := range n.rs {
		if err := n.realServer(ctx, serving, i); err != nil {
			return err
		}
	}
	return n.direct(ctx)
}

// draw makes the hosts and the links between them.
func (n *network) draw() {
	l := n.lab
	n.client, n.director = l.Host("client"), l.Host("director").Forward()
	n.router = l.Host("router").Forward()
	lan := l.Host("lan").Bridge("br0", "")
	n.client.Link(n.router, "198.18.0.2/24 2001:db8:c::2/64", "198.18.0.1/24 2001:db8:c::1/64")
	n.router.Link(n.director, "192.0.2.1/24 2001:db8:d::1/64", "192.0.2.11/24 2001:db8:d::11/64")
	n.router.Link(lan, "10.0.0.1/24 2001:db8:e::1/64", "")
	n.director.Link(lan, dip4+"/24 "+dip6+"/64", "")
	n.client.Route("default", "198.18.0.1").Route("default", "2001:db8:c::1")
	n.director.Route("default", "192.0.2.1").Route("default", "2001:db8:d::1")
	for i, via := range []string{"192.0.2.11", "2001:db8:d::11"} {
		n.router.Route(strings.Fields(vips)[i], via)
	}
	for i := range n.rs {
		rs := l.Host(fmt.Sprintf("rs%d", i+1))
		n.rs[i] = rs
		rs.Link(lan, fmt.Sprintf("10.0.0.%d/24 10.0.0.%d/24 2001:db8:e::%d/64 2001:db8:e::%d/64", 21+i, 121+i, 21+i, 121+i), "")
		rs.Route("default", "10.0.0.1").Route("default", "2001:db8:e::1")
		rs.Rule(fmt.Sprintf("10.0.0.%d 2001:db8:e::%d", 121+i, 121+i), natTable)
		for _, via := range []string{dip4, dip6} {
			rs.TableRoute(natTable, "default", via)
		}
		rs.Route(pool4, dip4).Route(pool6, dip6)
	}
}

// hosts are those that frames are sent to.
func (n *network) hosts() []*lab.Host {
	return append([]*lab.Host{n.client, n.router, n.director}, n.rs[:]...)
}

// macs finds the link addresses of hosts.
func macs(hosts ...*lab.Host) (map[string]string, error) {
	found := map[string]string{}
	for _, h := range hosts {
		links, err := h.Netlink().LinkList()
		if err != nil {
			return nil, fmt.Errorf("%s: list interfaces: %w", h.Name, err)
		}
		for _, l := range links {
			found[l.Attrs().HardwareAddr.String()] = h.Name
		}
	}
	return found, nil
}

// realServer makes real server i what dr and tun want, and has it answer until
// serving ends.
func (n *network) realServer(ctx, serving context.Context, i int) error {
	rs := n.rs[i]
	for mode, more := range map[string][]string{"dr": nil, "tun": {"--tunnel", "ipip,gue,gre"}} {
		args := append([]string{"realserver", "setup", "--foreground", "--mode", mode}, more...)
		for _, c := range cases {
			if c.Mode == mode {
				args = append(args, "--vip", c.vip().String())
			}
		}
		if _, err := n.run(ctx, rs, "real server is set up", args...); err != nil {
			return err
		}
	}
	for _, port := range []uint16{httpPort, mappedHTTPPort} {
		ln, err := rs.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		if err != nil {
			return err
		}
		n.servers.Go(func() { lab.ServeHTTP(serving, ln, rs.Name) })
	}
	// A UDP server answers from the address that it is bound to.
	bound := map[netip.AddrPort]bool{}
	for _, c := range cases {
		addr := c.served(i, udpPort)
		if bound[addr] {
			continue
		}
		bound[addr] = true
		pc, err := rs.ListenPacket("udp", addr.String())
		if err != nil {
			return err
		}
		n.servers.Go(func() { lab.ServeUDP(serving, pc, rs.Name) })
	}
	return nil
}

// direct starts the director.
func (n *network) direct(ctx context.Context) error {
	config, err := configuration(n.socket())
	if err != nil {
		return err
	}
	file := filepath.Join(n.dir, "uvs.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	n.uvs, err = n.run(ctx, n.director, "carrying packets", "run", "-c", file)
	return err
}

// socket is the director's admin socket.
func (n *network) socket() string { return filepath.Join(n.dir, "uvs.sock") }

// run starts uvs in a host and waits until it has printed ready.
func (n *network) run(ctx context.Context, host *lab.Host, ready string, args ...string) (*lab.Process, error) {
	cmd := exec.Command(n.program, args...)
	p, err := host.Start(cmd)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeoutCause(ctx, caseTime, errors.New("it takes too long"))
	defer stop()
	err = p.Await(ctx, fmt.Sprintf("%s: uvs %s", host.Name, args[0]), func() error {
		if strings.Contains(p.Output(), ready) {
			return nil
		}
		return errors.New("not ready")
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, p.Output())
	}
	return p, nil
}

// said is what the director logged.
func (n *network) said() string { return n.uvs.Output() }

// close ends everything.
func (n *network) close() {
	for _, conn := range n.asked {
		conn.Close()
	}
	n.stopServers()
	n.lab.Close()
	n.servers.Wait()
	if n.dir != "" {
		os.RemoveAll(n.dir)
	}
}
