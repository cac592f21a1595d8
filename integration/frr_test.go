package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

// frrDaemons is where Debian puts FRR's daemons.
const frrDaemons = "/usr/lib/frr"

// An frr is a router that runs FRR: zebra, bgpd and bfdd.
type frr struct {
	host *lab.Host
	dir  string
}

// needFRR is need for FRR.
func needFRR(t *testing.T) {
	t.Helper()
	need(t, "vtysh", "nginx", "curl", "ip")
	if _, err := os.Stat(filepath.Join(frrDaemons, "bgpd")); err != nil {
		cannot(t, "frr is not installed: "+err.Error())
	}
}

// startFRR starts FRR in a host, with the lines of its one configuration.
func startFRR(t *testing.T, h *lab.Host, config string) *frr {
	t.Helper()
	f := &frr{host: h, dir: frrDir(t)}
	file := filepath.Join(f.dir, "frr.conf")
	if err := os.WriteFile(file, []byte("log stdout\n"+config), 0o644); err != nil {
		t.Fatal(err)
	}
	zserv := filepath.Join(f.dir, "zserv.api")
	for _, d := range []struct {
		name string
		args []string
	}{
		{"zebra", nil},
		{"bfdd", []string{"--bfdctl", filepath.Join(f.dir, "bfdd.sock")}},
		{"bgpd", nil},
	} {
		args := append([]string{"-P", "0", "-f", file, "-i", filepath.Join(f.dir, d.name+".pid"), "-z", zserv, "--vty_socket", f.dir}, d.args...)
		p, err := h.Start(exec.Command(filepath.Join(frrDaemons, d.name), args...))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%s said:\n%s", d.name, p.Output())
			}
			p.Stop()
		})
		if err := p.Await(within(t), d.name, func() error {
			_, err := os.Stat(filepath.Join(f.dir, d.name+".vty"))
			return err
		}); err != nil {
			t.Fatalf("%v\n%s", err, p.Output())
		}
	}
	return f
}

// frrDir is a directory for FRR's user, who must not pass through t.TempDir.
func frrDir(t *testing.T) string {
	t.Helper()
	owner, err := user.Lookup("frr")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "uvs-frr-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, uid, -1); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ask is a command of vtysh.
func (f *frr) ask(t *testing.T, command string) string {
	t.Helper()
	return run(t, f.host, "vtysh", "--vty_socket", f.dir, "-c", command)
}

// shows waits until a command's output holds what is wanted.
func (f *frr) shows(t *testing.T, command, wanted string) {
	t.Helper()
	err := lab.Wait(within(t), command+" to show "+wanted, func() error {
		if out := f.ask(t, command); !strings.Contains(out, wanted) {
			return errors.New(out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestBGPSessionsWithFRR is TestBGPSessionsWithBIRD with the other router.
func TestBGPSessionsWithFRR(t *testing.T) {
	needFRR(t)
	n := newTor(t)
	if err := nginx(n.rs); err != nil {
		t.Fatal(err)
	}
	n.router.Addr("lo", "10.255.0.1/32").Route("10.255.0.11/32", "192.0.2.11")
	n.lb[0].Addr("lo", "10.255.0.11/32").Route("10.255.0.1/32", "192.0.2.1")
	n.router.Link(n.lb[0], "", "") // unnumbered
	drawn(t, n.client.Lab())

	const (
		v4, v6 = "203.0.113.10", "2001:db8:a::10"
		head   = "router bgp 65000\n bgp router-id 192.0.2.1\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n"
		in4    = " address-family ipv4 unicast\n  neighbor %[1]s activate\n exit-address-family\n"
		in6    = " address-family ipv6 unicast\n  neighbor %[1]s activate\n exit-address-family\n"
	)
	peer := func(name, lines string, families ...string) string {
		out := head
		for line := range strings.Lines(lines + "\ntimers connect 1") {
			out += " neighbor " + name + " " + strings.TrimSpace(line) + "\n"
		}
		for _, f := range families {
			out += fmt.Sprintf(f, name)
		}
		return out
	}
	tests := []struct {
		name string
		frr  string
		uvs  string // keys of the section bgp
		vips string
		hops string
		bfd  string // what show bfd peers says of a session that is up
	}{
		{name: "IPv4", vips: v4, hops: "192.0.2.11",
			frr: peer("192.0.2.11", "remote-as 65011", in4),
			uvs: "peers: [{address: 192.0.2.1, as: 65000}]"},
		{name: "IPv6, both families, IPv4 with an IPv6 next hop (RFC 8950)", vips: v4 + " " + v6, hops: "2001:db8:1::11 2001:db8:1::11",
			frr: peer("2001:db8:1::11", "remote-as 65011\ncapability extended-nexthop", in4, in6),
			uvs: "peers: [{address: \"2001:db8:1::1\", as: 65000, families: [ipv4, ipv6]}]"},
		{name: "TCP MD5, we connect", vips: v4, hops: "192.0.2.11",
			frr: peer("192.0.2.11", "remote-as 65011\npassword s3cret\npassive", in4),
			uvs: "peers: [{address: 192.0.2.1, as: 65000, password: s3cret}]"},
		{name: "TCP MD5, the router connects", vips: v4, hops: "192.0.2.11",
			frr: peer("192.0.2.11", "remote-as 65011\npassword s3cret", in4),
			uvs: "listen_port: 179\n  peers: [{address: 192.0.2.1, as: 65000, password: s3cret, passive: true}]"},
		{name: "TTL security", vips: v4, hops: "192.0.2.11",
			frr: peer("192.0.2.11", "remote-as 65011\nttl-security hops 1", in4),
			uvs: "peers: [{address: 192.0.2.1, as: 65000, ttl_security: true}]"},
		{name: "multihop between loopbacks", vips: v4, hops: "192.0.2.11",
			frr: peer("10.255.0.11", "remote-as 65011\nebgp-multihop 3\nupdate-source 10.255.0.1", in4),
			uvs: "peers: [{address: 10.255.0.1, as: 65000, multihop: 3, local_address: 10.255.0.11}]"},
		{name: "unnumbered", vips: v4 + " " + v6, hops: "dev~lb1 dev~lb1",
			frr: peer("lb1", "interface remote-as 65011", in4, in6),
			uvs: "peers: [{interface: router, as: 65000}]"},
		{name: "BFD", vips: v4, hops: "192.0.2.11", bfd: "Status: up",
			frr: peer("192.0.2.11", "remote-as 65011\nbfd 10 300 300", in4),
			uvs: "peers: [{address: 192.0.2.1, as: 65000, bfd: {enabled: true, multiplier: 10}}]"},
		{name: "BFD over several hops", vips: v4, hops: "192.0.2.11", bfd: "Status: up",
			frr: peer("10.255.0.11", "remote-as 65011\nebgp-multihop 3\nupdate-source 10.255.0.1\nbfd 10 300 300", in4),
			uvs: "peers: [{address: 10.255.0.1, as: 65000, multihop: 3, local_address: 10.255.0.11, bfd: {enabled: true, multiplier: 10}}]"},
		{name: "BFD, unnumbered", vips: v4 + " " + v6, hops: "dev~lb1 dev~lb1", bfd: "Status: up",
			frr: peer("lb1", "interface remote-as 65011\nbfd 10 300 300", in4, in6),
			uvs: "peers: [{interface: router, as: 65000, bfd: {enabled: true, multiplier: 10}}]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := startFRR(t, n.router, tt.frr)
			d := startDirector(t, n.lb[0], n.config(0, "bgp:\n  as: 65011\n  router_id: 192.0.2.11\n  "+tt.uvs))
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
			if tt.bfd != "" {
				f.shows(t, "show bfd peers", tt.bfd)
			}
			d.process.Stop()
			for _, vip := range strings.Fields(tt.vips) {
				fib(t, n.router, vip)
			}
		})
	}
}
