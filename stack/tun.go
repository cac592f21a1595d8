package stack

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// A TUN is an open multi-queue TUN device whose packets carry a virtio-net
// header. [OpenTUN] makes a real one, [NewMemTUN] one for tests.
type TUN interface {
	// Name is the device's name.
	Name() string

	// Queues are the device's queues. The kernel spreads packets over them by
	// flow.
	Queues() []Queue

	// Close closes the queues, with which a real device vanishes. Nobody may
	// use them any more.
	Close() error
}

// A Queue is one queue of a TUN device. One goroutine at a time calls Read and
// Wait; anybody may call Write and Wake.
type Queue interface {
	// Read fills b with a virtio-net header and the packet behind it. It does
	// not wait: n is 0 where there is no packet.
	Read(b []byte) (n int, err error)

	// Write gives the kernel a virtio-net header and the packet behind it.
	Write(b []byte) error

	// Wait returns when Read may have something, or Wake was called.
	Wait() error

	// Wake lets a Wait return, the next one where none is under way.
	Wake() error
}

// TUNOptions say which device OpenTUN makes.
type TUNOptions struct {
	Name   string // empty: uvs0
	Queues int    // 0: 1
}

// maxQueues is what the kernel's tun driver takes (MAX_TAP_QUEUES).
const maxQueues = 256

// offloads are the sets of offloads asked of the kernel, the best first: the
// larger the packets that come up, the fewer of them. USO needs Linux 6.2 and
// comes for both families or not at all.
var offloads = []struct {
	name  string
	flags int
}{
	{"checksum tso uso", unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6},
	{"checksum tso", unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN},
	{"checksum", unix.TUN_F_CSUM},
	{"none", 0},
}

// A DeviceTUN is a TUN device of the kernel. It lives as long as the process
// keeps it open.
type DeviceTUN struct {
	name     string
	offloads string
	queues   []*fileQueue
}

// OpenTUN makes a TUN device, still down and without addresses, in the
// namespace of the calling thread. An error names the cause and what mends it.
func OpenTUN(o TUNOptions) (*DeviceTUN, error) {
	if o.Name == "" {
		o.Name = "uvs0"
	}
	if o.Queues == 0 {
		o.Queues = 1
	}
	if o.Queues < 0 || o.Queues > maxQueues {
		return nil, fmt.Errorf("%d queues of TUN device %s: a device has 1 to %d", o.Queues, o.Name, maxQueues)
	}
	t := &DeviceTUN{name: o.Name}
	for i := range o.Queues {
		q, err := openQueue(o.Name, i == 0)
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		t.queues = append(t.queues, q)
	}
	if err := t.setOffloads(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// openQueue attaches a new file to the device. The first one makes the device
// and refuses one that is there already, as it would be somebody else's.
func openQueue(name string, first bool) (*fileQueue, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, openError(err)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("TUN device name %q: at most %d characters", name, unix.IFNAMSIZ-1)
	}
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
	if first {
		flags |= unix.IFF_TUN_EXCL
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return nil, attachError(name, err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, packet.VNetLen); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("TUN device %s: set length of the virtio-net header: %w", name, err)
	}
	q, err := newFileQueue(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("TUN device %s: %w", name, err)
	}
	return q, nil
}

func openError(err error) error {
	const container = "in a container, start it with --device /dev/net/tun"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no /dev/net/tun: mkdir -p /dev/net && mknod /dev/net/tun c 10 200; %s: %w", container, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("/dev/net/tun may not be opened: run as root; %s: %w", container, err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("the kernel has no TUN driver loaded: modprobe tun: %w", err)
	}
	return fmt.Errorf("open /dev/net/tun: %w", err)
}

func attachError(name string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("TUN device %s: missing capability NET_ADMIN: run as root; in a container, start it with --cap-add NET_ADMIN --cap-add NET_RAW: %w", name, err)
	case errors.Is(err, unix.EBUSY):
		switch driver := driverOf(name); driver {
		case "tun":
			return fmt.Errorf("TUN device %s exists already: is another uvs running? Otherwise: ip link del %s: %w", name, name, err)
		case "":
			return fmt.Errorf("the name %s is in use: set device.name to another one: %w", name, err)
		default:
			return fmt.Errorf("the name %s is in use by a %s device: set device.name to another one: %w", name, driver, err)
		}
	case errors.Is(err, unix.EINVAL) && strings.ContainsAny(name, "/: \t\n%"):
		return fmt.Errorf("%q is no name for a device: %w", name, err)
	}
	return fmt.Errorf("TUN device %s: %w", name, err)
}

// driverOf is the name of the driver of a network device, empty where it does
// not say.
func driverOf(name string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, name)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Driver[:])
}

// setOffloads asks for the best set of offloads that the kernel has. They
// belong to the device, so one queue asks for all.
func (t *DeviceTUN) setOffloads() error {
	var err error
	for _, o := range offloads {
		if err = unix.IoctlSetInt(t.queues[0].fd, unix.TUNSETOFFLOAD, o.flags); err == nil {
			t.offloads = o.name
			return nil
		}
	}
	return fmt.Errorf("TUN device %s: set offloads: %w", t.name, err)
}

// Name implements TUN.
func (t *DeviceTUN) Name() string { return t.name }

// Offloads names what the kernel granted, for the log.
func (t *DeviceTUN) Offloads() string { return t.offloads }

// Queues implements TUN.
func (t *DeviceTUN) Queues() []Queue {
	qs := make([]Queue, len(t.queues))
	for i, q := range t.queues {
		qs[i] = q
	}
	return qs
}

// Close implements TUN.
func (t *DeviceTUN) Close() error {
	var errs []error
	for _, q := range t.queues {
		errs = append(errs, q.close())
	}
	t.queues = nil
	return errors.Join(errs...)
}
