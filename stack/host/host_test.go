package host

import (
	"errors"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
)

func itoa(n int) string { return strconv.Itoa(n) }

func lockThread() { runtime.LockOSThread() }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

var everyKind = Desired{
	VIPs:    []netip.Addr{addr("203.0.113.10"), addr("2001:db8:a::10")},
	LIPs:    []netip.Prefix{netip.MustParsePrefix("198.51.100.0/29"), netip.MustParsePrefix("2001:db8:f::/124")},
	Replies: []Reply{{addr("10.9.0.2"), packet.UDP, 5000}, {addr("2001:db8:9::2"), packet.UDP, 5000}},
}

func TestPacketsOfVIPsAndPoolsAndRepliesComeIntoTheDevice(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	h := d.open(Options{})
	must(t, h.Apply(t.Context(), everyKind))
	must(t, d.tun.SetReadDeadline(time.Now().Add(10*time.Second)))
	for _, tt := range []struct{ name, src, dst string }{
		{"a VIP", "", "203.0.113.10:80"},
		{"a VIP, IPv6", "", "[2001:db8:a::10]:80"},
		{"a pool address", "", "198.51.100.5:2000"},
		{"a pool address, IPv6", "", "[2001:db8:f::5]:2000"},
		{"a client, from the balanced port", "10.9.0.2:5000", "192.0.2.99:4444"},
		{"a client, from the balanced port, IPv6", "[2001:db8:9::2]:5000", "[2001:db8:c::1]:4444"},
	} {
		d.send(tt.src, tt.dst, 10)
		d.receive(netip.MustParseAddrPort(tt.dst).Addr())
	}

	// From another port of the real server it takes the host's own way.
	d.run("ip route add 192.0.2.98 via 10.9.0.2")
	if got := d.run("ip route get 192.0.2.98 from 10.9.0.2 iif eth0 ipproto udp sport 5001 dport 4444"); strings.Contains(got, "uvs0") {
		t.Errorf("a connection of the real server that is not balanced is steered: %s", got)
	}
	if got := d.run("ip route get 192.0.2.98 from 10.9.0.2 iif eth0 ipproto udp sport 5000 dport 4444"); !strings.Contains(got, "uvs0") {
		t.Errorf("a reply of the real server is not steered: %s", got)
	}
	// What comes out of the device does not come back to it.
	if got := d.run("ip route get 10.9.0.2 from 192.0.2.98 iif uvs0"); strings.Contains(got, "dev uvs0 ") {
		t.Errorf("a packet of uvs comes back: %s", got)
	}
	must(t, h.Close())
}

func TestCloseLeavesTheHostAsItWas(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	before := d.state()
	h := d.open(Options{})
	must(t, h.Apply(t.Context(), everyKind))
	if cmp.Equal(before, d.state()) {
		t.Fatal("Apply changed nothing, the test cannot fail")
	}
	must(t, h.Close())
	if diff := cmp.Diff(before, d.state()); diff != "" {
		t.Errorf("after Close (-before +after):\n%s", diff)
	}
}

func TestApplyingTheSameTwiceChangesNothing(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	h := d.open(Options{})
	must(t, h.Apply(t.Context(), everyKind))
	before := d.state()
	must(t, h.Apply(t.Context(), everyKind))
	if diff := cmp.Diff(before, d.state()); diff != "" {
		t.Errorf("second Apply (-before +after):\n%s", diff)
	}
	must(t, h.Close())
}

func TestAReadOnlyProcSysIsGotAroundByNetlink(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	d.run("sysctl -qw net.ipv4.conf.all.rp_filter=1")
	before := d.state()
	d.run("mount --bind -o ro /proc/sys /proc/sys")
	d.run("mount -o remount,bind,ro /proc/sys")
	h := d.open(Options{})
	err := h.Apply(t.Context(), Desired{VIPs: []netip.Addr{addr("203.0.113.10")}})
	must(t, err)
	for name, want := range map[string]string{
		"net.ipv4.conf.eth0.forwarding":   "1",
		"net.ipv4.conf.uvs0.forwarding":   "1",
		"net.ipv4.conf.uvs0.rp_filter":    "2",
		"net.ipv4.conf.uvs0.accept_local": "1",
	} {
		if got := strings.TrimSpace(d.run("sysctl -n " + name)); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	must(t, d.tun.SetReadDeadline(time.Now().Add(10*time.Second)))
	d.send("", "203.0.113.10:80", 10)
	d.receive(addr("203.0.113.10"))

	err = h.Apply(t.Context(), everyKind)
	var missing *MissingSetting
	if !errors.As(err, &missing) {
		t.Fatalf("IPv6 forwarding cannot be set by netlink, but Apply returned %v", err)
	}
	if missing.Name != "net.ipv6.conf.all.forwarding" || strings.Count(err.Error(), "--sysctl net.ipv6") != 1 {
		t.Errorf("Apply returned %v", err)
	}
	must(t, h.Close())
	if diff := cmp.Diff(before, d.state()); diff != "" {
		t.Errorf("after Close (-before +after):\n%s", diff)
	}
}
