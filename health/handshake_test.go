package health

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listen opens a port on loopback that accepts nothing by itself.
func listen(t *testing.T, addr string) (*net.TCPListener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("this machine cannot listen on %s: %v", addr, err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener), l.Addr().(*net.TCPAddr).AddrPort()
}

// patience bounds every wait for what must come: far more than it takes on a
// busy machine, so that reaching it means that it never comes.
const patience = 60 * time.Second

// closedPort is an address where nobody listens, nor will before the test ends
// but for a program that is told this very port. It is not one of those that
// the kernel hands out, and a socket that is bound to it but does not listen
// keeps it from tests that look for one at the same time.
func closedPort(t *testing.T, loopback string) netip.AddrPort {
	t.Helper()
	l, other := listen(t, loopback) // skips where there is no such address
	l.Close()
	ip := other.Addr()
	for range 100 {
		at := netip.AddrPortFrom(ip, uint16(20_000+rand.IntN(10_000)))
		if held(t, at) {
			return at
		}
	}
	t.Fatalf("no free port on %v", ip)
	return netip.AddrPort{}
}

// held binds the port for TCP, where it is free for UDP too.
func held(t *testing.T, at netip.AddrPort) bool {
	t.Helper()
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return false
	}
	u.Close()
	family := syscall.AF_INET
	var sa syscall.Sockaddr = &syscall.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if at.Addr().Is4() {
		sa = &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	} else {
		family = syscall.AF_INET6
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Another one that reuses the address may bind it too, and listen.
	if syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) != nil || syscall.Bind(fd, sa) != nil {
		syscall.Close(fd)
		return false
	}
	t.Cleanup(func() { syscall.Close(fd) })
	return true
}

func limited(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func startHandshaker(t *testing.T, most int) *handshaker {
	t.Helper()
	h, err := newHandshaker(most)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h
}

// await looks until handshakes are over.
func (h *handshaker) await(t *testing.T) []*handshake {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < patience; {
		over, again := h.look()
		if len(over) > 0 {
			return over
		}
		if again < 0 {
			t.Fatal("nothing is under way")
		}
		// Wakes for an answer, too.
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(h.epoll), Events: unix.POLLIN}}, int(again/time.Millisecond)); err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
	}
	t.Fatal("never over")
	return nil
}

// shake makes one handshake.
func (h *handshaker) shake(t *testing.T, to netip.AddrPort, timeout time.Duration) *handshake {
	t.Helper()
	h.begin([]*handshake{{to: to, timeout: timeout}})
	return h.await(t)[0]
}

func TestHandshakes(t *testing.T) {
	for _, loopback := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(loopback, func(t *testing.T) {
			_, open := listen(t, loopback)
			closed := closedPort(t, loopback)
			h := startHandshaker(t, 10)
			// In turns on one socket: what one leaves behind must not harm the next.
			for range 5 {
				if hs := h.shake(t, open, patience); hs.err != nil || hs.took <= 0 || hs.took > patience {
					t.Errorf("open port: %+v", hs)
				}
				if hs := h.shake(t, closed, patience); !errors.Is(hs.err, syscall.ECONNREFUSED) {
					t.Errorf("closed port: %v", hs.err)
				}
			}
			if n := len(h.sockets); n != 1 {
				t.Errorf("%d sockets kept, want the one that was used all the time", n)
			}
		})
	}
}

// TestAHandshakeIsNoConnection: the program that listens has nothing to accept.
func TestAHandshakeIsNoConnection(t *testing.T) {
	l, at := listen(t, "127.0.0.1:0")
	h := startHandshaker(t, 1)
	for range 3 {
		if hs := h.shake(t, at, patience); hs.err != nil {
			t.Fatal(hs.err)
		}
	}
	real, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != real.LocalAddr().String() {
		t.Errorf("accepted %v, want only the real connection %v", first.RemoteAddr(), real.LocalAddr())
	}
}

// silent is an address that answers no SYN: a listener whose backlog is full.
func silent(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(sa.(*syscall.SockaddrInet4).Port))
	for { // fill the backlog: until then the kernel answers by itself, at once
		c, err := net.DialTimeout("tcp", at.String(), 2*time.Second)
		if err != nil {
			return at
		}
		t.Cleanup(func() { c.Close() })
	}
}

func TestAHandshakeEndsWithItsTime(t *testing.T) {
	h := startHandshaker(t, 1)
	hs := h.shake(t, silent(t), 50*time.Millisecond)
	if !errors.Is(hs.err, context.DeadlineExceeded) || hs.took < 50*time.Millisecond {
		t.Errorf("%v after %v", hs.err, hs.took)
	}
	_, open := listen(t, "127.0.0.1:0")
	if hs := h.shake(t, open, patience); hs.err != nil {
		t.Errorf("afterwards, on the same socket: %v", hs.err)
	}
}

// TestHandshakesUnderWayAreForgottenAtTheEnd, and with them their sockets.
func TestHandshakesUnderWayAreForgottenAtTheEnd(t *testing.T) {
	at := silent(t)
	before := descriptors(t)
	h, err := newHandshaker(10)
	if err != nil {
		t.Fatal(err)
	}
	h.begin([]*handshake{{to: at, timeout: time.Hour}, {to: at, timeout: time.Hour}})
	if over, again := h.look(); len(over) != 0 || again != lookEvery || len(h.expiry) != 2 {
		t.Errorf("%d over, %d under way, look again in %v", len(over), len(h.expiry), again)
	}
	h.close()
	// Fewer are no fault: an earlier test's server may still have been closing.
	if n := descriptors(t); n > before {
		t.Errorf("%d open files, before it was %d", n, before)
	}
}

// descriptors is the number of open files.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestHandshakesAtOnce: as many as are allowed, each with its own result.
func TestHandshakesAtOnce(t *testing.T) {
	const most, each = 3 * maxIdle / 2, 10
	_, open := listen(t, "127.0.0.1:0")
	closed, slow := closedPort(t, "127.0.0.1:0"), silent(t)
	h := startHandshaker(t, most)
	left := 0
	for range each {
		var all []*handshake
		for range maxIdle {
			all = append(all, &handshake{to: open, timeout: patience}, &handshake{to: closed, timeout: patience}, &handshake{to: slow, timeout: 20 * time.Millisecond})
		}
		left += len(all)
		h.begin(all)
	}
	for left > 0 {
		for _, hs := range h.await(t) {
			switch {
			case hs.to == open && hs.err != nil,
				hs.to == closed && !errors.Is(hs.err, syscall.ECONNREFUSED),
				hs.to == slow && !errors.Is(hs.err, context.DeadlineExceeded):
				t.Errorf("%v: %v", hs.to, hs.err)
			}
			left--
		}
		if n := len(h.sockets); n > most {
			t.Fatalf("%d sockets, want at most %d", n, most)
		}
	}
	if n := len(h.idle[0]); n != len(h.sockets) || n > maxIdle {
		t.Errorf("%d of %d sockets kept, want all and at most %d", n, len(h.sockets), maxIdle)
	}
}
