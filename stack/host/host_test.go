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
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func itoa(n int) string { return strconv.Itoa(n) }

func lockThread() { runtime.LockOSThread() }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

var everyKind = Desired{
	VIPs:    []netip.Addr{addr("203.0.113.10"), addr("2001:db8:a::10"), addr("10.9.0.100"), addr("2001:db8:9::100")},
	LIPs:    []netip.Prefix{netip.MustParsePrefix("198.51.100.0/29"), netip.MustParsePrefix("2001:db8:f::/124")},
	Replies: []Reply{{addr("10.9.0.2"), packet.UDP, 5000}, {addr("2001:db8:9::2"), packet.UDP, 5000}},
	LAN:     LAN{Announce: true},
}

func TestPacketsOfVIPsAndPoolsAndRepliesComeIntoTheDevice(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	h := d.open(Options{})
	must(t, h.Apply(t.Context(), everyKind))
	must(t, d.tun.SetReadDeadline(time.Now().Add(patience)))
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
	d.run("ip route add 203.0.113.10 via 10.9.0.2")
	for _, out := range []string{"203.0.113.10 from 192.0.2.98", "192.0.2.98 from 10.9.0.2"} {
		if got := d.run("ip route get " + out + " iif uvs0 ipproto udp sport 5000 dport 5000"); strings.Contains(got, "dev uvs0 ") {
			t.Errorf("a packet of uvs comes back: %s", got)
		}
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
	d.run("ip route add 192.0.2.0/24 via 10.9.0.2")
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
	must(t, d.tun.SetReadDeadline(time.Now().Add(patience)))
	d.send("", "203.0.113.10:80", 10)
	d.receive(addr("203.0.113.10"))

	// Packets of uvs leave, though their sources are not routed to the device:
	// a client, and the host's own address as the outer source of a tunnel.
	conn := d.listen("10.9.0.2:7000")
	for _, src := range []string{"192.0.2.50", "10.9.0.1"} {
		_, err := d.tun.Write(ipv4(packet.UDP, src, "10.9.0.2", udp(4444, 7000)))
		must(t, err)
		_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 10))
		must(t, err)
		if from.Addr() != addr(src) {
			t.Errorf("from %v, want %s", from, src)
		}
	}

	err = h.Apply(t.Context(), everyKind)
	var missing *MissingSetting
	if !errors.As(err, &missing) {
		t.Fatalf("IPv6 forwarding cannot be set by netlink, but Apply returned %v", err)
	}
	if missing.Name != "net.ipv6.conf.all.forwarding" || strings.Count(err.Error(), "--sysctl ") != 2 ||
		!strings.Contains(err.Error(), "--sysctl net.ipv6.conf.all.proxy_ndp=1") {
		t.Errorf("Apply returned %v", err)
	}
	must(t, h.Close())
	if diff := cmp.Diff(before, d.state()); diff != "" {
		t.Errorf("after Close (-before +after):\n%s", diff)
	}
}

// Where the host has no nftables, errors are recognised by a rule.
func TestWithoutNftables(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	before := d.state()
	h := d.open(Options{})
	h.mu.Lock()
	h.nft = nil
	h.mu.Unlock()
	must(t, h.Apply(t.Context(), everyKind))
	if tables := d.run("nft list tables"); strings.Contains(tables, "uvs_") {
		t.Fatalf("there is a table: %s", tables)
	}
	must(t, d.tun.SetReadDeadline(time.Now().Add(patience)))
	d.sendRaw(unix.AF_INET, packet.ICMPv4, "192.0.2.99", icmpError4(ipv4(packet.UDP, "192.0.2.99", "10.9.0.2", udp(4444, 5000))))
	d.receive(addr("192.0.2.99"))
	d.sendRaw(unix.AF_INET6, packet.ICMPv6, "2001:db8:c::1", icmpError6(ipv6(packet.UDP, "2001:db8:c::1", "2001:db8:9::2", udp(4444, 5000))))
	d.receive(addr("2001:db8:c::1"))
	must(t, h.Close())
	must(t, h.Close())
	if diff := cmp.Diff(before, d.state()); diff != "" {
		t.Errorf("after Close (-before +after):\n%s", diff)
	}
}

func TestManyRepliesAreMarkedInsteadOfRules(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	var want Desired
	for port := range uint16(maxReplyRules + 1) {
		want.Replies = append(want.Replies, Reply{addr("10.9.0.2"), packet.UDP, 5000 + port}, Reply{addr("2001:db8:9::2"), packet.UDP, 5000 + port})
	}
	h := d.open(Options{})
	must(t, h.Apply(t.Context(), want))
	if rules := d.run("ip rule"); strings.Contains(rules, "sport") {
		t.Errorf("there are rules for replies:\n%s", rules)
	}
	must(t, d.tun.SetReadDeadline(time.Now().Add(patience)))
	d.send("10.9.0.2:4999", "192.0.2.99:4444", 10) // not ours: it would come first
	for _, p := range []struct{ src, dst string }{
		{"10.9.0.2:5064", "192.0.2.99:5555"}, {"[2001:db8:9::2]:5064", "[2001:db8:c::1]:5555"},
	} {
		d.send(p.src, p.dst, 10)
		got := d.receive(netip.MustParseAddrPort(p.dst).Addr())
		if l4 := got[len(got)-18:]; l4[2] != 5555>>8 || l4[3] != 5555&0xff {
			t.Errorf("from %s came % x", p.src, got)
		}
	}
	must(t, h.Close())
}

func TestThousandsOfVIPsAreQuick(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	var want Desired
	for i := range 5000 {
		want.VIPs = append(want.VIPs, netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}),
			netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 14: byte(i >> 8), 15: byte(i)}))
	}
	for i := range 1000 {
		want.Replies = append(want.Replies, Reply{netip.AddrFrom4([4]byte{10, 20, byte(i >> 8), byte(i)}), packet.TCP, 80})
	}
	h := d.open(Options{})
	start := time.Now()
	must(t, h.Apply(t.Context(), want))
	first := time.Since(start)
	want.VIPs = want.VIPs[1:]
	start = time.Now()
	must(t, h.Apply(t.Context(), want))
	second := time.Since(start)
	if n := strings.Count(d.run("ip route show table 9740"), "\n") + strings.Count(d.run("ip -6 route show table 9740"), "\n"); n != 9999 {
		t.Errorf("%d routes, want 9999", n)
	}
	if n := strings.Count(d.run("nft list set inet uvs_uvs0 vip6"), "2001:db8"); n != 5000 {
		t.Errorf("%d addresses in the set of nftables, want 5000", n)
	}
	start = time.Now()
	must(t, h.Close())
	t.Logf("10000 VIPs and 1000 replies: %v, one less: %v, closed: %v", first, second, time.Since(start))
	// In a second or so: what this tells is work that grows with the square.
	if first > time.Minute {
		t.Errorf("took %v", first)
	}
}
