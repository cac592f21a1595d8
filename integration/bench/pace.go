package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Latency at a given load: pace sends HTTP requests at a fixed rate over
// keep-alive connections, whether or not earlier ones were answered, and takes
// the time of each from the moment when it was due. A stall therefore counts
// for every request that it held up (no coordinated omission).

const paceRequest = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"

// paced is what pace prints; times in microseconds.
type paced struct {
	Requests      int     // answered
	Rate          float64 // answered per second
	P50, P99, Max float64
}

// paceBuffer, in bytes, holds what is due during a stall of a second; the kernel
// charges some 2 KiB for a small request.
const paceBuffer = 8 << 20

type paceConn struct {
	fd   int
	due  []time.Duration // when the requests in flight were due, oldest first
	seen []byte          // of the answer, not yet whole
}

// A pacer drives all connections from one thread: an epoll loop that wakes for
// the next due request or an answer.
type pacer struct {
	epoll int
	conns []paceConn
	start time.Time
	took  []time.Duration
	buf   []byte
}

func pace(args []string) error {
	fs := flag.NewFlagSet(workerPace, flag.ContinueOnError)
	rate := fs.Float64("rate", 1000, "requests per second")
	conns := fs.Int("conns", 32, "connections")
	length := fs.Duration("for", time.Second, "how long to send")
	if err := fs.Parse(args); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(fs.Arg(0))
	if err != nil {
		return err
	}
	// The slack is the thread's; the default of 50 us would be most of a latency.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("PR_SET_TIMERSLACK", err)
	}
	p, err := newPacer(to, *conns)
	if err != nil {
		return err
	}
	result, err := p.run(*rate, *length)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func newPacer(to netip.AddrPort, conns int) (*pacer, error) {
	p := &pacer{conns: make([]paceConn, conns), buf: make([]byte, 64<<10)}
	var err error
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	for i := range p.conns {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("socket", err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
			return nil, os.NewSyscallError("connect", err)
		}
		if err := errors.Join(
			unix.SetNonblock(fd, true),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, paceBuffer),
		); err != nil {
			return nil, err
		}
		p.conns[i].fd = fd
		if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return nil, os.NewSyscallError("epoll_ctl", err)
		}
	}
	return p, nil
}

// drain is how long answers to the last requests are waited for.
const drain = 10 * time.Second

func (p *pacer) run(rate float64, length time.Duration) (paced, error) {
	total := int(rate * length.Seconds())
	gap := func(i int) time.Duration { return time.Duration(float64(i) / rate * float64(time.Second)) }
	p.took = make([]time.Duration, 0, total)
	events := make([]unix.EpollEvent, len(p.conns))
	p.start = time.Now()
	for sent := 0; len(p.took) < total; {
		now := time.Since(p.start)
		for ; sent < total && gap(sent) <= now; sent++ {
			if err := p.send(&p.conns[sent%len(p.conns)], gap(sent)); err != nil {
				return paced{}, err
			}
		}
		wait := length + drain - now
		if sent < total {
			wait = gap(sent) - time.Since(p.start)
		}
		if wait < 0 {
			if sent == total {
				return paced{}, fmt.Errorf("%d of %d requests were not answered within %v", total-len(p.took), total, drain)
			}
			wait = 0
		}
		n, err := epollWait(p.epoll, events, wait)
		if err != nil {
			return paced{}, err
		}
		for _, e := range events[:n] {
			if err := p.receive(&p.conns[e.Fd]); err != nil {
				return paced{}, err
			}
		}
	}
	return p.result(time.Since(p.start)), nil
}

func (p *pacer) send(c *paceConn, due time.Duration) error {
	if _, err := unix.Write(c.fd, []byte(paceRequest)); err != nil {
		return fmt.Errorf("a request with %d before it: %w", len(c.due), err)
	}
	c.due = append(c.due, due)
	return nil
}

// receive takes the answers that have arrived. An answer ends where the body
// of the page ends: the only line feed that does not follow a carriage return.
func (p *pacer) receive(c *paceConn) error {
	n, err := unix.Read(c.fd, p.buf)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("read", err)
	}
	if n == 0 {
		return errors.New("the server closed a connection")
	}
	now := time.Since(p.start)
	var answers int
	answers, c.seen = countAnswers(append(c.seen, p.buf[:n]...))
	if answers > len(c.due) {
		return fmt.Errorf("%d answers to %d requests", answers, len(c.due))
	}
	for _, due := range c.due[:answers] {
		p.took = append(p.took, now-due)
	}
	c.due = slices.Delete(c.due, 0, answers)
	return nil
}

// countAnswers counts the whole answers in b and returns what is left of it.
func countAnswers(b []byte) (answers int, rest []byte) {
	rest = b
	for {
		_, body, whole := bytes.Cut(rest, []byte("\r\n\r\n"))
		end := bytes.IndexByte(body, '\n')
		if !whole || end < 0 {
			return answers, append(b[:0], rest...)
		}
		answers, rest = answers+1, body[end+1:]
	}
}

func (p *pacer) result(elapsed time.Duration) paced {
	slices.Sort(p.took)
	at := func(q float64) float64 {
		return float64(p.took[int(q*float64(len(p.took)-1))]) / float64(time.Microsecond)
	}
	return paced{Requests: len(p.took), Rate: float64(len(p.took)) / elapsed.Seconds(), P50: at(0.5), P99: at(0.99), Max: at(1)}
}

// epollWait is epoll_pwait2(2), which unlike epoll_wait counts in nanoseconds.
func epollWait(fd int, events []unix.EpollEvent, wait time.Duration) (int, error) {
	ts := unix.NsecToTimespec(int64(wait))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, os.NewSyscallError("epoll_pwait2", errno)
}
