package integration

// Fragments as no socket of the client's would send them: in every order, one
// twice, without a checksum, and packets that are too long for the link of the
// real server. The real servers put them together as kernels do.

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
	"github.com/uvs-project/uvs/packet/packettest"
)

// A rawSender sends whole IP packets from a host.
type rawSender struct{ fd4, fd6 int }

func newRawSender(t *testing.T, h *lab.Host) *rawSender {
	t.Helper()
	s := &rawSender{-1, -1}
	err := h.Do(func() (err error) {
		if s.fd4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return err
		}
		s.fd6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	t.Cleanup(func() {
		unix.Close(s.fd4)
		unix.Close(s.fd6)
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *rawSender) send(t *testing.T, packets ...[]byte) {
	t.Helper()
	for _, b := range packets {
		var err error
		if b[0]>>4 == 4 {
			err = unix.Sendto(s.fd4, b, 0, &unix.SockaddrInet4{Addr: [4]byte(b[16:20])})
		} else {
			err = unix.Sendto(s.fd6, b, 0, &unix.SockaddrInet6{Addr: [16]byte(b[24:40])})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// echoFragments sends, from a socket's address, what cut makes of a datagram,
// and waits for its echo.
func echoFragments(t *testing.T, x *target, raw *rawSender, size int, opts []packettest.Option, cut func(datagram []byte) [][]byte) {
	t.Helper()
	pc, err := x.client.ListenPacket("udp", netip.AddrPortFrom(x.clientAddr(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	data := bytes.Repeat([]byte(pc.LocalAddr().String()), size/len(pc.LocalAddr().String())+1)[:size]
	opts = append(opts, packettest.Data(string(data)), packettest.ID(uint16(pc.LocalAddr().(*net.UDPAddr).Port)))
	whole := packettest.UDP(pc.LocalAddr().String(), netip.AddrPortFrom(x.vip, echoPort).String(), opts...)
	raw.send(t, cut(whole)...)
	pc.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, 1<<16)
	n, _, err := pc.ReadFrom(got)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:n], data) {
		t.Errorf("%d bytes came back, want the %d that were sent", n, size)
	}
}

func TestFragmentsInAnyOrder(t *testing.T) {
	need(t, programs...)
	list := some("dr IPv4", "dr IPv6", "nat IPv4", "nat IPv6", "tun ipip IPv4", "tun ipip IPv6", "tun ipip IPv4 in IPv6", "tun ipip IPv6 in IPv4",
		"fullnat IPv4", "fullnat IPv6", "fullnat IPv4 to IPv6", "fullnat IPv6 to IPv4")
	b := readyBed(t, list)
	settled(t, b.director)
	startDirector(t, b.director, settings+services(list))
	raw := newRawSender(t, b.client)
	const size, part = 3000, 1232 // three fragments, which fit every IPv6 link
	order := func(indexes ...int) func([]byte) [][]byte {
		return func(datagram []byte) (out [][]byte) {
			for _, i := range indexes {
				out = append(out, packettest.Fragments(datagram, part)[i])
			}
			return out
		}
	}
	for _, v := range list {
		x := &target{b, v}
		t.Run(v.name, func(t *testing.T) {
			for _, indexes := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {2, 0, 1}, {0, 0, 2, 2, 1}} {
				t.Run(strings.Trim(fmt.Sprint(indexes), "[]"), func(t *testing.T) { echoFragments(t, x, raw, size, nil, order(indexes...)) })
			}
			if v.vip.Is4() {
				t.Run("without a checksum", func(t *testing.T) {
					echoFragments(t, x, raw, size, []packettest.Option{packettest.NoSum}, order(2, 0, 1))
				})
			}
		})
	}
}

// TestNarrowLinkOfDirectRouting: the way to a real server of dr carries less
// than the client's packets have.
func TestNarrowLinkOfDirectRouting(t *testing.T) {
	need(t, programs...)
	list := some("dr IPv4")
	b := readyBed(t, list)
	for n := range 2 {
		run(t, b.director, "ip", "route", "add", list[0].rip(n+1).String()+"/32", "dev", "lan", "mtu", fmt.Sprint(narrow))
	}
	startDirector(t, b.director, settings+services(list))
	x := &target{b, list[0]}
	longest := func(t *testing.T) func() int {
		c, err := b.lan.Capture("director", func(f *lab.Frame) bool { return !f.Out && bytes.Contains(f.Data, x.vip.AsSlice()) })
		if err != nil {
			t.Fatal(err)
		}
		return func() (n int) {
			for _, f := range c.Stop() {
				if f.Data[12] == 8 && f.Data[13] == 0 && netip.AddrFrom4([4]byte(f.Data[30:34])) == x.vip {
					n = max(n, len(f.Data)-14)
				}
			}
			return n
		}
	}
	t.Run("a packet that may be fragmented arrives in fragments", func(t *testing.T) {
		stop := longest(t)
		echoFragments(t, x, newRawSender(t, b.client), 1432, nil, func(datagram []byte) [][]byte { return [][]byte{datagram} })
		if n := stop(); n == 0 || n > narrow {
			t.Errorf("the longest packet to the real server has %d bytes, want some of at most %d", n, narrow)
		}
	})
	t.Run("one that may not tells the client", func(t *testing.T) {
		conn, err := b.client.Dial(within(t), "udp", netip.AddrPortFrom(x.vip, echoPort).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(make([]byte, 1472)); err != nil {
			t.Fatal(err)
		}
		awaitMTU(t, conn, narrow)
	})
}

// awaitMTU waits until the kernel of the connection's host has learned of its
// path that it carries just so many bytes.
func awaitMTU(t *testing.T, conn net.Conn, want int) {
	t.Helper()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if conn.RemoteAddr().(*net.UDPAddr).IP.To4() == nil {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	if err := lab.Wait(within(t), "the path's MTU", func() error {
		got := 0
		err := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), level, option) })
		if err == nil && got != want {
			err = fmt.Errorf("it is %d, want %d", got, want)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// TestErrorsAboutTunnels: what a router says of a tunnel packet reaches the
// client, by its first packet.
func TestErrorsAboutTunnels(t *testing.T) {
	need(t, programs...)
	list := slices.DeleteFunc(slices.Clone(pathVariants), func(v variant) bool { return v.mode != "tun" })
	start := func(t *testing.T) *path {
		p := newPath(t, 1500, narrow)
		p.serve(t)
		config := "services:\n"
		for _, v := range list {
			config += p.service(v)
		}
		startDirector(t, p.director, config)
		return p
	}
	dial := func(t *testing.T, p *path, v variant) net.Conn {
		conn, err := p.client.Dial(within(t), "udp", netip.AddrPortFrom(v.vip, echoPort).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	// Each tunnel's first packet has a director that has learned nothing yet.
	for _, v := range list {
		if v.vip.Is6() && !v.rs6 {
			continue // the router fragments the outer packet, which has no DF
		}
		t.Run(v.name+": too big", func(t *testing.T) {
			outer, headers := 20, 28
			if v.rs6 {
				outer = 40
			}
			if v.vip.Is6() {
				headers = 48
			}
			conn := dial(t, start(t), v)
			if _, err := conn.Write(make([]byte, 1450-headers)); err != nil {
				t.Fatal(err)
			}
			awaitMTU(t, conn, narrow-outer)
		})
	}
	p := start(t)
	run(t, p.g1, "ip", "route", "replace", "unreachable", "10.6.0.0/24")
	run(t, p.g1, "ip", "-6", "route", "replace", "unreachable", "2001:db8:6::/64", "metric", "1")
	for _, v := range list {
		t.Run(v.name+": no way to the real server", func(t *testing.T) {
			// The VIP, not the router, says so.
			want := []byte{3, 1}
			at, proto := 14+20, byte(1)
			if v.vip.Is6() {
				want, at, proto = []byte{1, 3}, 14+40, 58
			}
			c, err := p.client.Capture("r1", func(f *lab.Frame) bool {
				return !f.Out && len(f.Data) > at+2 && bytes.Equal(f.Data[at:at+2], want) &&
					(proto == f.Data[14+9] || proto == f.Data[14+6]) && bytes.Contains(f.Data[:at], v.vip.AsSlice())
			})
			if err != nil {
				t.Fatal(err)
			}
			conn := dial(t, p, v)
			if _, err := conn.Write([]byte("anybody there?")); err != nil {
				t.Fatal(err)
			}
			f, err := c.Wait(within(t), "the error", func(*lab.Frame) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(f.Data, []byte("anybody there?")) {
				t.Errorf("the error does not embed what was sent: %x", f.Data)
			}
			conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := conn.Read(make([]byte, 100)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, unix.EHOSTUNREACH) {
				t.Errorf("the socket says %v", err)
			}
		})
	}
}
