package main

import (
	"context"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Small UDP packets: sendUDP sends as fast as one core lets it, over many
// flows by the host's own UDP sockets, and sinkUDP counts what arrives.

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// udpBatch is how many packets one system call sends or receives.
const udpBatch = 32

// messages makes a batch of one-buffer messages of size bytes each.
func messages(size int) []mmsghdr {
	msgs := make([]mmsghdr, udpBatch)
	for i := range msgs {
		iov := &unix.Iovec{Base: &make([]byte, size)[0]}
		iov.SetLen(size)
		msgs[i].hdr.Iov = iov
		msgs[i].hdr.SetIovlen(1)
	}
	return msgs
}

// udpSent is what sendUDP prints.
type udpSent struct {
	Packets uint64
	Seconds float64
}

func sendUDP(args []string) error {
	fs := flag.NewFlagSet(workerSend, flag.ContinueOnError)
	flows := fs.Int("flows", 256, "sockets, each with a port of its own")
	size := fs.Int("size", 64, "payload bytes")
	length := fs.Duration("for", time.Second, "how long to send")
	if err := fs.Parse(args); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(fs.Arg(0))
	if err != nil {
		return err
	}
	fds, err := connectUDP(to, *flows)
	if err != nil {
		return err
	}
	msgs := messages(*size)
	var sent udpSent
	start := time.Now()
	for end := start.Add(*length); time.Now().Before(end); {
		for _, fd := range fds {
			n, err := sendmmsg(fd, msgs)
			if err != nil {
				return err
			}
			sent.Packets += uint64(n)
		}
	}
	sent.Seconds = time.Since(start).Seconds()
	runtime.KeepAlive(msgs)
	return json.NewEncoder(os.Stdout).Encode(sent)
}

func connectUDP(to netip.AddrPort, flows int) ([]int, error) {
	fds := make([]int, flows)
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("socket", err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
			return nil, os.NewSyscallError("connect", err)
		}
		fds[i] = fd
	}
	return fds, nil
}

// sendmmsg sends a batch and says how much of it went out. What a full queue
// or a refusal of an earlier packet keeps back is not sent and not counted.
func sendmmsg(fd int, msgs []mmsghdr) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), 0, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.ENOBUFS, unix.EAGAIN, unix.EINTR, unix.ECONNREFUSED:
		return 0, nil
	}
	return 0, os.NewSyscallError("sendmmsg", errno)
}

// udpReceived is what sinkUDP prints.
type udpReceived struct {
	Packets uint64
	Dropped uint64 // arrived at the real server, but its socket's queue was full
}

// sinkUDP counts what arrives on a port until SIGTERM.
func sinkUDP(args []string) error {
	fs := flag.NewFlagSet(workerSink, flag.ContinueOnError)
	port := fs.Int("port", 0, "to listen on")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	// Enough for 100 ms at a million packets a second, as the kernel counts them (768 bytes each).
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return os.NewSyscallError("SO_RCVBUFFORCE", err)
	}
	before, err := receiveDrops()
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: *port}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	var got udpReceived
	if got.Packets, err = receiveAll(ctx, fd); err != nil {
		return err
	}
	after, err := receiveDrops()
	if err != nil {
		return err
	}
	got.Dropped = after - before
	return json.NewEncoder(os.Stdout).Encode(got)
}

// sinkRest is the pause of the sink when its queue is empty. It polls, since
// to be woken for each packet would cost the side that delivers more than the
// packet itself.
const sinkRest = 200 * time.Microsecond

func receiveAll(ctx context.Context, fd int) (packets uint64, err error) {
	msgs := messages(2048)
	defer runtime.KeepAlive(msgs)
	for ctx.Err() == nil {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			packets += uint64(n)
		case unix.EAGAIN:
			time.Sleep(sinkRest)
		case unix.EINTR:
		default:
			return packets, os.NewSyscallError("recvmmsg", errno)
		}
	}
	return packets, nil
}

// receiveDrops reads how many UDP packets of this namespace found their socket's queue full.
func receiveDrops() (uint64, error) {
	snmp, err := os.ReadFile("/proc/self/net/snmp")
	if err != nil {
		return 0, err
	}
	return snmpCounter(string(snmp), "Udp", "RcvbufErrors")
}
