package realserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/uvs-project/uvs/packet"
)

// Setup makes this host a real server, in order: the ARP settings before there
// is anything to answer for, what unpacks tunnel packets, the VIPs last. What
// is there already is left as it is. After an error nothing is left of what it
// did.
//
// It returns a Decapsulator, to be Run and closed by the caller, where the
// kernel does not unpack by itself; nil otherwise.
func Setup(o Options) (*Decapsulator, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	lo, err := loopback()
	if err != nil {
		return nil, err
	}
	missing, err := missingVIPs(lo, o.VIPs)
	if err != nil {
		return nil, err
	}

	done := &undoStack{}
	decap, err := setup(lo, o, missing, done)
	if err != nil {
		return nil, errors.Join(err, done.all())
	}
	return decap, nil
}

func setup(lo netlink.Link, o Options, missing []netip.Addr, done *undoStack) (*Decapsulator, error) {
	if lo.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(lo); err != nil {
			return nil, fmt.Errorf("set lo up: %w", explain(err))
		}
		done.push(func() error { return netlink.LinkSetDown(lo) })
	}
	for _, s := range arpSettings {
		if err := changeAll(lo, s, done); err != nil {
			return nil, err
		}
	}
	var decap *Decapsulator
	if o.Mode == "tun" {
		var err error
		if decap, err = unpack(lo, o, done); err != nil {
			return nil, err
		}
	}
	for _, vip := range missing {
		done.push(func() error { return removeVIP(lo, vip) })
		if err := addVIP(lo, vip); err != nil {
			return nil, err
		}
	}
	return decap, nil
}

func loopback() (netlink.Link, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find interface lo: %w", err)
	}
	return lo, nil
}

// missingVIPs are those of vips that lo does not have yet. One that another
// interface has is an error: the host would answer ARP for it there.
func missingVIPs(lo netlink.Link, vips []netip.Addr) ([]netip.Addr, error) {
	list, err := addresses()
	if err != nil {
		return nil, err
	}
	var missing []netip.Addr
	var errs []error
	for _, vip := range vips {
		present := false
		for _, a := range list {
			switch {
			case a.ip != vip:
			case a.link == lo.Attrs().Index:
				present = true
			default:
				name := linkName(a.link)
				errs = append(errs, fmt.Errorf("VIP %v is on interface %s already, where the host would draw its clients to itself: ip address del %v/%d dev %s", vip, name, vip, a.bits, name))
			}
		}
		if !present {
			missing = append(missing, vip)
		}
	}
	return missing, errors.Join(errs...)
}

func linkName(index int) string {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("number %d", index)
	}
	return link.Attrs().Name
}

// changeAll is change for a setting of all interfaces. A container with a
// read-only /proc/sys lets us set only those of each interface; one that comes
// later needs another Setup then.
func changeAll(lo netlink.Link, s setting, done *undoStack) error {
	mine := &undoStack{}
	err := change(lo, s, mine)
	if err == nil {
		done.push(mine.all)
		return nil
	}
	if undone := mine.all(); undone != nil || !readOnly(err) {
		return errors.Join(err, undone)
	}
	names, err := askingLinks()
	if err != nil {
		return err
	}
	for _, s.link = range names {
		if err := change(lo, s, done); err != nil {
			return err
		}
	}
	return nil
}

// change raises s to its value where it is lower, and records what it was.
func change(lo netlink.Link, s setting, done *undoStack) error {
	before, err := s.current()
	if err != nil || before >= s.value {
		return err
	}
	if err := remember(lo, s.key(), before, done); err != nil {
		return err
	}
	if err := s.write(); err != nil {
		return err
	}
	s.value = before
	done.push(s.write)
	return nil
}

// remember puts key into the record, unless it is there from an earlier run.
func remember(lo netlink.Link, key string, value int, done *undoStack) error {
	r, foreign := readRecord(lo)
	if _, recorded := r[key]; recorded {
		return nil
	}
	r[key] = value
	if err := writeRecord(lo, foreign, r); err != nil {
		return err
	}
	done.push(func() error { return forget(lo, key) })
	return nil
}

// forget takes key out of the record.
func forget(lo netlink.Link, key string) error {
	r, foreign := readRecord(lo)
	delete(r, key)
	return writeRecord(lo, foreign, r)
}

// unpack sees to it that tunnel packets are unpacked.
func unpack(lo netlink.Link, o Options, done *undoStack) (*Decapsulator, error) {
	if o.Decap == DecapAuto || o.Decap == DecapKernel {
		mine := &undoStack{}
		err := kernelUnpack(lo, o, mine)
		if err == nil {
			done.push(mine.all)
			return nil, nil
		}
		if err = errors.Join(err, mine.all()); o.Decap == DecapKernel || !errors.Is(err, errNoKernelTunnel) {
			return nil, err
		}
	}
	decap, err := OpenDecapsulator(o)
	if err != nil {
		return nil, err
	}
	done.push(decap.Close)
	return decap, nil
}

func kernelUnpack(lo netlink.Link, o Options, done *undoStack) error {
	k, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer k.Close()
	for _, kind := range o.Tunnels {
		var ports []netlink.Fou
		if r, _ := readRecord(lo); kind == packet.GUE && r[gueKey(o.Port)] == 0 {
			ports = fous(o.Port)
			if err := remember(lo, gueKey(o.Port), 1, done); err != nil {
				return err
			}
		}
		devices, err := addKernelTunnel(k, kind, ports, done)
		if err != nil {
			return err
		}
		for _, name := range devices {
			if err := errors.Join(beLoose(name), carryIPv6(name, o.VIPs)); err != nil {
				return err
			}
		}
	}
	return nil
}

// beLoose lets packets of clients come out of the tunnel device called link,
// although the route to them leads elsewhere. The setting goes with the device.
func beLoose(link string) error {
	loose := looseSource(link)
	own, err := loose.current()
	if err != nil {
		return err
	}
	all, err := setting{link: "all", name: loose.name}.current()
	if err != nil || max(own, all) != 1 { // only strict stands in the way
		return err
	}
	return loose.write()
}

// carryIPv6 has IPv6 on for the tunnel device called link, if there are IPv6
// VIPs: a container engine has it off on new devices, and what comes out of
// the tunnel would vanish without a word. The setting goes with the device.
func carryIPv6(link string, vips []netip.Addr) error {
	if !slices.ContainsFunc(vips, netip.Addr.Is6) {
		return nil
	}
	path := "/proc/sys/net/ipv6/conf/" + link + "/disable_ipv6"
	off, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(off)) == "0" {
		return err
	}
	err = os.WriteFile(path, []byte("0"), 0)
	if readOnly(err) {
		return fmt.Errorf("IPv6 is switched off for %s and /proc/sys may not be written: start the container with --sysctl net.ipv6.conf.all.disable_ipv6=0, or where it can be written: sysctl -w net.ipv6.conf.default.disable_ipv6=0: %w", link, err)
	}
	return err
}
