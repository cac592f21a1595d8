package host

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

func TestChangedSettingSurvivesItsComment(t *testing.T) {
	for _, c := range []changedSetting{
		{conf(packet.IPv4, "eth0", "forwarding"), 0, 1},
		{conf(packet.IPv6, "eth0.100", "accept_ra"), 1, 2},
		{setting{packet.IPv4, "neigh", "br-lan", "proxy_delay"}, 80, 0},
	} {
		got, err := parseChangedSetting(c.String())
		if err != nil || got != c {
			t.Errorf("%q: %+v, %v", c, got, err)
		}
	}
	for _, s := range []string{"", "net.ipv4.conf.eth0.forwarding", "net.ipvx.conf.eth0.forwarding was 1, uvs set 2", "a b"} {
		if got, err := parseChangedSetting(s); err == nil {
			t.Errorf("%q accepted: %+v", s, got)
		}
	}
}

func TestIntervalsDoNotOverlap(t *testing.T) {
	var got []string
	for _, e := range intervalElements([]netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("10.0.0.8/29"), netip.MustParsePrefix("255.255.255.0/24"),
	}) {
		a, _ := netip.AddrFromSlice(e.Key)
		s := a.String()
		if e.IntervalEnd {
			s = "to " + s
		}
		got = append(got, s)
	}
	if diff := cmp.Diff([]string{"10.0.0.0", "to 10.0.1.0", "255.255.255.0"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// tracked is how many connections the director tracks.
func tracked(d *director) string {
	d.t.Helper()
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	if err != nil {
		d.t.Skipf("kernel without connection tracking: %v", err)
	}
	return strings.TrimSpace(string(b))
}

// crossing is one packet of each kind that crosses uvs, sent by the peer into
// the device, and one written to the device that leaves by the kernel.
func crossing(d *director) {
	d.t.Helper()
	must(d.t, d.tun.SetReadDeadline(time.Now().Add(patience)))
	for _, p := range []struct{ src, dst string }{
		{"", "203.0.113.10:80"}, {"", "[2001:db8:a::10]:80"}, {"", "198.51.100.5:2000"}, {"", "[2001:db8:f::5]:2000"},
		{"10.9.0.2:5000", "192.0.2.99:4444"}, {"[2001:db8:9::2]:5000", "[2001:db8:c::1]:4444"},
	} {
		d.send(p.src, p.dst, 10)
		in := bytes.Clone(d.receive(netip.MustParseAddrPort(p.dst).Addr()))
		// What uvs would send: the same datagram to the peer.
		if in[0]>>4 == 4 {
			copy(in[16:], addr("10.9.0.2").AsSlice())
			in[10], in[11] = 0, 0
			sum := ^onesSum(in[:20])
			in[10], in[11] = byte(sum>>8), byte(sum)
		} else {
			copy(in[24:], addr("2001:db8:9::2").AsSlice())
		}
		_, err := d.tun.Write(in)
		must(d.t, err)
	}
}

func onesSum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

func TestTrafficIsNotTracked(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	d.run("nft add table inet firewall")
	d.run("nft add chain inet firewall forward { type filter hook forward priority filter ; }")
	d.run("nft add rule inet firewall forward ct state invalid counter drop")
	h := d.open(Options{})
	must(t, h.Apply(t.Context(), everyKind))
	crossing(d)
	if got := tracked(d); got != "0" {
		t.Errorf("%s connections are tracked:\n%s", got, d.run("cat /proc/net/nf_conntrack"))
	}
	h.mu.Lock() // keeps the repair waiting
	d.run("nft delete table inet uvs_uvs0")
	crossing(d)
	got := tracked(d)
	h.mu.Unlock()
	if got == "0" {
		t.Error("without our table nothing is tracked either, the test cannot fail")
	}
	eventually(t, "that our table is back", func() bool { return strings.Contains(d.run("nft list tables"), "uvs_uvs0") })
	must(t, h.Close())
}

func TestOurTableDoesNotTurnTrackingOn(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	h := d.open(Options{})
	must(t, h.Apply(t.Context(), everyKind))
	d.runPeer("ping -c 1 -W 5 10.9.0.1") // would be tracked
	crossing(d)
	if got := tracked(d); got != "0" {
		t.Errorf("%s connections are tracked", got)
	}
	must(t, h.Close())
}

func TestFragmentsAndErrorsOfRealServersComeIntoTheDevice(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	h := d.open(Options{})
	must(t, h.Apply(t.Context(), everyKind))
	must(t, d.tun.SetReadDeadline(time.Now().Add(patience)))
	for _, p := range []struct{ src, dst string }{
		{"10.9.0.2:5000", "192.0.2.99:4444"}, {"[2001:db8:9::2]:5000", "[2001:db8:c::1]:4444"},
	} {
		d.send(p.src, p.dst, 4000)
		dst := netip.MustParseAddrPort(p.dst).Addr()
		for range 3 {
			d.receive(dst)
		}
	}

	// A router behind the peer answers a request of the client 192.0.2.99, or
	// 2001:db8:c::1, to the balanced port of the real server; and one to
	// another port, which is not ours.
	for _, tt := range []struct {
		name string
		port uint16
		ours bool
	}{{"of the balanced port", 5000, true}, {"of another port", 5001, false}} {
		embedded4 := ipv4(packet.UDP, "192.0.2.99", "10.9.0.2", udp(4444, tt.port))
		embedded6 := ipv6(packet.UDP, "2001:db8:c::1", "2001:db8:9::2", udp(4444, tt.port))
		d.sendRaw(unix.AF_INET, packet.ICMPv4, "192.0.2.99", icmpError4(embedded4))
		d.sendRaw(unix.AF_INET6, packet.ICMPv6, "2001:db8:c::1", icmpError6(embedded6))
		if tt.ours {
			d.receive(addr("192.0.2.99"))
			d.receive(addr("2001:db8:c::1"))
			continue
		}
		// The marker must come, and no error before it. The host's own
		// multicast reports come whenever they like.
		d.send("", "203.0.113.10:80", 1)
		buf := make([]byte, 65536)
		for got := (netip.Addr{}); got != addr("203.0.113.10"); {
			n, err := d.tun.Read(buf)
			must(t, err)
			if got = destinationOf(buf[:n]); got == addr("192.0.2.99") || got == addr("2001:db8:c::1") {
				t.Errorf("an error %s came into the device, to %v", tt.name, got)
			}
		}
	}
	must(t, h.Close())
}

// sendRaw sends an IP payload from the peer.
func (d *director) sendRaw(family, proto int, dst string, payload []byte) {
	d.t.Helper()
	withNamespace(d.t, d.peer, func() {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
		must(d.t, err)
		defer unix.Close(fd)
		a := addr(dst)
		var to unix.Sockaddr = &unix.SockaddrInet6{Addr: a.As16()}
		if family == unix.AF_INET {
			to = &unix.SockaddrInet4{Addr: a.As4()}
		}
		must(d.t, unix.Sendto(fd, payload, 0, to))
	})
}

func udp(src, dst uint16) []byte {
	return []byte{byte(src >> 8), byte(src), byte(dst >> 8), byte(dst), 0, 8, 0, 0}
}

func ipv4(proto byte, src, dst string, payload []byte) []byte {
	n := 20 + len(payload)
	b := []byte{0x45, 0, byte(n >> 8), byte(n), 0, 0, 0, 0, 64, proto, 0, 0}
	b = append(append(b, addr(src).AsSlice()...), addr(dst).AsSlice()...)
	sum := ^onesSum(b)
	b[10], b[11] = byte(sum>>8), byte(sum)
	return append(b, payload...)
}

func ipv6(proto byte, src, dst string, payload []byte) []byte {
	b := []byte{0x60, 0, 0, 0, byte(len(payload) >> 8), byte(len(payload)), proto, 64}
	b = append(append(b, addr(src).AsSlice()...), addr(dst).AsSlice()...)
	return append(b, payload...)
}

// icmpError4 is a "fragmentation needed" about a packet.
func icmpError4(about []byte) []byte {
	b := append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, about...)
	sum := ^onesSum(b)
	b[2], b[3] = byte(sum>>8), byte(sum)
	return b
}

// icmpError6 is a "packet too big"; the kernel fills in the checksum.
func icmpError6(about []byte) []byte { return append([]byte{2, 0, 0, 0, 0, 0, 5, 0}, about...) }

func TestAFirewallThatDropsIsNamed(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	var log bytes.Buffer
	open := func() string {
		log.Reset()
		must(t, d.open(Options{Log: slog.New(slog.NewTextHandler(&log, nil))}).Close())
		return log.String()
	}
	d.run("nft add table ip filter")
	d.run("nft add chain ip filter FORWARD { type filter hook forward priority filter ; policy accept ; }")
	if got := open(); strings.Contains(got, "firewall") {
		t.Errorf("a firewall that accepts is named: %s", got)
	}
	d.run("nft add chain ip filter FORWARD { policy drop ; }")
	if got := open(); !strings.Contains(got, "chain=FORWARD") || !strings.Contains(got, "iptables -I FORWARD -i uvs0 -j ACCEPT") {
		t.Errorf("logged %s", got)
	}
}
