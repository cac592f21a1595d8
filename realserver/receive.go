package realserver

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// batchSize is how many packets one system call receives at most: about what
// fits into a super-packet of 64 KiB at an MTU of 1500.
const batchSize = 48

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// controlLen holds one control message with an int: the traffic class.
const controlLen = 24

// A batch receives several tunnel packets by one system call, each into a
// buffer with packet.Headroom in front and room behind it to take the payload
// of others.
type batch struct {
	packets [batchSize]packet.Packet
	buffers [batchSize][]byte
	msgs    [batchSize]mmsghdr
	iovs    [batchSize]unix.Iovec
	control [batchSize][controlLen]byte
}

func newBatch() *batch {
	b := &batch{}
	for i := range b.buffers {
		b.buffers[i] = make([]byte, packet.Headroom+packet.MaxSize)
		b.iovs[i].Base = &b.buffers[i][packet.Headroom]
		b.iovs[i].SetLen(packet.MaxSize)
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
		b.msgs[i].hdr.Control = &b.control[i][0]
	}
	return b
}

// receive waits for packets on s and gives how many there are. It returns
// os.ErrClosed when s is closed.
func (b *batch) receive(s *socket) (n int, err error) {
	for i := range b.msgs {
		b.msgs[i].hdr.SetControllen(controlLen)
	}
	var errno unix.Errno
	err = s.conn.Read(func(fd uintptr) bool {
		for {
			var r uintptr
			r, _, errno = unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.msgs[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
			if n = int(r); errno != unix.EINTR {
				return errno != unix.EAGAIN
			}
		}
	})
	if err != nil {
		return 0, err
	}
	if errno != 0 {
		return 0, fmt.Errorf("%s: receive: %w", s.file.Name(), errno)
	}
	return n, nil
}

// at is the i-th packet received, without its outer IP header, and the
// traffic class that stood there. Whether there was any IP header before is for
// the socket to know.
func (b *batch) at(i int, header bool) (p *packet.Packet, class uint8) {
	p = &b.packets[i]
	start, end := packet.Headroom, packet.Headroom+int(b.msgs[i].len)
	if header { // the kernel has verified it
		ip := b.buffers[i][start:end]
		class = ip[1]
		start += int(ip[0]&0x0f) * 4
	} else {
		class = trafficClass(b.control[i][:b.msgs[i].hdr.Controllen])
	}
	p.Reset(b.buffers[i], start, end)
	return p, class
}

// trafficClass reads the control message that a socket with IP_RECVTOS (a
// byte) or IPV6_RECVTCLASS (an int) gives; 0 if there is none.
func trafficClass(control []byte) uint8 {
	if len(control) < unix.SizeofCmsghdr+1 {
		return 0
	}
	data := control[unix.SizeofCmsghdr:]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if h.Level == unix.IPPROTO_IPV6 && len(data) >= 4 {
		return uint8(*(*int32)(unsafe.Pointer(&data[0])))
	}
	return data[0]
}
