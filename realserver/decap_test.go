package realserver_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
	"github.com/uvs-project/uvs/realserver"
)

// encapsulate gives a packet the outer headers that a director gives it.
func encapsulate(t *testing.T, inner []byte, kind packet.EncapKind, dip, rip string, sum bool) []byte {
	t.Helper()
	src, family := packet.AddrFrom(netip.MustParseAddr(dip))
	dst, _ := packet.AddrFrom(netip.MustParseAddr(rip))
	p := pt.Parsed(t, inner)
	r := packet.Rewrite{Encap: packet.Encap{Src: src, Dst: dst, Family: family, Kind: kind, Port: realserver.DefaultGUEPort, Checksum: sum}}
	if why := r.Apply(p); why != packet.OK {
		t.Fatal(why)
	}
	return p.Bytes()
}

// sendRaw sends a whole IP packet from a host.
func sendRaw(t *testing.T, h *lab.Host, b []byte, rip string) {
	t.Helper()
	err := h.Do(func() error {
		family := unix.AF_INET
		addr := netip.MustParseAddr(rip)
		var to unix.Sockaddr = &unix.SockaddrInet6{Addr: addr.As16()}
		if addr.Is6() {
			family = unix.AF_INET6
		} else {
			to = &unix.SockaddrInet4{Addr: addr.As4()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, b, 0, to)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDecapsulator sends what a director sends from one namespace to another,
//
//	director 10.0.0.1, fd00::1 ── rs 10.0.0.2, fd00::2; VIPs on lo
//
// and looks at what a UDP server on the VIP gets.
func TestDecapsulator(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	const client4, client6, vip4, vip6 = "192.0.2.2:4000", "[2001:db8::2]:4000", "203.0.113.10:7", "[2001:db8:a::10]:7"
	outers := [][2]string{{"10.0.0.1", "10.0.0.2"}, {"fd00::1", "fd00::2"}}
	for name, kind := range map[string]packet.EncapKind{"ipip": packet.IPIP, "gue": packet.GUE, "gre": packet.GRE} {
		t.Run(name, func(t *testing.T) {
			h, director := newHosts(t)
			h.Sysctl("net.ipv6.conf.default.disable_ipv6", "1") // as container engines have it for new devices
			decap, err := setup(t, h, realserver.Options{Mode: "tun", VIPs: addrs("203.0.113.10", "2001:db8:a::10"), Tunnels: []packet.EncapKind{kind}, Decap: realserver.DecapUser})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- decap.Run(ctx, slog.New(slog.NewTextHandler(io.Discard, nil))) }()

			defer func() {
				if t.Failed() {
					t.Logf("stats %+v", decap.Stats())
				}
			}()
			sent := 0
			for _, vip := range []string{vip4, vip6} {
				client := client4
				if vip == vip6 {
					client = client6
				}
				server, err := h.ListenPacket("udp", vip)
				if err != nil {
					t.Fatal(err)
				}
				for _, outer := range outers {
					sendRaw(t, director, encapsulate(t, pt.UDP(client, vip, pt.Data("refused by the kernel"), pt.WrongSum), kind, outer[0], outer[1], true), outer[1])
					want := fmt.Sprintf("%s by %s", vip, outer[0])
					sendRaw(t, director, encapsulate(t, pt.UDP(client, vip, pt.Data(want)), kind, outer[0], outer[1], true), outer[1])
					sent += 2
					expect(t, server, client, want)
				}
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if s := decap.Stats(); s.Packets != uint64(sent) || s.Dropped != [packet.NumReasons]uint64{} {
				t.Errorf("stats %+v, want %d packets and no drop", s, sent)
			}
			if err := decap.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// expect reads one datagram.
func expect(t *testing.T, pc net.PacketConn, from, want string) {
	t.Helper()
	buf := make([]byte, 1500)
	pc.SetReadDeadline(time.Now().Add(time.Minute))
	n, addr, err := pc.ReadFrom(buf)
	if err != nil {
		t.Fatalf("%q did not arrive: %v", want, err)
	}
	if string(buf[:n]) != want || addr.String() != from {
		t.Errorf("got %q from %v, want %q from %s", buf[:n], addr, want, from)
	}
}

func TestUndoEndsADecapsulator(t *testing.T) {
	h, _ := newHosts(t)
	decap, err := setup(t, h, realserver.Options{Mode: "tun", VIPs: addrs("203.0.113.10"), Decap: realserver.DecapUser})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- decap.Run(t.Context(), slog.New(slog.NewTextHandler(io.Discard, nil))) }()
	undo(t, h)
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it still runs")
	}
	if err := decap.Close(); err != nil {
		t.Error(err)
	}
}
