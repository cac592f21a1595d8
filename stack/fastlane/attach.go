package fastlane

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Where the program stands among the filters of a device whose kernel has no
// tcx: any number does that is ours.
const (
	filterPriority = 9740
	filterName     = "uvs_lane"
)

// ports are the devices at whose ingress the program runs.
type ports struct {
	mu       sync.Mutex
	attached map[int]port // by index; guarded by mu
}

// A port is an attachment that can be told to be still there, and undone.
type port interface {
	alive() bool
	close() error
}

// ErrRemoved says that somebody has removed the program from a device.
var ErrRemoved = errors.New("somebody has removed the program, packets took the TUN road; it is attached anew")

// Attach makes the program run at the ingress of exactly these devices, by
// their index, and attaches it anew where somebody has removed it, which an
// ErrRemoved tells. It goes on after a device that fails; the errors name the
// devices.
func (l *Lane) Attach(devices []int) error {
	l.ports.mu.Lock()
	defer l.ports.mu.Unlock()
	if l.ports.attached == nil {
		l.ports.attached = map[int]port{}
	}
	var errs []error
	for index, p := range l.ports.attached {
		wanted := slices.Contains(devices, index)
		if wanted && p.alive() {
			continue
		}
		if wanted {
			errs = append(errs, fmt.Errorf("%s: %w", nameOf(index), ErrRemoved))
		}
		_ = p.close() // of a device that is gone, or by somebody who was quicker
		delete(l.ports.attached, index)
	}
	for _, index := range devices {
		if l.ports.attached[index] != nil {
			continue
		}
		p, err := attach(l.objects.Lane, index)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", nameOf(index), err))
			continue
		}
		l.ports.attached[index] = p
	}
	return errors.Join(errs...)
}

// nameOf is the name of a device.
func nameOf(index int) string {
	dev, err := net.InterfaceByIndex(index)
	if err != nil {
		return fmt.Sprintf("device %d", index)
	}
	return dev.Name
}

func (p *ports) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for index, a := range p.attached {
		if err := a.close(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", nameOf(index), err))
		}
		delete(p.attached, index)
	}
	return errors.Join(errs...)
}

// attach prefers tcx (Linux 6.6), which the kernel undoes by itself when the
// process ends.
func attach(prog *ebpf.Program, index int) (port, error) {
	x, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: prog, Attach: ebpf.AttachTCXIngress})
	if err == nil {
		return tcx{x, index}, nil
	}
	if !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("tcx: %w", err)
	}
	return attachFilter(prog, index)
}

type tcx struct {
	link  link.Link
	index int
}

func (t tcx) alive() bool {
	info, err := t.link.Info()
	if err != nil {
		return false
	}
	x := info.TCX()
	return x != nil && int(x.Ifindex) == t.index
}

func (t tcx) close() error { return t.link.Close() }

// A filter is the program at a clsact queueing discipline.
type filter struct {
	filter *netlink.BpfFilter
	qdisc  netlink.Qdisc // ours to remove; nil where it was there before
}

func attachFilter(prog *ebpf.Program, index int) (port, error) {
	qdisc := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
	f := &filter{qdisc: qdisc}
	switch err := netlink.QdiscAdd(qdisc); {
	case errors.Is(err, os.ErrExist):
		f.qdisc = nil
	case err != nil:
		return nil, fmt.Errorf("clsact: %w", err)
	}
	f.filter = &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1,
			Priority: filterPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: prog.FD(), Name: filterName, DirectAction: true,
	}
	// Replaces what a killed uvs has left.
	if err := netlink.FilterReplace(f.filter); err != nil {
		return nil, errors.Join(fmt.Errorf("filter: %w", err), f.removeQdisc())
	}
	return f, nil
}

func (f *filter) alive() bool { return f.any(ours) }

// any says whether a filter at the ingress of f's device fulfils is.
func (f *filter) any(is func(netlink.Filter) bool) bool {
	dev, err := netlink.LinkByIndex(f.filter.LinkIndex)
	if err != nil {
		return false
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		all, err := netlink.FilterList(dev, parent)
		if err == nil && slices.ContainsFunc(all, is) {
			return true
		}
	}
	return false
}

func ours(f netlink.Filter) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && b.Name == filterName && b.Priority == filterPriority
}

// Clean removes the filters that a killed uvs has left at any device, and says
// how many there were. What was attached by tcx has gone by itself. The clsact
// stays: whose it is nobody can tell, and without filters it does nothing.
func Clean() (removed int, err error) {
	devices, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return 0, fmt.Errorf("list the devices: %w", err)
	}
	var errs []error
	for _, dev := range devices {
		filters, err := netlink.FilterList(dev, netlink.HANDLE_MIN_INGRESS)
		if err != nil {
			continue // it is gone, or can have none
		}
		for _, f := range filters {
			if !ours(f) {
				continue
			}
			if err := netlink.FilterDel(f); err != nil && !gone(err) {
				errs = append(errs, fmt.Errorf("device %s: filter %s of a killed uvs: %w", dev.Attrs().Name, filterName, err))
				continue
			}
			removed++
		}
	}
	return removed, errors.Join(errs...)
}

// gone says whether a removal failed because somebody else was quicker.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}

func (f *filter) close() error {
	err := netlink.FilterDel(f.filter)
	if gone(err) {
		err = nil
	}
	return errors.Join(err, f.removeQdisc())
}

// removeQdisc removes a clsact that we made, unless others use it by now.
func (f *filter) removeQdisc() error {
	if f.qdisc == nil || f.any(func(o netlink.Filter) bool { return !ours(o) }) {
		return nil
	}
	err := netlink.QdiscDel(f.qdisc)
	if gone(err) {
		return nil
	}
	return err
}
