package health

import (
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A handshaker makes TCP connections only to see that they can be made: ten
// thousand checks every two seconds are five thousand connections a second. It
// has no goroutine, context or timer for each; whoever owns it looks for
// answers now and then:
//
//	begin ─► connect ─┬► look: answered or refused ─┬► disconnect ─► over
//	                  └► look: its time is over ────┘
//
// It keeps unconnected sockets for the next handshakes, and does not
// acknowledge the end of one: the reset that ends the connection comes in its
// place, so that the other side never has it to accept and to close.
type handshaker struct {
	most   int // handshakes under way at one time
	epoll  int
	events []unix.EpollEvent

	waiting []*handshake      // to be begun
	sockets map[int32]*socket // all, by descriptor
	idle    [2][]*socket      // unconnected ones with IPv4 and IPv6
	expiry  expiry            // those under way
	over    []*handshake      // since look was called
}

// A handshake is one to be made. Its maker sets the first part, and the
// handshaker the second.
type handshake struct {
	to      netip.AddrPort
	timeout time.Duration
	job     *job

	err   error
	start time.Time
	took  time.Duration // until the answer was seen
}

// A socket is used for one handshake after another.
type socket struct {
	fd       int
	family   int // 0: IPv4, 1: IPv6
	under    *handshake
	deadline time.Time // of under
	index    int       // in the expiry
}

const (
	// maxIdle is how many sockets of a family are kept: more than handshakes
	// are under way at once where real servers answer within some milliseconds.
	maxIdle = 64

	// atATime is how many handshakes begin before answers are looked for, so
	// that the first is not taken for slow because of those after it.
	atATime = 16

	// lookEvery is how often to look for answers, and so how exact the time is
	// that a handshake took. To be woken by each answer would cost more than the
	// handshake.
	lookEvery = time.Millisecond
)

func newHandshaker(most int) (*handshaker, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &handshaker{most: most, epoll: epoll, events: make([]unix.EpollEvent, 4*atATime), sockets: map[int32]*socket{}}, nil
}

// close forgets the handshakes that are not over.
func (h *handshaker) close() {
	for _, s := range h.sockets {
		unix.Close(s.fd)
	}
	unix.Close(h.epoll)
}

// begin takes handshakes to be made. They begin when look is called.
func (h *handshaker) begin(all []*handshake) { h.waiting = append(h.waiting, all...) }

// look begins the handshakes that wait, as many as may be under way, and
// returns those that are over, until it is called again. again is how soon that
// should be; below 0: there is nothing to look for.
func (h *handshaker) look() (over []*handshake, again time.Duration) {
	clear(h.over)
	h.over = h.over[:0]
	h.answers()
	for len(h.waiting) > 0 && len(h.expiry) < h.most {
		n := min(len(h.waiting), atATime, h.most-len(h.expiry))
		for _, hs := range h.waiting[:n] {
			h.connect(hs)
		}
		clear(h.waiting[:n])
		h.waiting = h.waiting[n:]
		h.answers()
	}
	if len(h.waiting) == 0 {
		h.waiting = nil // not its end only
	}
	if len(h.expiry) == 0 {
		return h.over, -1
	}
	return h.over, lookEvery
}

// answers ends the handshakes that were answered or whose time is over.
func (h *handshaker) answers() {
	for more := len(h.expiry) > 0; more; {
		n, err := unix.EpollWait(h.epoll, h.events, 0)
		if err == unix.EINTR {
			continue
		}
		now := time.Now()
		for i := range max(n, 0) {
			h.answer(&h.events[i], now)
		}
		more = n == len(h.events)
	}
	if len(h.expiry) > 0 {
		h.expire(time.Now())
	}
}

func (h *handshaker) connect(hs *handshake) {
	hs.start = time.Now()
	s, err := h.take(hs.to)
	if err != nil {
		h.finish(hs, err, hs.start)
		return
	}
	switch err := connect(s.fd, hs.to); err {
	case unix.EINPROGRESS, unix.EINTR:
		s.under, s.deadline = hs, hs.start.Add(hs.timeout)
		heap.Push(&h.expiry, s)
	default:
		h.finish(hs, os.NewSyscallError("connect", err), time.Now())
		h.put(s)
	}
}

// take is a socket that is not connected.
func (h *handshaker) take(to netip.AddrPort) (*socket, error) {
	family, domain := 0, unix.AF_INET
	if to.Addr().Is6() {
		family, domain = 1, unix.AF_INET6
	}
	if idle := h.idle[family]; len(idle) > 0 {
		h.idle[family] = idle[:len(idle)-1]
		return idle[len(idle)-1], nil
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// With it Linux holds the ACK that ends a handshake back
	// (tcp_rcv_synsent_state_process), for this and all later ones.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLET, Fd: int32(fd)}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	s := &socket{fd: fd, family: family}
	h.sockets[int32(fd)] = s
	return s, nil
}

// put keeps a socket that take gave, or closes it.
func (h *handshaker) put(s *socket) {
	s.under = nil
	if disconnect(s.fd) != nil || len(h.idle[s.family]) == maxIdle {
		delete(h.sockets, int32(s.fd))
		unix.Close(s.fd)
		return
	}
	h.idle[s.family] = append(h.idle[s.family], s)
}

// answer takes what epoll says of a socket. It speaks of those that were
// disconnected too.
func (h *handshaker) answer(ev *unix.EpollEvent, now time.Time) {
	s := h.sockets[ev.Fd]
	if s == nil || s.under == nil || ev.Events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
		return
	}
	var err error
	if ev.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		err = failure(s.fd)
	}
	h.end(s, err, now)
}

// expire ends the handshakes whose time is over.
func (h *handshaker) expire(now time.Time) {
	for len(h.expiry) > 0 && !h.expiry[0].deadline.After(now) {
		h.end(h.expiry[0], context.DeadlineExceeded, now)
	}
}

// end ends the handshake of a socket.
func (h *handshaker) end(s *socket, err error, now time.Time) {
	heap.Remove(&h.expiry, s.index)
	h.finish(s.under, err, now)
	h.put(s)
}

func (h *handshaker) finish(hs *handshake, err error, now time.Time) {
	hs.err, hs.took = err, max(0, now.Sub(hs.start))
	h.over = append(h.over, hs)
}

// connect begins a handshake, and answers with EINPROGRESS if it can.
func connect(fd int, to netip.AddrPort) error {
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], to.Port())
	if to.Addr().Is4() {
		sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: binary.NativeEndian.Uint16(port[:]), Addr: to.Addr().As4()}
		return connectRaw(fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
	}
	sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: binary.NativeEndian.Uint16(port[:]), Addr: to.Addr().As16()}
	return connectRaw(fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
}

// disconnect resets the connection of a socket, if it has one.
func disconnect(fd int) error {
	sa := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	return connectRaw(fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
}

// connectRaw spares the allocation of unix.Connect. It takes some 10 µs and does
// not wait, so the runtime is not told of it: its monitor would take the
// processor away, and spin to be in time for the next call.
func connectRaw(fd int, sa unsafe.Pointer, size uintptr) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(sa), size); errno != 0 {
		return errno
	}
	return nil
}

// failure is why a socket could not connect.
func failure(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return os.NewSyscallError("getsockopt", err)
	case n == 0:
		return errors.New("connect: the connection ended as it began")
	}
	return os.NewSyscallError("connect", unix.Errno(n))
}

// An expiry has the sockets with a handshake under way, the one that is to be
// given up first in front.
type expiry []*socket

var _ heap.Interface = (*expiry)(nil)

func (e expiry) Len() int           { return len(e) }
func (e expiry) Less(i, k int) bool { return e[i].deadline.Before(e[k].deadline) }

func (e expiry) Swap(i, k int) {
	e[i], e[k] = e[k], e[i]
	e[i].index, e[k].index = i, k
}

func (e *expiry) Push(s any) {
	s.(*socket).index = len(*e)
	*e = append(*e, s.(*socket))
}

func (e *expiry) Pop() any {
	last := len(*e) - 1
	s := (*e)[last]
	(*e)[last] = nil
	*e = (*e)[:last]
	return s
}
