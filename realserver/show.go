package realserver

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// A State is what makes this host a real server at present.
type State struct {
	VIPs     []VIP
	Settings []SettingState
	Tunnels  []string // what unpacks, in words; empty for a real server of dr
}

// A VIP is an address on the loopback.
type VIP struct {
	Addr netip.Addr
	Ours bool // Setup made it; Undo without a VIP removes only those
}

// A SettingState is the state of a setting that Setup sees to.
type SettingState struct {
	Name   string // as sysctl(8) has it
	Value  int
	Want   int // at least
	Before int // what Undo sets it back to, if Ours
	Ours   bool
}

// Show says what there is. It changes nothing and needs no privilege.
func Show() (State, error) {
	lo, err := loopback()
	if err != nil {
		return State{}, err
	}
	list, err := onLoopback(lo)
	if err != nil {
		return State{}, err
	}
	var s State
	for _, a := range list {
		s.VIPs = append(s.VIPs, VIP{Addr: a.ip, Ours: a.ours})
	}
	r, _ := readRecord(lo)
	s.Settings, err = settings(r, len(s.VIPs) > 0)
	errs := []error{err}
	s.Tunnels, err = tunnels(r)
	return s, errors.Join(append(errs, err)...)
}

// settings are those of all interfaces. Where one is too low and there are
// VIPs, it is up to each interface's own.
func settings(r record, inUse bool) ([]SettingState, error) {
	var states []SettingState
	var errs []error
	add := func(s setting) bool {
		value, err := s.current()
		if err != nil {
			errs = append(errs, err)
			return false
		}
		before, ours := r[s.key()]
		states = append(states, SettingState{Name: s.sysctl(), Value: value, Want: s.value, Before: before, Ours: ours})
		return value >= s.value
	}
	names, err := askingLinks()
	errs = append(errs, err)
	for _, s := range arpSettings {
		if add(s) || !inUse || len(names) == 0 {
			continue
		}
		states = states[:len(states)-1]
		for _, s.link = range names {
			add(s)
		}
	}
	return states, errors.Join(errs...)
}

// tunnels says what unpacks.
func tunnels(r record) ([]string, error) {
	k, err := netlink.NewHandle()
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer k.Close()
	var words []string
	for _, link := range ourKernelDevices(k) {
		words = append(words, fmt.Sprintf("kernel device %s", link.Attrs().Name))
	}
	for _, port := range r.guePorts() {
		words = append(words, fmt.Sprintf("kernel GUE on UDP port %d", port))
	}
	if _, err := k.LinkByName(DefaultDevice); err == nil {
		words = append(words, fmt.Sprintf("uvs realserver, TUN device %s", DefaultDevice))
	}
	return words, nil
}
