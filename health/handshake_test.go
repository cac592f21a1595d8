package health

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
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

func newHandshaker() *handshaker { return &handshaker{idle: map[int][]*os.File{}} }

func TestHandshakes(t *testing.T) {
	for _, loopback := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(loopback, func(t *testing.T) {
			_, open := listen(t, loopback)
			closed := closedPort(t, loopback)
			h := newHandshaker()
			// In turns on one socket: what one leaves behind must not harm the next.
			for range 5 {
				if err := h.try(limited(t, patience), open); err != nil {
					t.Errorf("open port: %v", err)
				}
				if err := h.try(limited(t, patience), closed); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("closed port: %v", err)
				}
			}
			if n := len(h.idle[syscall.AF_INET]) + len(h.idle[syscall.AF_INET6]); n != 1 {
				t.Errorf("%d sockets kept, want the one that was used all the time", n)
			}
		})
	}
}

// TestAHandshakeIsNoConnection: the program that listens has nothing to accept.
func TestAHandshakeIsNoConnection(t *testing.T) {
	l, at := listen(t, "127.0.0.1:0")
	if err := newHandshaker().try(limited(t, patience), at); err != nil {
		t.Fatal(err)
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
	at := silent(t)
	h := newHandshaker()
	start := time.Now()
	err := h.try(limited(t, 50*time.Millisecond), at)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > patience {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.try(ctx, at); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	if len(h.idle[syscall.AF_INET]) != 0 {
		t.Error("a socket that was interrupted is kept")
	}
}

func TestHandshakesAtOnce(t *testing.T) {
	_, open := listen(t, "127.0.0.1:0")
	closed := closedPort(t, "127.0.0.1:0")
	h := newHandshaker()
	var all sync.WaitGroup
	for i := range 2 * maxIdle {
		all.Go(func() {
			for range 5 {
				to, good := open, true
				if i%2 == 1 {
					to, good = closed, false
				}
				if err := h.try(limited(t, patience), to); (err == nil) != good {
					t.Errorf("%v: %v", to, err)
				}
			}
		})
	}
	all.Wait()
	if n := len(h.idle[syscall.AF_INET]); n > maxIdle {
		t.Errorf("%d sockets kept, want at most %d", n, maxIdle)
	}
}
