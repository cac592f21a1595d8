package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The addresses are those of RFC 2544 for benchmarks, the same in every lane.
const (
	clientAddr   = "198.18.1.2"
	directorAddr = "198.18.1.1" // on the clients' side
	dipAddr      = "198.18.2.1" // on the real server's side
	serverAddr   = "198.18.2.2" // RIP
	vipAddr      = "198.18.100.1"
	lipPool      = "198.18.200.0/29" // FullNAT
	lipPrefix    = "198.18.200."

	httpPort  = "80"
	iperfPort = "5201"
	udpPort   = "9000"
)

// A lane is the road of one contender: client, director and real server.
type lane struct {
	contender
	dir                      string // for configurations and logs
	client, director, server *node
	target                   string     // where the client sends to
	processes                []*process // of the director, whose CPU time is accounted
	uvs                      string     // binary, for the modes

	// witness reads a counter that only moves while this contender carries
	// traffic. witnessBytes says that it counts bytes and so must keep up
	// with what was sent.
	witness      func(context.Context) (uint64, error)
	witnessBytes bool
}

// newLane builds the namespaces, the real server's programs and the contender.
func newLane(ctx context.Context, c contender, index int, uvs, dir string) (*lane, error) {
	l := &lane{contender: c, dir: filepath.Join(dir, strings.ReplaceAll(c.name, "/", "-")), uvs: uvs, target: vipAddr}
	if err := l.build(ctx, fmt.Sprintf("uvsb%d-%d", os.Getpid(), index)); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", c.name, err), l.Close())
	}
	return l, nil
}

func (l *lane) build(ctx context.Context, prefix string) error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	for _, n := range []struct {
		node **node
		name string
	}{{&l.client, "c"}, {&l.director, "d"}, {&l.server, "s"}} {
		var err error
		if *n.node, err = newNode(prefix + n.name); err != nil {
			return err
		}
	}
	if err := l.connect(); err != nil {
		return err
	}
	if err := l.startServers(); err != nil {
		return err
	}
	if err := l.setup(l); err != nil {
		return err
	}
	if _, err := l.ask(ctx, startPatience); err != nil {
		return err
	}
	return l.Verify(ctx)
}

// startPatience is how long a contender may take until the first answer.
const startPatience = 15 * time.Second

// connect lays the cables: veth pairs with the kernel's default offloads.
func (l *lane) connect() error {
	c, d, s := l.client, l.director, l.server
	steps := []struct {
		n    *node
		args string
	}{
		{d, "ip link add clients type veth peer name up0 netns " + c.name},
		{d, "ip link add servers type veth peer name up0 netns " + s.name},
		{c, "ip addr add " + clientAddr + "/24 dev up0"},
		{d, "ip addr add " + directorAddr + "/24 dev clients"},
		{d, "ip addr add " + dipAddr + "/24 dev servers"},
		{s, "ip addr add " + serverAddr + "/24 dev up0"},
		{c, "ip link set up0 up"},
		{d, "ip link set clients up"},
		{d, "ip link set servers up"},
		{s, "ip link set up0 up"},
		{c, "ip route add default via " + directorAddr},
		{s, "ip route add default via " + dipAddr},
		{d, "sysctl -qw net.ipv4.ip_forward=1"},
		// A connection per request needs more than the default 28,232 ports.
		{c, "sysctl -qw net.ipv4.ip_local_port_range=1024\t65535"},
		{d, "sysctl -qw net.ipv4.ip_local_port_range=1024\t65535"},
		{s, "sysctl -qw net.core.somaxconn=16384"},
		{d, "sysctl -qw net.core.somaxconn=16384"},
	}
	for _, step := range steps {
		if err := step.n.Run(strings.Split(step.args, " ")...); err != nil {
			return err
		}
	}
	return nil
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
		listen ` + httpPort + ` reuseport backlog=16384;
		location / { return 200 "client $remote_addr server $server_addr\n"; }
	}
}
`

func (l *lane) startServers() error {
	conf, err := l.config("server.conf", serverConf, l.dir)
	if err != nil {
		return err
	}
	if _, err := l.server.Start(l.log("server-nginx"), "nginx", "-e", "stderr", "-c", conf); err != nil {
		return err
	}
	_, err = l.server.Start(l.log("server-iperf3"), "iperf3", "-s", "-p", iperfPort)
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
	out, err := l.client.Output(ctx, self(), workerProbe, "-for", patience.String(), l.target+":"+httpPort)
	if err != nil {
		err = errors.Join(err, l.alive())
		return "", fmt.Errorf("no answer through %s, logs in %s: %w", l.name, l.dir, err)
	}
	return string(out), nil
}

// alive is an error if a program of the director has ended.
func (l *lane) alive() error {
	for _, p := range l.processes {
		if p.Ended() {
			return fmt.Errorf("%s has ended; see %s", p.name, p.log)
		}
	}
	return nil
}

// Close stops everything and removes the namespaces. It also closes a lane that was built in part.
func (l *lane) Close() error {
	var errs []error
	for _, n := range []*node{l.client, l.director, l.server} {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// config writes a configuration file of the lane.
func (l *lane) config(name, format string, args ...any) (path string, err error) {
	path = filepath.Join(l.dir, name)
	return path, os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o644)
}

func (l *lane) log(name string) string { return filepath.Join(l.dir, name+".log") }

// startDirector starts a program on the director whose CPU time counts as the contender's.
func (l *lane) startDirector(args ...string) error {
	p, err := l.director.Start(l.log("director"), args...)
	if err != nil {
		return err
	}
	l.processes = append(l.processes, p)
	return nil
}
