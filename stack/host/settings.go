package host

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// A setting is one number under net/ in /proc/sys.
type setting struct {
	family uint8
	group  string // "conf" or "neigh"
	iface  string // a device, "all" or "default"
	name   string
}

func (s setting) path() string {
	return fmt.Sprintf("net/ipv%d/%s/%s/%s", s.family, s.group, s.iface, s.name)
}

// String is the name that sysctl takes; there a dot in a device's name is a slash.
func (s setting) String() string {
	return fmt.Sprintf("net.ipv%d.%s.%s.%s", s.family, s.group, strings.ReplaceAll(s.iface, ".", "/"), s.name)
}

// A need is a setting with the value that uvs works with.
type need struct {
	setting
	value int
	why   string
	guard bool // softens a side effect of the next need, and matters only if that is met
}

// settingsReader reads a setting; an error that is fs.ErrNotExist says that
// the host has no such setting.
type settingsReader interface {
	read(setting) (int, error)
}

// neededSettings is what must change for d on a host with these devices, in
// the order in which it is to be changed; announcing are those, by family, on
// which addresses are announced. What is right already is left out.
//
// Redirects need no setting: what enters by one device and leaves by the same
// passes the TUN device in between, so the kernel sees no reason to send any.
func neededSettings(device string, others []string, d *Desired, announcing map[uint8][]string, now settingsReader) ([]need, error) {
	n := needs{now: now}
	if d.has(packet.IPv4) {
		n.ipv4(device, others, d.FromVIPs)
	}
	if d.has(packet.IPv6) {
		n.ipv6(device, others)
	}
	for _, family := range [...]uint8{packet.IPv4, packet.IPv6} {
		n.lan(family, announcing[family])
	}
	return n.list, errors.Join(n.errs...)
}

type needs struct {
	now  settingsReader
	list []need
	errs []error
}

// want adds the need if the setting has another value now.
func (n *needs) want(s setting, value int, why string) {
	if v, ok := n.read(s); ok && v != value {
		n.list = append(n.list, need{setting: s, value: value, why: why})
	}
}

func (n *needs) read(s setting) (int, bool) {
	v, err := n.now.read(s)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.errs = append(n.errs, fmt.Errorf("read %s: %w", s, err))
	}
	return v, err == nil
}

func conf(family uint8, iface, name string) setting { return setting{family, "conf", iface, name} }

func (n *needs) ipv4(device string, others []string, fromVIPs bool) {
	for _, iface := range append([]string{device}, others...) {
		n.want(conf(packet.IPv4, iface, "forwarding"), 1, "packets of uvs are forwarded to and from this device")
	}
	// What counts is the larger one of all and the device. With all at 1
	// (strict) the device at 2 (loose) is what lets packets of uvs in, and all
	// can stay as it is. (On a device without an address loose is strict:
	// addDummyAddress.)
	filter := 0
	all, ok := n.read(conf(packet.IPv4, "all", "rp_filter"))
	if ok && all != 0 {
		filter = 2
	}
	n.want(conf(packet.IPv4, device, "rp_filter"), filter, "packets of uvs come from addresses that are not routed to it")
	for _, iface := range others {
		if v, ok := n.read(conf(packet.IPv4, iface, "rp_filter")); fromVIPs && ok && max(v, all) == 1 {
			n.want(conf(packet.IPv4, iface, "rp_filter"), 2, "real servers answer health checks from VIPs, which are not routed to this device")
		}
	}
	n.want(conf(packet.IPv4, device, "accept_local"), 1, "packets of a tunnel come from an address of this host")
}

func (n *needs) ipv6(device string, others []string) {
	n.want(conf(packet.IPv6, device, "disable_ipv6"), 0, "the device of uvs carries IPv6")
	all := conf(packet.IPv6, "all", "forwarding")
	if on, ok := n.read(all); !ok || on != 0 {
		return
	}
	// Forwarding turns off that a host learns its own default route from
	// router advertisements, unless accept_ra is 2.
	for _, iface := range others {
		ra := conf(packet.IPv6, iface, "accept_ra")
		if v, ok := n.read(ra); ok && v == 1 {
			n.list = append(n.list, need{setting: ra, value: 2, guard: true,
				why: "the host keeps its routes from router advertisements while it forwards"})
		}
	}
	n.want(all, 1, "packets of uvs are forwarded")
}

// A MissingSetting is a setting that this host does not let us change, as in a
// container with a read-only /proc/sys.
type MissingSetting struct {
	Name  string // as sysctl takes it
	Value int    // that uvs needs
	Why   string
	Err   error
}

func (e *MissingSetting) Error() string {
	return fmt.Sprintf("%s is not %d and cannot be set (%v), but needs to be: %s; start the container with --sysctl %s=%d, or where /proc/sys can be written: sysctl -w %s=%d",
		e.Name, e.Value, e.Err, e.Why, e.Name, e.Value, e.Name, e.Value)
}

func (e *MissingSetting) Unwrap() error { return e.Err }

// A changedSetting is what Close puts back.
type changedSetting struct {
	setting
	old, ours int
}

// savedSettings are in the order in which they were changed.
type savedSettings []changedSetting

// add remembers the value of a setting before the first change of ours.
func (s *savedSettings) add(c changedSetting) {
	if i := slices.IndexFunc(*s, func(o changedSetting) bool { return o.setting == c.setting }); i >= 0 {
		(*s)[i].ours = c.ours
		return
	}
	*s = append(*s, c)
}

func (h *Host) applySettingsLocked(d Desired, announcing map[uint8][]string) error {
	names, err := h.linkNames()
	if err != nil {
		return err
	}
	var others []string
	for _, name := range names {
		if name != h.opt.Device && name != "lo" {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	if err := h.addDummyAddress(&d); err != nil {
		return err
	}
	list, err := neededSettings(h.opt.Device, others, &d, announcing, h.sysctl)
	errs := []error{err}
	for _, n := range list {
		errs = append(errs, h.rememberLocked(n, others))
	}
	// Should we be killed on the way, the next start knows what was.
	errs = append(errs, h.applyFilterLocked(d))
	var unguarded error
	for _, n := range list {
		err := h.set(n)
		switch {
		case n.guard:
			unguarded = errors.Join(unguarded, err)
			continue
		case err == nil:
			err = unguarded
		}
		unguarded = nil
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// rememberLocked remembers how the setting is that will change.
func (h *Host) rememberLocked(n need, others []string) error {
	if n.iface == h.opt.Device {
		return nil // our device takes its settings with it
	}
	if n.setting == conf(packet.IPv6, "all", "forwarding") {
		// It sets every device's own forwarding too, and so will its undoing.
		for _, iface := range append(others, "default") {
			own := conf(packet.IPv6, iface, "forwarding")
			if v, err := h.sysctl.read(own); err == nil && v == 1 {
				h.changed.add(changedSetting{own, 1, 1})
			}
		}
	}
	old, err := h.sysctl.read(n.setting)
	if err != nil {
		return fmt.Errorf("read %s: %w", n.setting, err)
	}
	h.changed.add(changedSetting{n.setting, old, n.value})
	return nil
}

// set changes one setting.
func (h *Host) set(n need) error {
	if err := h.sysctl.write(n.setting, n.value); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil // the device went away meanwhile
		}
		name := n.setting
		switch {
		case name.iface == h.opt.Device:
			name.iface = "default" // what a device that comes later starts with
		case name.name == "proxy_ndp":
			name.iface = "all" // does too, and is there before the device
		}
		return &MissingSetting{Name: name.String(), Value: n.value, Why: n.why, Err: err}
	}
	h.log.Info("changed a setting of the host", "setting", n.String(), "value", n.value, "why", n.why)
	return nil
}

// restoreSettingsLocked puts back what was changed.
func (h *Host) restoreSettingsLocked() error {
	err := h.restore(h.changed)
	h.changed = nil
	return err
}

// restore puts settings back, the last first. What somebody else has changed
// since is theirs and stays.
func (h *Host) restore(changed savedSettings) error {
	var errs []error
	for _, c := range slices.Backward(changed) {
		now, err := h.sysctl.read(c.setting)
		if err != nil || now == c.old || now != c.ours && c.old != c.ours {
			continue
		}
		if err := h.sysctl.write(c.setting, c.old); err != nil {
			errs = append(errs, fmt.Errorf("restore a setting: %w: sysctl -w %s=%d", err, c.setting, c.old))
		}
	}
	return errors.Join(errs...)
}

// applyFilterLocked brings the nftables table up to date.
func (h *Host) applyFilterLocked(d Desired) error {
	if h.nft == nil {
		return nil
	}
	return h.nft.set(filter{vips: d.VIPs, lips: d.LIPs, replies: d.Replies, undo: slices.Clone(h.changed)})
}
