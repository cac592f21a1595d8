package stack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

var testVIPs = []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:a::10")}

// summary says what an answer is and what it is about, once its checksums are
// found right.
func summary(t *testing.T, ip []byte) string {
	t.Helper()
	packettest.MustCheck(t, ip)
	p := packettest.Parsed(t, ip)
	src, dst := p.Tuple.Src.Netip(p.Tuple.Family), p.Tuple.Dst.Netip(p.Tuple.Family)
	head := 40
	if ip[0]>>4 == 4 {
		head = int(ip[0]&15) * 4
	}
	l4 := ip[head:]
	switch {
	case p.IsICMPError():
		return fmt.Sprintf("icmp %d/%d about %v:%d > %v:%d", l4[0], l4[1], dst, p.Tuple.DstPort, src, p.Tuple.SrcPort)
	case p.Tuple.Proto == packet.TCP:
		return fmt.Sprintf("tcp %v:%d > %v:%d flags %#x seq %d ack %d", src, p.Tuple.SrcPort, dst, p.Tuple.DstPort,
			p.TCPFlags(), binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:]))
	default:
		return fmt.Sprintf("icmp %d/%d %v > %v: %q", l4[0], l4[1], src, dst, l4[8:])
	}
}

func TestNetstackAnswers(t *testing.T) {
	syn4 := packettest.TCP("192.0.2.1:1234", "203.0.113.10:99", packettest.SYN, packettest.Seq(7))
	syn6 := packettest.TCP("[2001:db8::1]:1234", "[2001:db8:a::10]:99", packettest.SYN, packettest.Seq(7))
	udp4 := packettest.UDP("192.0.2.1:1234", "203.0.113.10:99", packettest.Data("hello"))
	udp6 := packettest.UDP("[2001:db8::1]:1234", "[2001:db8:a::10]:99", packettest.Data("hello"))
	port4 := "icmp 3/3 about 192.0.2.1:1234 > 203.0.113.10:99"
	tests := []struct {
		name string
		in   []byte // with its virtio-net header
		want []string
		why  packet.Reason // why there is no answer
	}{
		{name: "a ping over IPv4", in: packettest.Plain(packettest.Echo("192.0.2.1", "203.0.113.10", packettest.Data("ping"))),
			want: []string{`icmp 0/0 203.0.113.10 > 192.0.2.1: "ping"`}},
		{name: "a ping over IPv6", in: packettest.Plain(packettest.Echo("2001:db8::1", "2001:db8:a::10", packettest.Data("ping"))),
			want: []string{`icmp 129/0 2001:db8:a::10 > 2001:db8::1: "ping"`}},
		{name: "a SYN to a closed port over IPv4", in: packettest.Plain(syn4),
			want: []string{"tcp 203.0.113.10:99 > 192.0.2.1:1234 flags 0x14 seq 0 ack 8"}},
		{name: "a SYN to a closed port over IPv6", in: packettest.Plain(syn6),
			want: []string{"tcp 2001:db8:a::10:99 > 2001:db8::1:1234 flags 0x14 seq 0 ack 8"}},
		{name: "a SYN whose checksum is left to the hardware", in: packettest.Partial(syn4),
			want: []string{"tcp 203.0.113.10:99 > 192.0.2.1:1234 flags 0x14 seq 0 ack 8"}},
		{name: "a datagram to a closed port over IPv4", in: packettest.Plain(udp4), want: []string{port4}},
		{name: "a datagram to a closed port over IPv6", in: packettest.Plain(udp6),
			want: []string{"icmp 1/4 about 2001:db8::1:1234 > 2001:db8:a::10:99"}},
		{name: "a UDP super-packet is as many datagrams", in: packettest.Super(packettest.UDP("192.0.2.1:1234", "203.0.113.10:99", packettest.Pad(250)), 100),
			want: []string{port4, port4, port4}},
		{name: "a wrong checksum gets no answer", in: packettest.Plain(packettest.TCP("192.0.2.1:1234", "203.0.113.10:99", packettest.SYN, packettest.WrongSum)),
			why: packet.BadChecksum},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tun := NewMemTUN(1)
			r := start(t, tun, verdict(packet.Pass), Options{})
			if err := r.SetVIPs(testVIPs); err != nil {
				t.Fatal(err)
			}
			tun.Inject(0, tt.in)
			for _, want := range tt.want {
				if got := summary(t, next(t, tun, 0)[packet.VNetLen:]); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
			if tt.why != packet.OK {
				waitStats(t, r, func(s QueueStats) bool { return s.Dropped[tt.why] == 1 })
			}
		})
	}
}

func TestNetstackPutsFragmentsOfAPingTogether(t *testing.T) {
	tun := NewMemTUN(1)
	r := start(t, tun, verdict(packet.Pass), Options{})
	if err := r.SetVIPs(testVIPs); err != nil {
		t.Fatal(err)
	}
	for _, f := range packettest.Fragments(packettest.Echo("192.0.2.1", "203.0.113.10", packettest.Data("a long ping that is cut")), 16) {
		tun.InjectPacket(0, f)
	}
	want := `icmp 0/0 203.0.113.10 > 192.0.2.1: "a long ping that is cut"`
	if got := summary(t, next(t, tun, 0)[packet.VNetLen:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSetVIPsSwapsTheAddresses(t *testing.T) {
	n, err := newNetstack(NewMemTUN(1).Queues())
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	for _, vips := range [][]string{
		{"203.0.113.10", "2001:db8:a::10"},
		{"203.0.113.11", "2001:db8:a::10"},
		{},
		{"203.0.113.10", "203.0.113.10"},
	} {
		var addrs []netip.Addr
		want := map[string]bool{}
		for _, v := range vips {
			addrs = append(addrs, netip.MustParseAddr(v))
			want[v] = true
		}
		if err := n.setVIPs(addrs); err != nil {
			t.Errorf("set %v: %v", vips, err)
		}
		got := map[string]bool{}
		for _, a := range n.stack.AllAddresses()[vipNIC] {
			got[a.AddressWithPrefix.Address.String()] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("addresses after %v (-want +got):\n%s", vips, diff)
		}
	}
}

func TestNetstackSendsNothingUnasked(t *testing.T) {
	tun := NewMemTUN(1)
	r := start(t, tun, verdict(packet.Pass), Options{})
	if err := r.SetVIPs(testVIPs); err != nil {
		t.Fatal(err)
	}
	// The answer to a ping stands behind whatever the new address had caused.
	tun.InjectPacket(0, packettest.Echo("192.0.2.1", "203.0.113.10", packettest.Data("ping")))
	want := `icmp 0/0 203.0.113.10 > 192.0.2.1: "ping"`
	if got := summary(t, next(t, tun, 0)[packet.VNetLen:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNetstackLimitsItsErrors(t *testing.T) {
	n, err := newNetstack(NewMemTUN(1).Queues())
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	if err := n.setVIPs(testVIPs); err != nil {
		t.Fatal(err)
	}
	const asked = 2000
	start := time.Now()
	for i := range asked {
		src := fmt.Sprintf("192.0.2.1:%d", 1024+i)
		n.link.deliver(packettest.UDP(src, "203.0.113.10:99"))
	}
	most := 50 + int(1000*time.Since(start).Seconds()) + 1
	if got := len(n.link.queues[0].(*memQueue).out); got == 0 || got > most {
		t.Errorf("%d answers to %d datagrams, want some, but %d at most", got, asked, most)
	}
}
