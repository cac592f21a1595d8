package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

const (
	vnetLen      = 10 // virtio-net header in front of each captured frame
	maxFrame     = 1 << 16
	maxCaptured  = 4096    // frames that a capture keeps: tests look at the start of a flow
	captureQueue = 8 << 20 // bytes of socket buffer: bursts of super-packets before the reader runs
)

// A Frame is a packet as it crossed an interface.
type Frame struct {
	Time time.Time
	Out  bool // the host sent it; otherwise it received it
	Data []byte
	// GSOSize is the payload of each packet that a super-packet stands for, in bytes; 0 for a plain one.
	GSOSize int
	// PartialChecksum says that the transport checksum was left to the device.
	PartialChecksum bool
}

// Packet decodes the frame. Interfaces without link addresses, such as a TUN
// device, have frames that begin with the IP header.
func (f *Frame) Packet(linkless bool) gopacket.Packet {
	var first gopacket.Decoder = layers.LayerTypeEthernet
	if linkless {
		first = layers.LayerTypeIPv4
		if len(f.Data) > 0 && f.Data[0]>>4 == 6 {
			first = layers.LayerTypeIPv6
		}
	}
	return gopacket.NewPacket(f.Data, first, gopacket.Default)
}

// A Capture records what crosses one interface, from the return of
// Host.Capture to Stop.
type Capture struct {
	file *os.File
	done chan struct{}

	mu     sync.Mutex
	frames []Frame
	more   int // frames that were not kept
}

// Capture records the frames of an interface; filter, which may be nil, says
// which to keep.
func (h *Host) Capture(dev string, filter func(*Frame) bool) (*Capture, error) {
	c := &Capture{done: make(chan struct{})}
	if err := h.Do(func() (err error) {
		c.file, err = packetSocket(dev)
		return err
	}); err != nil {
		return nil, fmt.Errorf("lab: capture on %s of %s: %w", dev, h.Name, err)
	}
	go c.read(filter)
	h.lab.atClose(func() { c.Stop() })
	return c, nil
}

func packetSocket(dev string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "packet:"+dev)
	if err := openPacketSocket(fd, dev); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func openPacketSocket(fd int, dev string) error {
	ifr, err := unix.NewIfreq(dev)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureQueue); err != nil {
		return err
	}
	every := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: every, Ifindex: int(ifr.Uint32())})
}

// read keeps frames until Stop, and then those that have crossed but are
// still in the socket's queue.
func (c *Capture) read(filter func(*Frame) bool) {
	defer close(c.done)
	defer c.file.Close()
	conn, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, vnetLen+maxFrame)
	take := func(fd uintptr) (more bool) {
		n, from, err := unix.Recvfrom(int(fd), buf, 0)
		if err != nil || n < vnetLen {
			return err != unix.EAGAIN // ENETDOWN: the interface is going
		}
		c.add(buf[:n], from, filter)
		return true
	}
	for err == nil {
		err = conn.Read(func(fd uintptr) bool { return take(fd) })
	}
	conn.Control(func(fd uintptr) {
		for take(fd) {
		}
	})
}

// add decodes a frame with its virtio-net header and keeps it if it is wanted.
func (c *Capture) add(b []byte, from unix.Sockaddr, filter func(*Frame) bool) {
	f := Frame{
		Time:            time.Now(),
		Data:            b[vnetLen:],
		PartialChecksum: b[0]&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0,
		GSOSize:         int(binary.NativeEndian.Uint16(b[4:])),
	}
	if ll, ok := from.(*unix.SockaddrLinklayer); ok {
		f.Out = ll.Pkttype == unix.PACKET_OUTGOING
	}
	if filter != nil && !filter(&f) {
		return
	}
	f.Data = slices.Clone(f.Data)
	c.keep(f)
}

func (c *Capture) keep(f Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.frames) == maxCaptured {
		c.more++
		return
	}
	c.frames = append(c.frames, f)
}

// Frames are the frames kept up to now, in the order in which they crossed.
func (c *Capture) Frames() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frames[:len(c.frames):len(c.frames)]
}

// Wait returns the first frame, past or to come, for which match is true.
func (c *Capture) Wait(ctx context.Context, what string, match func(*Frame) bool) (Frame, error) {
	var found Frame
	seen := 0
	err := Wait(ctx, what, func() error {
		frames := c.Frames()
		for ; seen < len(frames); seen++ {
			if match(&frames[seen]) {
				found = frames[seen]
				return nil
			}
		}
		return fmt.Errorf("none of %d frames", seen)
	})
	return found, err
}

// Stop ends the capture and returns what it kept: everything that crossed
// before. It may be called more than once.
func (c *Capture) Stop() []Frame {
	c.file.SetReadDeadline(time.Now())
	<-c.done
	return c.Frames()
}

// WriteFile writes the frames kept up to now as a pcap file of the given link
// type, layers.LinkTypeEthernet or, for a TUN device, layers.LinkTypeRaw.
func (c *Capture) WriteFile(name string, link layers.LinkType) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := pcapgo.NewWriter(f)
	if err := w.WriteFileHeader(maxFrame, link); err != nil {
		return err
	}
	for _, frame := range c.Frames() {
		info := gopacket.CaptureInfo{Timestamp: frame.Time, CaptureLength: len(frame.Data), Length: len(frame.Data)}
		if err := w.WritePacket(info, frame.Data); err != nil {
			return err
		}
	}
	return f.Close()
}
