package stack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// The shape of a txRing, in bytes. A slot holds a frame of a device with an
// MTU of 1500; its odd number of cache lines spreads slots over the L1 sets.
const (
	slotSize      = 1600
	slotHeader    = 32 // struct tpacket2_hdr
	ringBlock     = 64 << 10
	ringBlocks    = 8
	slotsPerBlock = ringBlock / slotSize
	ringSlots     = ringBlocks * slotsPerBlock // five batches: a network card gives slots back late
)

// A txRing hands small frames to one device in memory that it shares with the
// kernel (PACKET_TX_RING): one system call for all, which need not fetch each
// frame's description. The kernel takes slots in their order and gives a slot
// back when the device is done with the frame.
type txRing struct {
	socket  *linkSocket
	ifindex int // of the device; 0: of none, -1: the kernel does not let us
	mem     []byte
	next    int  // slot of the next frame
	pending int  // frames that the kernel has not been told of
	batched bool // frames for the device wait in the frameBatch, and later ones must not overtake them
}

// openRing opens a ring that has no device yet.
func openRing() (*txRing, error) {
	s, err := openLinkSocket()
	if err != nil {
		return nil, err
	}
	return &txRing{socket: s}, nil
}

// attach makes r the ring of a device.
func (r *txRing) attach(ifindex int) error {
	if r.mem == nil {
		if err := r.allocate(); err != nil {
			return err
		}
	}
	if err := unix.Bind(r.socket.fd, &unix.SockaddrLinklayer{Ifindex: ifindex}); err != nil {
		return fmt.Errorf("packet socket: bind: %w", err)
	}
	r.ifindex = ifindex
	return nil
}

func (r *txRing) allocate() error {
	if err := unix.SetsockoptInt(r.socket.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return fmt.Errorf("packet socket: PACKET_VERSION: %w", err)
	}
	req := unix.TpacketReq{Block_size: ringBlock, Block_nr: ringBlocks, Frame_size: slotSize, Frame_nr: ringSlots}
	if err := unix.SetsockoptTpacketReq(r.socket.fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &req); err != nil {
		return fmt.Errorf("packet socket: PACKET_TX_RING: %w", err)
	}
	mem, err := unix.Mmap(r.socket.fd, 0, ringBlock*ringBlocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("packet socket: map the ring: %w", err)
	}
	r.mem = mem
	return nil
}

func (r *txRing) close() error {
	err := r.socket.close()
	if r.mem == nil {
		return err
	}
	return errors.Join(err, unix.Munmap(r.mem))
}

// slot is slot number i, counted round the ring in either direction.
func (r *txRing) slot(i int) []byte {
	i = (i + ringSlots) % ringSlots
	off := i/slotsPerBlock*ringBlock + i%slotsPerBlock*slotSize
	return r.mem[off : off+slotSize]
}

func status(slot []byte) *uint32 { return (*uint32)(unsafe.Pointer(&slot[0])) }

// add copies a frame that is no super-packet into the ring. It says false where
// the frame is too long for a slot, or the next slot is still the device's.
func (r *txRing) add(frame []byte) bool {
	s := r.slot(r.next)
	if len(frame) > slotSize-slotHeader || atomic.LoadUint32(status(s)) != unix.TP_STATUS_AVAILABLE {
		return false
	}
	copy(s[slotHeader:], frame)
	// All of it counts as header: so the kernel copies it and the slot is not
	// shared with whoever gets the packet.
	binary.NativeEndian.PutUint16(s[slotHeader+2:], uint16(len(frame)-packet.VNetLen))
	binary.NativeEndian.PutUint32(s[4:], uint32(len(frame)))
	atomic.StoreUint32(status(s), unix.TP_STATUS_SEND_REQUEST)
	r.next = (r.next + 1) % ringSlots
	r.pending++
	return true
}

// send has the kernel take the pending frames. It stops at the first that it
// does not take; that one and those behind it are refused.
func (r *txRing) send() (sent, refused int) {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(r.socket.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	for refused < r.pending {
		st := atomic.LoadUint32(status(r.slot(r.next - 1 - refused)))
		if st != unix.TP_STATUS_SEND_REQUEST && st != unix.TP_STATUS_WRONG_FORMAT {
			break
		}
		refused++
	}
	sent = r.pending - refused
	r.pending = 0
	if errno == unix.ENXIO {
		r.ifindex = 0 // the device is gone
	}
	return sent, refused
}

// refusedFrame is number i of n refused frames.
func (r *txRing) refusedFrame(i, n int) []byte {
	s := r.slot(r.next - n + i)
	return s[slotHeader : slotHeader+binary.NativeEndian.Uint32(s[4:])]
}

// takeBack empties the slots of n refused frames.
func (r *txRing) takeBack(n int) {
	for range n {
		r.next = (r.next - 1 + ringSlots) % ringSlots
		atomic.StoreUint32(status(r.slot(r.next)), unix.TP_STATUS_AVAILABLE)
	}
}
