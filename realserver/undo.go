package realserver

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An undoStack holds what takes back each step done so far.
type undoStack struct{ steps []func() error }

func (s *undoStack) push(step func() error) { s.steps = append(s.steps, step) }

// pop takes back the last step.
func (s *undoStack) pop() error {
	last := s.steps[len(s.steps)-1]
	s.steps = s.steps[:len(s.steps)-1]
	return last()
}

// all takes back every step, the last first.
func (s *undoStack) all() error {
	var errs []error
	for len(s.steps) > 0 {
		errs = append(errs, s.pop())
	}
	return errors.Join(errs...)
}

// Undo takes back what Setup made for vips, for all VIPs where there are none
// given, in this run or in an earlier one. Settings and tunnels go with the
// last VIP. What is not there is no error. It says what it did, a line each.
func Undo(vips []netip.Addr) (did []string, err error) {
	lo, err := loopback()
	if err != nil {
		return nil, err
	}
	list, err := onLoopback(lo)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range list {
		if wanted := slices.Contains(vips, a.ip) || len(vips) == 0 && a.ours; !wanted {
			continue
		}
		if err := removeVIP(lo, a.ip); err != nil {
			errs = append(errs, err)
			continue
		}
		did = append(did, fmt.Sprintf("VIP %v removed from lo", a.ip))
	}
	// Looked up anew, as another Undo may run beside this one: the one that
	// removes the last VIP finds none left.
	if list, err = onLoopback(lo); err != nil {
		return did, errors.Join(append(errs, err)...)
	}
	if slices.ContainsFunc(list, func(a address) bool { return a.ours }) {
		return did, errors.Join(errs...)
	}
	more, err := undoHost(lo)
	return append(did, more...), errors.Join(append(errs, err)...)
}

// undoHost takes back everything but the VIPs.
func undoHost(lo netlink.Link) (did []string, err error) {
	k, err := netlink.NewHandle()
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer k.Close()
	var errs []error
	r, foreign := readRecord(lo)
	for _, port := range r.guePorts() {
		for _, f := range fous(port) {
			if err := k.FouDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("close GUE on UDP port %d: %w", port, explain(err)))
			}
		}
		did = append(did, fmt.Sprintf("GUE on UDP port %d closed", port))
	}
	for _, link := range ourKernelDevices(k) {
		if err := removeKernelDevice(k, link); err != nil {
			errs = append(errs, err)
			continue
		}
		did = append(did, fmt.Sprintf("tunnel device %s taken out of use", link.Attrs().Name))
	}
	if link, err := k.LinkByName(DefaultDevice); err == nil && link.Type() == "tuntap" {
		if err := k.LinkDel(link); err != nil {
			errs = append(errs, fmt.Errorf("remove TUN device %s: %w", DefaultDevice, explain(err)))
		} else {
			did = append(did, fmt.Sprintf("TUN device %s removed, which ends its uvs realserver", DefaultDevice))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r)) {
		link, name, isSetting := strings.Cut(key, "/")
		if !isSetting {
			continue
		}
		s := setting{link: link, name: name, value: r[key]}
		err := s.write()
		if errors.Is(err, fs.ErrNotExist) {
			continue // the interface is gone, its settings with it
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		did = append(did, fmt.Sprintf("%s set back to %d", s.sysctl(), s.value))
	}
	if len(r) > 0 && errors.Join(errs...) == nil {
		errs = append(errs, writeRecord(lo, foreign, nil))
	}
	return did, errors.Join(errs...)
}
