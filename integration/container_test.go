package integration

// The image of the Dockerfile in a real engine, run by the line that
// docs/container.md gives for a network of its own, which all containers
// share. Nobody has a route to a VIP: uvs answers for it on the network, and
// for the pool of fullnat.
//
//	                  network "lab", 172.30.0.0/24 and fd00:30::/64
//	client ──────┬──────────────┬──────────────┐
//	         uvs .2         rs1 .21        rs2 .22 (fd00:30::21, ::22)
//
// The network of a real server is shared by three containers: uvs realserver
// for dr, the same for tun, and the server that answers.
//
//	VIPs 172.30.0.101 and up by mode, fd00:30::101 and up; LIPs 172.30.0.192/29, fd00:30::c0/125

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

// containerModes are the modes with the last part of their VIPs.
var containerModes = []struct {
	mode string
	host int
}{{"dr", 101}, {"nat", 102}, {"tun", 103}, {"fullnat", 104}}

func TestContainer(t *testing.T) {
	need(t, "dockerd", "docker", "nsenter", "unshare", "ip")
	l := newLab(t)
	host := l.Host("engine").Forward()
	drawn(t, l)
	e := newEngine(t, host)
	e.build(t)
	e.peerImage(t)
	e.docker(t, "network", "create", "--ipv6", "--subnet", "172.30.0.0/24", "--subnet", "fd00:30::/64", "lab")

	for n := 1; n <= 2; n++ {
		name := fmt.Sprintf("rs%d", n)
		e.realServer(t, name, "dr", "--network", "lab", "--ip", fmt.Sprintf("172.30.0.2%d", n), "--ip6", fmt.Sprintf("fd00:30::2%d", n),
			"--sysctl", "net.ipv4.conf.all.arp_ignore=1", "--sysctl", "net.ipv4.conf.all.arp_announce=2", "--sysctl", "net.ipv6.conf.all.disable_ipv6=0")
		e.realServer(t, name+"-tun", "tun", "--network", "container:"+name)
		e.docker(t, "run", "-d", "--network", "container:"+name, "peer", "serve", name, ":80", strings.Join(udpAddrs(n), ","))
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "uvs.yaml"), []byte(containerConfig()), 0o644); err != nil {
		t.Fatal(err)
	}
	e.director(t, dir, documentedRun(t))
	e.replyByDirector(t)
	for _, m := range containerModes {
		for _, vip := range []string{fmt.Sprintf("172.30.0.%d", m.host), fmt.Sprintf("fd00:30::%d", m.host)} {
			t.Run(m.mode+" "+vip, func(t *testing.T) {
				addr := netip.MustParseAddr(vip)
				var seen []string
				for range 2 {
					seen = append(seen, e.answer(t, m.mode, "get", "http://"+literal(addr)+"/"))
				}
				for range 2 {
					seen = append(seen, e.answer(t, m.mode, "udp", netip.AddrPortFrom(addr, echoPort).String(), "hello"))
				}
				if seen[0] == seen[1] || seen[2] == seen[3] {
					t.Errorf("answers from %v, want them spread", seen)
				}
			})
		}
	}
	if out := e.docker(t, "exec", "uvs", "/uvs", "status"); !strings.Contains(out, "172.30.0.21") {
		t.Errorf("status lacks a real server:\n%s", out)
	}
	if out := e.docker(t, "exec", "uvs", "/uvs", "status"); !strings.Contains(out, "--cap-add BPF") {
		t.Errorf("status does not say what the fast lane needs:\n%s", out)
	}
	e.docker(t, "stop", "-t", "120", "uvs")
	if code := e.docker(t, "inspect", "-f", "{{.State.ExitCode}}", "uvs"); code != "0" {
		t.Errorf("uvs ended with %s", code)
	}

	capability := "BPF"
	if strings.Contains(e.try("create", "--cap-add", capability, "peer"), "unknown capability") {
		capability = "SYS_ADMIN" // holds it, as docs/container.md says of older engines
	}
	e.docker(t, "rm", "uvs")
	e.director(t, dir, strings.Replace(documentedRun(t), "--cap-add NET_RAW", "--cap-add NET_RAW --cap-add "+capability, 1))
	if out := e.docker(t, "exec", "uvs", "/uvs", "status"); !regexp.MustCompile(`(?m)^fast lane +on;`).MatchString(out) {
		t.Errorf("with the capability %s the fast lane is not on:\n%s", capability, out)
	}
	e.docker(t, "stop", "-t", "120", "uvs")
}

// director runs the image by a line of the shell and waits until it answers.
func (e *engine) director(t *testing.T, dir, line string) {
	t.Helper()
	shell := exec.Command("sh", "-c", line)
	shell.Dir = dir
	shell.Env = e.command().Env
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("uvs said:\n%s", e.try("logs", "uvs"))
		}
	})
	ctx, cancel := timeout()
	defer cancel()
	if err := lab.Wait(ctx, "uvs in its container", func() error {
		out, err := e.command("exec", "uvs", "/uvs", "status").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s; %s", err, out, e.try("logs", "uvs"))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// answer asks from a client container and returns who answered.
func (e *engine) answer(t *testing.T, mode string, ask ...string) string {
	t.Helper()
	out := e.docker(t, append([]string{"run", "--rm", "--network", "lab", "peer"}, ask...)...)
	var echo lab.Echo
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&echo); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	client := netip.MustParseAddrPort(echo.Client).Addr().Unmap()
	pool := netip.MustParsePrefix("172.30.0.192/29").Contains(client) || netip.MustParsePrefix("fd00:30::c0/125").Contains(client)
	if pool != (mode == "fullnat") {
		t.Errorf("%s sees the client as %v", echo.Server, client)
	}
	return echo.Server
}

// build makes the image "uvs" as the documents say, on base images of the same names.
func (e *engine) build(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range regexp.MustCompile(`(?m)^FROM (\S+)`).FindAllSubmatch(text, -1) {
		switch name := string(from[1]); {
		case name == "scratch":
		case strings.HasPrefix(name, "golang:"):
			e.goImage(t, name)
		default:
			t.Fatalf("the Dockerfile builds on %s, which this test cannot make", name)
		}
	}
	cmd := e.command("build", "-t", "uvs", ".")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
}

// peerImage makes the image "peer" of the echo server and client alone.
func (e *engine) peerImage(t *testing.T) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "echo")
	build := exec.Command("go", "build", "-o", bin, "./echo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	e.image(t, "peer", []string{`ENTRYPOINT ["/echo"]`}, func(w *tar.Writer) error { return addFile(w, bin, "/echo") })
}

// udpAddrs are the addresses on which real server n echoes datagrams: a server on
// every address would answer from the wrong one in dr and tun.
func udpAddrs(n int) []string {
	addrs := []string{fmt.Sprintf("172.30.0.2%d:%d", n, echoPort), fmt.Sprintf("[fd00:30::2%d]:%d", n, echoPort)}
	for _, m := range containerModes {
		if m.mode == "dr" || m.mode == "tun" {
			addrs = append(addrs, fmt.Sprintf("172.30.0.%d:%d", m.host, echoPort), fmt.Sprintf("[fd00:30::%d]:%d", m.host, echoPort))
		}
	}
	return addrs
}

// realServer starts a container that makes the network it is in one of a real server.
func (e *engine) realServer(t *testing.T, name, mode string, network ...string) {
	t.Helper()
	args := append([]string{"run", "-d", "--name", name}, network...)
	args = append(args, "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "--device", "/dev/net/tun", "--read-only",
		"uvs", "realserver", "setup", "--foreground", "--mode", mode)
	for _, m := range containerModes {
		if m.mode == mode {
			args = append(args, "--vip", fmt.Sprintf("172.30.0.%d", m.host), "--vip", fmt.Sprintf("fd00:30::%d", m.host))
		}
	}
	e.docker(t, args...)
	ctx, cancel := timeout()
	defer cancel()
	if err := lab.Wait(ctx, name, func() error {
		if out := e.try("logs", name); !strings.Contains(out, "real server is set up") {
			return fmt.Errorf("it says %q", out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// replyByDirector routes what the real servers send from their own addresses
// by way of uvs, which an engine cannot say: client and real server of nat
// would talk past it on the network that they share.
func (e *engine) replyByDirector(t *testing.T) {
	t.Helper()
	director6 := e.docker(t, "inspect", "-f", "{{.NetworkSettings.Networks.lab.GlobalIPv6Address}}", "uvs")
	for n := 1; n <= 2; n++ {
		pid := e.docker(t, "inspect", "-f", "{{.State.Pid}}", fmt.Sprintf("rs%d", n))
		for _, args := range []string{
			fmt.Sprintf("ip rule add from 172.30.0.2%d lookup 100", n),
			"ip route add default via 172.30.0.2 table 100",
			fmt.Sprintf("ip -6 rule add from fd00:30::2%d lookup 100", n),
			"ip -6 route add default via " + director6 + " dev eth0 table 100",
		} {
			inside := append([]string{"-t", pid, "-n"}, strings.Fields(args)...)
			if out, err := exec.Command("nsenter", inside...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", args, err, out)
			}
		}
	}
}

// containerConfig has each mode on VIPs of both families.
func containerConfig() string {
	var b strings.Builder
	b.WriteString("addresses: {fullnat_pool: [\"172.30.0.192/29\", \"fd00:30::c0/125\"]}\nservices:\n")
	for _, m := range containerModes {
		fmt.Fprintf(&b, "  - name: %s\n    mode: %[1]s\n    health: {type: none}\n    listen:\n", m.mode)
		for _, vip := range []string{fmt.Sprintf("172.30.0.%d", m.host), fmt.Sprintf("[fd00:30::%d]", m.host)} {
			fmt.Fprintf(&b, "      - %q\n      - %q\n", vip+":80/tcp", fmt.Sprintf("%s:%d/udp", vip, echoPort))
		}
		b.WriteString("    real_servers: [{address: 172.30.0.21}, {address: 172.30.0.22}, {address: \"fd00:30::21\"}, {address: \"fd00:30::22\"}]\n")
	}
	return b.String()
}

// documentedRun is the command of docs/container.md that runs uvs on a network of its own.
func documentedRun(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/container.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(text, -1) {
		if line := string(block[1]); strings.HasPrefix(line, "docker run") && strings.Contains(line, "--network lab") {
			if strings.Contains(line, "--privileged") || !strings.Contains(line, "--read-only") {
				t.Fatalf("the documented line is not what is promised:\n%s", line)
			}
			return line
		}
	}
	t.Fatal("docs/container.md has no command for a network of its own")
	return ""
}
