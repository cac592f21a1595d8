package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/uvs-project/uvs/integration/lab"
)

// The addresses are those of RFC 2544 for benchmarks, the same in every lane.
const (
	clientAddr   = "198.18.1.2"
	directorAddr = "198.18.1.1" // on the clients' side
	dipAddr      = "198.18.2.1" // on the real server's side
	returnAddr   = "198.18.3.1" // of the client, where replies of dr and tun come in
	serverAddr   = "198.18.2.2" // RIP
	vipAddr      = "198.18.100.1"
	lipPool      = "198.18.200.0/29" // FullNAT
	lipPrefix    = "198.18.200."

	backlog = "16384" // of the listening sockets

	httpPort  = "80"
	iperfPort = "5201"
	udpPort   = "9000"
)

// A lane is the road of one contender: client, director and real server.
type lane struct {
	contender
	dir                      string // for configurations and logs
	lab                      *lab.Lab
	client, director, server *lab.Host
	target                   string         // where the client sends to
	processes                []*lab.Process // of the director, whose CPU time is accounted
	uvs                      string         // binary, for the modes

	// witness reads a counter that only moves while this contender carries
	// traffic. witnessBytes says that it counts bytes and so must keep up
	// with what was sent.
	witness      func(context.Context) (uint64, error)
	witnessBytes bool
}

// newLane builds the namespaces, the real server's programs and the contender.
func newLane(ctx context.Context, c contender, uvs, dir string) (*lane, error) {
	l := &lane{contender: c, dir: filepath.Join(dir, strings.ReplaceAll(c.name, "/", "-")), uvs: uvs, target: vipAddr}
	var err error
	if l.lab, err = lab.New("bench"); err != nil {
		return nil, err
	}
	if err := l.build(ctx); err != nil {
		l.Close()
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	return l, nil
}

func (l *lane) build(ctx context.Context) error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	l.draw()
	if err := l.lab.Err(); err != nil {
		return err
	}
	if err := l.startServers(); err != nil {
		return err
	}
	if err := l.setup(ctx, l); err != nil {
		return err
	}
	if _, err := l.ask(ctx, startPatience); err != nil {
		return err
	}
	return l.Verify(ctx)
}

// startPatience is how long a contender may take until the first answer.
const startPatience = 15 * time.Second

// draw lays the cables: veth pairs with the kernel's default offloads.
func (l *lane) draw() {
	l.client, l.director, l.server = l.lab.Host("client"), l.lab.Host("director"), l.lab.Host("server")
	l.client.Link(l.director, clientAddr+"/24", directorAddr+"/24").Route("default", directorAddr)
	l.server.Link(l.director, serverAddr+"/24", dipAddr+"/24").Route("default", dipAddr)
	l.director.Forward()
	if l.returnsDirectly() {
		l.server.Link(l.client, "198.18.3.2/24", returnAddr+"/24").Route(clientAddr+"/32", returnAddr)
	}
	// A connection per request needs more than the default 28,232 ports.
	l.client.Sysctl("net.ipv4.ip_local_port_range", "1024 65535")
	// Nor may those wait that the client has closed first. It does where the
	// answer takes the fast lane and the server's FIN the longer road behind it.
	l.client.Sysctl("net.ipv4.tcp_tw_reuse", "1")
	l.director.Sysctl("net.ipv4.ip_local_port_range", "1024 65535")
	l.server.Sysctl("net.core.somaxconn", backlog)
	l.director.Sysctl("net.core.somaxconn", backlog)
}

// serverConf is the real server's nginx: the page says what it saw, so that
// Verify can tell a contender from another. The error log goes to its stderr.
const serverConf = `daemon off;
worker_processes 2;
pid %[1]s/server.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
	access_log off;
	keepalive_requests 1000000000;
	client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
	server {
		listen ` + httpPort + ` reuseport backlog=` + backlog + `;
		location / { return 200 "client $remote_addr server $server_addr\n"; }
	}
}
`

func (l *lane) startServers() error {
	conf, err := l.config("server.conf", serverConf, l.dir)
	if err != nil {
		return err
	}
	if _, err := l.start(l.server, "nginx", "-e", "stderr", "-c", conf); err != nil {
		return err
	}
	_, err = l.start(l.server, "iperf3", "-s", "-p", iperfPort)
	return err
}

// Verify asks the real server through the contender and holds what it saw
// against what this contender must make it see, and the witness against standing still.
func (l *lane) Verify(ctx context.Context) error {
	before, err := l.witness(ctx)
	if err != nil {
		return err
	}
	page, err := l.ask(ctx, time.Second)
	if err != nil {
		return err
	}
	var client, server string
	if _, err := fmt.Sscanf(page, "client %s server %s", &client, &server); err != nil {
		return fmt.Errorf("the real server's page reads %q: %w", page, err)
	}
	if !strings.HasPrefix(client, l.seenClient) || server != l.seenServer {
		return fmt.Errorf("%s is not in the path: the real server saw %s -> %s, want %s -> %s", l.name, client, server, l.seenClient, l.seenServer)
	}
	after, err := l.witness(ctx)
	if err != nil {
		return err
	}
	if after == before {
		return fmt.Errorf("%s is not in the path: a request was answered but its counter did not move", l.name)
	}
	return nil
}

// ask fetches the real server's page through the contender, trying until patience is over.
func (l *lane) ask(ctx context.Context, patience time.Duration) (page string, err error) {
	page, err = l.client.Run(ctx, self(), workerProbe, "-for", patience.String(), l.target+":"+httpPort)
	if err != nil {
		err = errors.Join(err, l.alive())
		return "", fmt.Errorf("no answer through %s, logs in %s: %w", l.name, l.dir, err)
	}
	return page, nil
}

// alive is an error if a program of the director has ended.
func (l *lane) alive() error {
	for _, p := range l.processes {
		select {
		case <-p.Exited():
			return fmt.Errorf("%s has ended with code %d; its log is in %s", p.Cmd.Args[0], p.ExitCode(), l.dir)
		default:
		}
	}
	return nil
}

// Close stops everything and removes the namespaces.
func (l *lane) Close() { l.lab.Close() }

// config writes a configuration file of the lane.
func (l *lane) config(name, format string, args ...any) (path string, err error) {
	path = filepath.Join(l.dir, name)
	return path, os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o644)
}

// start starts a server that runs as long as the lane; what it prints goes to
// a file named after its host and itself.
func (l *lane) start(h *lab.Host, args ...string) (*lab.Process, error) {
	log, err := os.Create(filepath.Join(l.dir, h.Name+"-"+filepath.Base(args[0])+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	return h.Start(cmd)
}

// startDirector starts a program on the director whose CPU time counts as the contender's.
func (l *lane) startDirector(args ...string) error {
	p, err := l.start(l.director, args...)
	if err != nil {
		return err
	}
	l.processes = append(l.processes, p)
	return nil
}

// bytesOut is a witness: the bytes that left by an interface of the director.
func (l *lane) bytesOut(iface string) func(context.Context) (uint64, error) {
	return func(context.Context) (uint64, error) {
		_, bytes, err := l.counters(iface)
		return bytes, err
	}
}

// counters are the packets and bytes that left by an interface of the director.
func (l *lane) counters(iface string) (packets, bytes uint64, err error) {
	link, err := l.director.Netlink().LinkByName(iface)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %s: %w", l.name, iface, err)
	}
	s := link.Attrs().Statistics
	return s.TxPackets, s.TxBytes, nil
}
