package fastlane

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// A frame that goes out of up1 arrives at up0, where the program is; what the
// program carries leaves by out0 and arrives at out1.
//
//	up1 ──► up0 program out0 ──► out1
var (
	killedFlow = packettest.UDP("198.51.100.7:40000", "203.0.113.10:80", packettest.Pad(20))
	killedTo   = netip.MustParseAddr("10.2.0.11")
)

// TestKilled is the process that TestAFilterOfAKilledUvsStops kills.
func TestKilled(t *testing.T) {
	if os.Getenv("UVS_TEST_KILLED") == "" {
		t.Skip("is run by TestAFilterOfAKilledUvsStops")
	}
	l := open(t)
	up, out := byName(t, "up0"), byName(t, "out0")
	if _, err := attachFilter(l.objects.Lane, up.Attrs().Index); err != nil {
		t.Fatal(err)
	}
	e := Entry{
		Tuple:   packettest.Parsed(t, killedFlow).Tuple,
		Rewrite: packet.Rewrite{Dst: packet.EndpointFrom(netip.AddrPortFrom(killedTo, 8080))},
		Hop:     Hop{IfIndex: out.Attrs().Index, MTU: 1500, Addr: killedTo},
	}
	if err := l.Put(&e, l.Generation()); err != nil {
		t.Fatal(err)
	}
	if err := l.Beat(); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("ready\n")
	for range time.Tick(beatLimit / 4) { // as uvs beats
		if err := l.Beat(); err != nil {
			t.Fatal(err)
		}
	}
}

// beatLimit is the program's BEAT_LIMIT.
const beatLimit = 2 * time.Second

func byName(t *testing.T, name string) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// wire makes a veth pair, both ends up.
func wire(t *testing.T, near, far string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = near
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: far}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{near, far} {
		if err := netlink.LinkSetUp(byName(t, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// tap is a packet socket on a device, whose reads end after a moment.
func tap(t *testing.T, name string) int {
	t.Helper()
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: byName(t, name).Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestAFilterOfAKilledUvsStops: a filter outlives its process, unlike tcx. It
// carries on for what uvs's heartbeat has left it, and not longer.
func TestAFilterOfAKilledUvsStops(t *testing.T) {
	open(t)
	namespace(t)
	if err := netlink.LinkDel(byName(t, "up0")); err != nil { // a bridge; a wire is wanted
		t.Fatal(err)
	}
	wire(t, "up0", "up1")
	wire(t, "out0", "out1")
	if err := netlink.NeighAdd(&netlink.Neigh{
		LinkIndex: byName(t, "out0").Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: net.IP(killedTo.AsSlice()), HardwareAddr: byName(t, "out1").Attrs().HardwareAddr,
	}); err != nil {
		t.Fatal(err)
	}
	sender, receiver := tap(t, "up1"), tap(t, "out1")
	frame := append(bytes.Clone(byName(t, "up0").Attrs().HardwareAddr), byName(t, "up1").Attrs().HardwareAddr...)
	frame = append(append(frame, 0x08, 0x00), killedFlow...)
	// carried says whether the next frame is.
	carried := func() bool {
		if _, err := unix.Write(sender, frame); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 2048)
		for {
			n, err := unix.Read(receiver, got)
			if err != nil {
				return false
			}
			if n > etherLen+20 && bytes.Equal(got[etherLen+16:etherLen+20], killedTo.AsSlice()) {
				return true
			}
		}
	}
	if carried() {
		t.Fatal("carried without a program")
	}

	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), "UVS_TEST_KILLED=1")
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	line := make([]byte, 6)
	for string(line) != "ready\n" {
		if _, err := out.Read(line); err != nil {
			t.Fatalf("the process to be killed: %v", err)
		}
	}
	for limit := time.Now().Add(time.Minute); !carried(); {
		if time.Now().After(limit) {
			t.Fatal("not carried while uvs lives")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	killed := time.Now()
	if n := len(filters(t, byName(t, "up0").Attrs().Index)); n != 1 {
		t.Errorf("%d filters are there after their process: this test proves nothing", n)
	}
	for {
		sent := time.Since(killed)
		if !carried() {
			break
		}
		if sent > beatLimit {
			t.Fatalf("still carried %v after the death", sent)
		}
	}
	if n, err := Clean(); n != 1 || err != nil {
		t.Errorf("removed %d filters, %v", n, err)
	}
}
