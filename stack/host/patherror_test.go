package host

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet/packettest"
)

// message is an ICMP error as the socket gives it.
func message(typ, code uint8, word uint32, src, dst string) []byte {
	about := packettest.UDP(netip.AddrPortFrom(netip.MustParseAddr(src), 1).String(), netip.AddrPortFrom(netip.MustParseAddr(dst), 2).String())
	b := packettest.Error("192.0.2.99", "192.0.2.98", typ, code, word, about)
	if netip.MustParseAddr(src).Is6() {
		return packettest.Error("2001:db8::99", "2001:db8::98", typ, code, word, about)[40:]
	}
	return b[20:]
}

func TestParsePathErrors(t *testing.T) {
	four, six := message(3, 4, 1400, "192.0.2.1", "10.0.0.1"), message(2, 0, 1400, "2001:db8::1", "2001:db8:1::1")
	broken := append([]byte(nil), four...)
	broken[7]++
	tests := []struct {
		name string
		b    []byte
		dst  string // empty: refused
		mtu  int
	}{
		{"IPv4: fragmentation needed", four, "10.0.0.1", 1400},
		{"IPv6: packet too big", six, "2001:db8:1::1", 1400},
		{"IPv4: less than any router would say is the least", message(3, 4, 0, "192.0.2.1", "10.0.0.1"), "10.0.0.1", minPathMTU4},
		{"IPv6: less than every link carries is the least", message(2, 0, 5, "2001:db8::1", "2001:db8:1::1"), "2001:db8:1::1", minPathMTU6},
		{"IPv6: a number out of reason is the largest packet", message(2, 0, 1<<31, "2001:db8::1", "2001:db8:1::1"), "2001:db8:1::1", maxMTU},
		{"another code", message(3, 3, 0, "192.0.2.1", "10.0.0.1"), "", 0},
		{"another type", message(11, 0, 0, "192.0.2.1", "10.0.0.1"), "", 0},
		{"a wrong checksum", broken, "", 0},
		{"IPv4 cut short", four[:27], "", 0},
		{"IPv6 cut short", six[:47], "", 0},
		{"nothing", nil, "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dst, mtu, ok := parseFragmentationNeeded(tt.b)
			if !ok {
				dst, mtu, ok = parsePacketTooBig(tt.b)
			}
			if ok != (tt.dst != "") || ok && (dst.String() != tt.dst || mtu != tt.mtu) {
				t.Errorf("got %v, %d, %v; want %s, %d", dst, mtu, ok, tt.dst, tt.mtu)
			}
		})
	}
}

func TestWholePathErrors(t *testing.T) {
	p := &pathErrors{paths: map[netip.Addr]*learnedMTU{}}
	p.mtu(netip.MustParseAddr("10.0.0.1"))
	p.mtu(netip.MustParseAddr("2001:db8:1::1"))
	from4, from6 := &net.IPAddr{IP: net.IP{10, 0, 0, 254}}, &net.IPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}
	tests := []struct {
		name string
		b    []byte
		from net.Addr
		want []byte // nil: nothing
	}{
		{"IPv4", message(3, 1, 0, "192.0.2.1", "10.0.0.1"), from4,
			packettest.Error("10.0.0.254", "192.0.2.1", 3, 1, 0, packettest.UDP("192.0.2.1:1", "10.0.0.1:2"), packettest.TTL(1))},
		{"IPv6, from a link-local address", packettest.Error("fe80::1", "2001:db8::1", 3, 0, 0, packettest.UDP("[2001:db8::1]:1", "[2001:db8:1::1]:2"))[40:], from6,
			packettest.Error("fe80::1", "2001:db8::1", 3, 0, 0, packettest.UDP("[2001:db8::1]:1", "[2001:db8:1::1]:2"), packettest.TTL(1))},
		{"about a packet to a stranger", message(3, 1, 0, "192.0.2.1", "10.0.0.2"), from4, nil},
		{"about the other family", message(3, 1, 0, "192.0.2.1", "10.0.0.1"), from6, nil},
		{"cut short", message(3, 1, 0, "192.0.2.1", "10.0.0.1")[:27], from4, nil},
		{"nothing", nil, from4, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := p.whole(tt.b, tt.from)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got != nil {
				packettest.MustCheck(t, got)
			}
		})
	}
}

func FuzzParsePathErrors(f *testing.F) {
	f.Add(message(3, 4, 1400, "192.0.2.1", "10.0.0.1"))
	f.Add(message(2, 0, 1400, "2001:db8::1", "2001:db8:1::1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if dst, mtu, ok := parseFragmentationNeeded(b); ok && (!dst.Is4() || mtu < minPathMTU4 || mtu > maxMTU) {
			t.Errorf("IPv4: %v, %d", dst, mtu)
		}
		if dst, mtu, ok := parsePacketTooBig(b); ok && (!dst.Is6() || mtu < minPathMTU6 || mtu > maxMTU || uint32(mtu) < min(binary.BigEndian.Uint32(b[4:]), minPathMTU6)) {
			t.Errorf("IPv6: %v, %d", dst, mtu)
		}
	})
}

func TestLearnedMTUsAreForgottenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changes := 0
		p := &pathErrors{changed: func() { changes++ }, paths: map[netip.Addr]*learnedMTU{}}
		defer p.close()
		dst := netip.MustParseAddr("10.0.0.1")
		if p.learn(dst, 1400) || p.mtu(dst) != 0 {
			t.Error("an error about an address that nobody asked for was taken in")
		}
		if !p.learn(dst, 1400) || p.mtu(dst) != 1400 {
			t.Error("the first error was not taken in")
		}
		if p.learn(dst, 1400) || p.learn(dst, 1500) || p.mtu(dst) != 1400 {
			t.Error("what is no news was taken for it")
		}
		time.Sleep(learnedFor / 2)
		if !p.learn(dst, 1300) {
			t.Error("a smaller one was not taken in")
		}
		time.Sleep(learnedFor - time.Second)
		if p.mtu(dst) != 1300 {
			t.Error("forgotten too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if p.mtu(dst) != 0 || changes != 1 {
			t.Errorf("%d bytes, %d changes told; want it forgotten and told once", p.mtu(dst), changes)
		}
	})
}
