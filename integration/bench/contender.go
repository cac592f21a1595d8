package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// A contender is a way to bring clients to the real server.
type contender struct {
	name  string
	title string // what a reader of the tables sees

	// What the real server must see of a connection: the client's address (or
	// its prefix) and its own.
	seenClient, seenServer string

	noUDP bool // carries no UDP in this set-up
	uvs   bool // is a mode of uvs

	// setup makes the lane's director, and its real server where the mode
	// asks for it, carry connections to l.target, and sets l.witness.
	setup func(ctx context.Context, l *lane) error
}

// contenders lists all there are, in the order of tables and turns.
var contenders = []contender{
	{name: "kernel", title: "kernel forwarding", seenClient: clientAddr, seenServer: serverAddr, setup: setupKernel},
	{name: "nftables", title: "nftables DNAT", seenClient: clientAddr, seenServer: serverAddr, setup: setupNFTables},
	{name: "haproxy", title: "HAProxy (tcp)", seenClient: dipAddr, seenServer: serverAddr, noUDP: true, setup: setupHAProxy},
	{name: "nginx", title: "nginx (stream)", seenClient: dipAddr, seenServer: serverAddr, noUDP: true, setup: setupNginx},
	{name: "dr", title: "uvs dr", seenClient: clientAddr, seenServer: vipAddr, uvs: true, setup: setupUVS},
	{name: "nat", title: "uvs nat", seenClient: clientAddr, seenServer: serverAddr, uvs: true, setup: setupUVS},
	{name: "tun", title: "uvs tun (ipip)", seenClient: clientAddr, seenServer: vipAddr, uvs: true, setup: setupUVS},
	{name: "fullnat", title: "uvs fullnat", seenClient: lipPrefix, seenServer: serverAddr, uvs: true, setup: setupUVS},
}

var defaultContenders = []string{"kernel", "nftables", "haproxy", "nginx", "dr", "nat", "tun", "fullnat", "dr/routed", "dr/road", "nat/road", "fullnat/road"}

// variants are what may follow the name of a uvs mode.
var variants = map[string]string{
	"kernel":   "egress kernel",
	"link":     "egress link",
	"road":     "TUN road",                     // without the fast lane
	"routed":   "replies through the director", // of dr and tun
	"offer1":   "offload_every 1",
	"offer32":  "offload_every 32",
	"offer128": "offload_every 128",
	"before":   "before", // the program that -before names
}

// contenderByName finds a contender, also one like nat/kernel.
func contenderByName(name string) (contender, error) {
	base, variant, varied := strings.Cut(name, "/")
	for _, c := range contenders {
		switch title, ok := variants[variant]; {
		case c.name != base:
		case !varied:
			return c, nil
		case c.uvs && ok:
			c.name, c.title = name, c.title+", "+title
			return c, nil
		}
	}
	return contender{}, fmt.Errorf("no contender %q", name)
}

// returnsDirectly says whether replies go past the director, as they are meant to
// in dr and tun: the real servers' router is another.
func (c contender) returnsDirectly() bool {
	mode, variant, _ := strings.Cut(c.name, "/")
	return (mode == "dr" || mode == "tun") && variant != "routed"
}

func setupKernel(_ context.Context, l *lane) error {
	l.target = serverAddr
	l.witnessBytes = true
	l.witness = l.bytesOut("server")
	return nil
}

// dnatRules is what an operator would write; its counter counts new connections only.
const dnatRules = `table ip bench {
	counter connections { }
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr ` + vipAddr + ` counter name connections dnat to ` + serverAddr + `
	}
}
`

func setupNFTables(ctx context.Context, l *lane) error {
	path, err := l.config("nft.rules", dnatRules)
	if err != nil {
		return err
	}
	l.witness = func(ctx context.Context) (uint64, error) {
		out, err := l.director.Run(ctx, "nft", "-j", "list", "counter", "ip", "bench", "connections")
		if err != nil {
			return 0, err
		}
		return nftPackets(out)
	}
	_, err = l.director.Run(ctx, "nft", "-f", path)
	return err
}

func nftPackets(out string) (uint64, error) {
	var doc struct {
		Nftables []struct {
			Counter *struct{ Packets uint64 }
		}
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		return 0, fmt.Errorf("nft: %w", err)
	}
	for _, o := range doc.Nftables {
		if o.Counter != nil {
			return o.Counter.Packets, nil
		}
	}
	return 0, fmt.Errorf("nft printed no counter: %s", out)
}

// haproxyConf has one thread per core, as HAProxy takes by itself, and splices
// where the kernel lets it, which helps it with bulk data.
const haproxyConf = `global
	maxconn 4000
	nbthread 2
defaults
	mode tcp
	option splice-auto
	timeout connect 5s
	timeout client 60s
	timeout server 60s
listen http
	bind ` + vipAddr + `:` + httpPort + ` backlog ` + backlog + `
	server s1 ` + serverAddr + `:` + httpPort + `
listen iperf
	bind ` + vipAddr + `:` + iperfPort + `
	server s1 ` + serverAddr + `:` + iperfPort + `
`

func setupHAProxy(_ context.Context, l *lane) error {
	path, err := l.config("haproxy.conf", haproxyConf)
	if err != nil {
		return err
	}
	return l.proxy("haproxy", "-db", "-f", path)
}

const nginxConf = `daemon off;
worker_processes 2;
pid %[1]s/director.pid;
error_log stderr warn;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events { worker_connections 8192; }
stream {
	server { listen ` + vipAddr + `:` + httpPort + ` reuseport backlog=` + backlog + `; proxy_pass ` + serverAddr + `:` + httpPort + `; }
	server { listen ` + vipAddr + `:` + iperfPort + ` reuseport; proxy_pass ` + serverAddr + `:` + iperfPort + `; }
}
`

func setupNginx(_ context.Context, l *lane) error {
	path, err := l.config("nginx.conf", nginxConf, l.dir)
	if err != nil {
		return err
	}
	return l.proxy("nginx", "-e", "stderr", "-c", path)
}

// proxy starts a program that terminates connections to the VIP on the
// director. Its witness is that the director's TCP accepts connections.
func (l *lane) proxy(args ...string) error {
	l.director.Addr("lo", vipAddr+"/32")
	if err := l.lab.Err(); err != nil {
		return err
	}
	l.witness = func(context.Context) (uint64, error) {
		snmp, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/snmp", l.processes[0].PID()))
		if err != nil {
			return 0, err
		}
		return snmpCounter(string(snmp), "Tcp", "PassiveOpens")
	}
	return l.startDirector(args...)
}

// snmpCounter finds a counter in the pairs of lines of /proc/net/snmp.
func snmpCounter(text, group, name string) (uint64, error) {
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != group+":" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, n := range names {
			if n == name && i < len(fields) {
				return strconv.ParseUint(fields[i], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("/proc/net/snmp has no %s %s", group, name)
}
