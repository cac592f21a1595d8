package lab

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The commands of SIOCETHTOOL that switch what a device does for the kernel
// (Linux include/uapi/linux/ethtool.h).
var offloads = []struct {
	name    string
	command uint32
}{
	{"tso", 0x1f},
	{"gso", 0x24},
	{"gro", 0x2c},
	{"tx", 0x17}, // last: switching tx off takes what builds upon it along
}

// Offload switches an interface's checksum and segmentation offloads (ethtool's
// tx, tso, gso and gro). Off, every packet on the wire is one of at most MTU
// bytes with a complete checksum, as with a simple network card.
func (h *Host) Offload(dev string, on bool) *Host {
	for i := range offloads {
		o := offloads[i]
		if on {
			o = offloads[len(offloads)-1-i]
		}
		h.lab.draw(fmt.Sprintf("%s: offload %s of %s", h.Name, o.name, dev), func() error {
			return h.ethtool(dev, o.command, on)
		})
	}
	return h
}

func (h *Host) ethtool(dev string, command uint32, on bool) error {
	value := struct{ command, data uint32 }{command: command}
	if on {
		value.data = 1
	}
	var request struct { // struct ifreq with its pointer member
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte
	}
	copy(request.name[:unix.IFNAMSIZ-1], dev)
	request.data = unsafe.Pointer(&value)
	return h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
		if errno != 0 {
			return errno
		}
		return nil
	})
}
