package host

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const insideEnv = "UVS_TEST_INSIDE" // set in the process that has a namespace of its own

// inNamespace runs the rest of the test in a process of its own with a network
// and a mount namespace of its own, where eth0 leads to the namespace peer of
// the same process tree by a veth pair:
//
//	director (this process)                    peer
//	eth0 10.9.0.1/24, 2001:db8:9::1/64 ------- eth0 10.9.0.2/24, 2001:db8:9::2/64
//	uvs0 (TUN, its queue in the test's hands)
//
// In the outer process it returns nil: the test is over there.
func inNamespace(t *testing.T) *director {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		return newDirector(t)
	}
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, and CI must not skip it")
		}
		t.Skip("needs root to make network namespaces")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in the namespace: %v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Skipf("in the namespace:\n%s", out)
	}
	return nil
}

// A director is the namespace of the test's process.
type director struct {
	t    *testing.T
	tun  *os.File // queue of uvs0
	peer int      // process id that holds the peer's namespace
}

func newDirector(t *testing.T) *director {
	d := &director{t: t}
	d.peer = startPeer(t)
	must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsPid(d.peer),
	}))
	d.run("ip link set lo up")
	d.run("ip link set eth0 addrgenmode none") // the kernel's own would come seconds later, and change the state
	d.run("ip addr add fe80::1/64 dev eth0 nodad")
	d.run("ip addr add 10.9.0.1/24 dev eth0")
	d.run("ip addr add 2001:db8:9::1/64 dev eth0 nodad")
	d.run("ip link set eth0 up")
	d.runPeer("ip link set lo up")
	d.runPeer("ip addr add 10.9.0.2/24 dev eth0")
	d.runPeer("ip addr add 2001:db8:9::2/64 dev eth0 nodad")
	d.runPeer("ip link set eth0 up")
	d.runPeer("ip route add default via 10.9.0.1")
	d.runPeer("ip -6 route add default via 2001:db8:9::1")
	eventually(t, "a carrier", func() bool {
		return !strings.Contains(d.run("ip route")+d.run("ip -6 route"), "linkdown") && strings.Contains(d.run("ip link show eth0"), "state UP")
	})
	d.tun = newTUN(t, "uvs0")
	return d
}

// startPeer starts a process that does nothing in a network namespace of its
// own, until its input ends, as it does when the test ends in whatever way.
// (A parent death signal would come as soon as the thread ends that started it.)
func startPeer(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET}
	input, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start()) // returns after the exec, so the namespace is there
	t.Cleanup(func() {
		must(t, input.Close())
		must(t, cmd.Wait())
	})
	return cmd.Process.Pid
}

func newTUN(t *testing.T, name string) *os.File {
	t.Helper()
	tun := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TUN,
		Flags: netlink.TUNTAP_NO_PI, NonPersist: true, Queues: 1,
	}
	must(t, netlink.LinkAdd(tun))
	t.Cleanup(func() { tun.Fds[0].Close() })
	return tun.Fds[0]
}

func (d *director) run(command string) string {
	d.t.Helper()
	return output(d.t, strings.Fields(command))
}

func (d *director) runPeer(command string) string {
	d.t.Helper()
	return output(d.t, append([]string{"nsenter", "-n", "-t", itoa(d.peer)}, strings.Fields(command)...))
}

func output(t *testing.T, args []string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// state is all that the package may change on the host, but for the device itself.
func (d *director) state() string {
	d.t.Helper()
	var b strings.Builder
	for _, c := range []string{
		"ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all",
		"ip neigh show proxy", "ip -6 neigh show proxy", "nft list ruleset",
		"sysctl -a --pattern ^net.ipv[46].(conf|neigh).(all|default|eth0|lo)[.]|^net.ipv4.ip_forward",
	} {
		b.WriteString("# " + c + "\n")
		for line := range strings.Lines(d.run(c)) {
			if !strings.Contains(line, "dev uvs") && !strings.Contains(line, "stable_secret") {
				b.WriteString(line)
			}
		}
	}
	return b.String()
}

func (d *director) open(opt Options) *Host {
	d.t.Helper()
	h, err := Open(opt)
	must(d.t, err)
	return h
}

// receive reads packets from uvs0 until one has this destination.
func (d *director) receive(dst netip.Addr) []byte {
	d.t.Helper()
	buf := make([]byte, 65536)
	for {
		n, err := d.tun.Read(buf)
		if err != nil {
			d.t.Fatalf("waiting for a packet to %v: %v", dst, err)
		}
		if destinationOf(buf[:n]) == dst {
			return buf[:n]
		}
	}
}

func destinationOf(p []byte) netip.Addr {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[16:20]))
	case len(p) >= 40 && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[24:40]))
	}
	return netip.Addr{}
}

// send sends a UDP datagram from the peer.
func (d *director) send(src, dst string, size int) {
	d.t.Helper()
	var conn *net.UDPConn
	withNamespace(d.t, d.peer, func() {
		var err error
		conn, err = net.DialUDP("udp", udpAddr(src), udpAddr(dst))
		must(d.t, err)
	})
	defer conn.Close()
	_, err := conn.Write(make([]byte, size))
	must(d.t, err)
}

// listen opens a UDP socket of the peer.
func (d *director) listen(local string) *net.UDPConn {
	d.t.Helper()
	var conn *net.UDPConn
	withNamespace(d.t, d.peer, func() {
		var err error
		conn, err = net.ListenUDP("udp", udpAddr(local))
		must(d.t, err)
	})
	d.t.Cleanup(func() { conn.Close() })
	must(d.t, conn.SetReadDeadline(time.Now().Add(patience)))
	return conn
}

func udpAddr(s string) *net.UDPAddr {
	if s == "" {
		return nil
	}
	return net.UDPAddrFromAddrPort(netip.MustParseAddrPort(s))
}

// withNamespace runs f on a thread in the network namespace of a process; the
// thread ends with it, because what f starts must not come back to it.
func withNamespace(t *testing.T, pid int, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		lockThread()
		fd, err := unix.Open("/proc/"+itoa(pid)+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- err
			return
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		f()
		done <- nil
	}()
	must(t, <-done)
}
