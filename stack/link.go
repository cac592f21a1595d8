package stack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

const (
	ethLen    = 14                      // an Ethernet header without a tag
	frameRoom = packet.VNetLen + ethLen // what stands in front of the packet in a frame

	// maxFrames is the most frames that one system call sends.
	maxFrames = 64

	// sendBuffer is the most bytes of frames under way in a packet socket, as
	// the kernel charges them: some dozens of super-packets, milliseconds at
	// the speed of any device.
	sendBuffer = 8 << 20
)

// A linkSocket sends frames by a packet socket. It receives nothing. The queue
// that owns it sends batches without a lock; frames that waited are sent one
// by one from other goroutines, which may outlive the queue.
type linkSocket struct {
	fd int

	mu     sync.Mutex
	closed bool // guarded by mu
}

func openLinkSocket() (*linkSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("packet socket: missing capability NET_RAW: run as root; in a container, start it with --cap-add NET_ADMIN --cap-add NET_RAW: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("packet socket: PACKET_VNET_HDR: %w", err)
	}
	// Beyond net.core.wmem_max only with NET_ADMIN over the host; less is slower, not wrong.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("packet socket: SO_SNDBUF: %w", err)
		}
	}
	return &linkSocket{fd: fd}, nil
}

func (s *linkSocket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return unix.Close(s.fd)
}

// sendOne sends one frame. Anybody may call it at any time.
func (s *linkSocket) sendOne(frame []byte, ifindex int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	a := &unix.SockaddrLinklayer{Protocol: frameType(frame), Ifindex: ifindex, Halen: 6}
	copy(a.Addr[:6], frame[packet.VNetLen:])
	return unix.Sendto(s.fd, frame, unix.MSG_DONTWAIT, a)
}

// putFrame writes the virtio-net and Ethernet header of p into its headroom
// and returns the frame.
func putFrame(p *packet.Packet, src, dst MAC) []byte {
	buf, start, end := p.Buffer()
	f := buf[start-frameRoom : end]
	p.PutVNet(f[:packet.VNetLen], ethLen)
	copy(f[packet.VNetLen:], dst[:])
	copy(f[packet.VNetLen+6:], src[:])
	binary.BigEndian.PutUint16(f[packet.VNetLen+12:], etherType(f[frameRoom]))
	return f
}

// etherType is the type of an IP packet with this first byte.
func etherType(first byte) uint16 {
	if first>>4 == packet.IPv6 {
		return unix.ETH_P_IPV6
	}
	return unix.ETH_P_IP
}

// frameType is the EtherType of a frame as the kernel wants it: in network
// order, as it stands there.
func frameType(frame []byte) uint16 { return binary.NativeEndian.Uint16(frame[packet.VNetLen+12:]) }

type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// A frameBatch collects frames for one system call. The frames' bytes stay
// their owner's and must not change before flush.
type frameBatch struct {
	socket *linkSocket
	n      int
	msgs   [maxFrames]mmsghdr
	iovs   [maxFrames]unix.Iovec
	addrs  [maxFrames]unix.RawSockaddrLinklayer
}

func newFrameBatch(s *linkSocket) *frameBatch {
	b := &frameBatch{socket: s}
	for i := range b.msgs {
		b.addrs[i] = unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Halen: 6}
		b.iovs[i] = unix.Iovec{}
		b.msgs[i].hdr = unix.Msghdr{
			Name: (*byte)(unsafe.Pointer(&b.addrs[i])), Namelen: unix.SizeofSockaddrLinklayer,
			Iov: &b.iovs[i],
		}
		b.msgs[i].hdr.SetIovlen(1)
	}
	return b
}

func (b *frameBatch) full() bool { return b.n == maxFrames }

// add puts a frame into the batch, which must not be full.
func (b *frameBatch) add(frame []byte, ifindex int) {
	a := &b.addrs[b.n]
	a.Ifindex = int32(ifindex)
	a.Protocol = frameType(frame)
	copy(a.Addr[:6], frame[packet.VNetLen:])
	iov := &b.iovs[b.n]
	iov.Base = &frame[0]
	iov.SetLen(len(frame))
	b.n++
}

// flush sends all frames and empties the batch. It says how many the kernel
// took; a frame that it refuses does not hold up those behind it.
func (b *frameBatch) flush() (sent int) {
	waited := false
	for i := 0; i < b.n; {
		n, errno := b.sendFrom(i)
		switch {
		case errno == 0:
			sent += n
			i += n
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && !waited:
			waited = true // once per batch
			b.socket.waitWritable()
		default:
			i++ // refused: too long for the device, device down, queue full
		}
	}
	b.n = 0
	return sent
}

// sendFrom sends frames from number i on and says how many the kernel took
// before the first that it refused. A single one goes by sendto, which costs a
// sixth less than sendmmsg does for one.
func (b *frameBatch) sendFrom(i int) (int, unix.Errno) {
	if i == b.n-1 {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(b.socket.fd),
			uintptr(unsafe.Pointer(b.iovs[i].Base)), uintptr(b.iovs[i].Len), unix.MSG_DONTWAIT,
			uintptr(unsafe.Pointer(&b.addrs[i])), unix.SizeofSockaddrLinklayer)
		return 1, errno
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(b.socket.fd),
		uintptr(unsafe.Pointer(&b.msgs[i])), uintptr(b.n-i), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// waitWritable waits until the device has sent some of what the socket gave
// it, at most a millisecond: then the rest is dropped, as a router drops what
// its link cannot carry.
func (s *linkSocket) waitWritable() {
	fds := [1]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
	_, _ = unix.Ppoll(fds[:], &unix.Timespec{Nsec: 1e6}, nil) // whatever happened, the next send tells
}
