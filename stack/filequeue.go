package stack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A fileQueue is a queue of a TUN device, as a file that never blocks.
//
// Read and Write are raw system calls: they return within microseconds, so the
// Go scheduler need not hear of them. Wait may take for ever and tells it, but
// not at once.
type fileQueue struct {
	fd   int
	wake int // an eventfd; readable once Wake was called
}

func newFileQueue(fd int) (*fileQueue, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &fileQueue{fd: fd, wake: wake}, nil
}

// Read implements Queue.
func (q *fileQueue) Read(b []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(q.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
			continue
		case unix.EBADFD:
			return 0, errRemoved
		}
		return 0, errno
	}
}

// errRemoved says that somebody else ended the device, which only a new start
// can make again. It is an EBADFD still, which for a decapsulator is the end that
// realserver undo makes.
var errRemoved = fmt.Errorf("the device was removed by another program; start uvs again (%w)", unix.EBADFD)

// Write implements Queue.
func (q *fileQueue) Write(b []byte) error {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(q.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}

// attentive is the longest that Wait waits without telling the Go scheduler.
// While packets come more often than that, the scheduler would take the
// processor away from the waiting thread and give it back for each of them, and
// its monitor would wake up every 20 microseconds to do so: a quarter of the
// director's CPU time under HTTP requests.
//
// Usually it is not so long: who needs the processor, be it for a collection of
// garbage or because the goroutine has had it for 10 ms, interrupts the thread
// by a signal. It is so long because the kernel arms the machine's timer for a
// wait that ends before its next tick, and again when a packet ends it: on a
// virtual machine a microsecond and more of every wake-up.
const attentive = 100 * time.Millisecond

// Wait implements Queue.
func (q *fileQueue) Wait() error {
	fds := [2]unix.PollFd{{Fd: int32(q.fd), Events: unix.POLLIN}, {Fd: int32(q.wake), Events: unix.POLLIN}}
	timeout := unix.NsecToTimespec(int64(attentive))
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), uintptr(len(fds)),
		uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
	var err error
	switch {
	case errno == unix.EINTR, errno == 0 && n == 0:
		_, err = unix.Ppoll(fds[:], nil, nil)
	case errno != 0:
		err = errno
	}
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for a packet: %w", err)
	}
	if err != nil || fds[1].Revents == 0 {
		return nil
	}
	var count [8]byte
	if _, err := unix.Read(q.wake, count[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("wait for a packet: %w", err)
	}
	return nil
}

// Wake implements Queue.
func (q *fileQueue) Wake() error {
	_, err := unix.Write(q.wake, binary.NativeEndian.AppendUint64(nil, 1))
	return err
}

func (q *fileQueue) close() error { return errors.Join(unix.Close(q.fd), unix.Close(q.wake)) }
