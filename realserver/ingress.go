package realserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"

	"github.com/uvs-project/uvs/packet"
)

//go:generate go tool bpf2go -target bpfel,bpfeb -cflags "-O2 -g -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" decap decap.c
//go:generate sh -c "sha256sum decap.c > decap.c.sum"

// The roles of addresses, as enum role of decap.c has them.
const (
	roleOwn uint32 = iota + 1
	roleVIP
	roleDirector
)

// An ingress is the program of decap.c at the host's interfaces. It ends with
// the process, whatever way that ends.
type ingress struct {
	objects decapObjects
	links   []link.Link
	devices []string // whose ingress it is at
	skipped []string // and those where it cannot be, with the reason
}

// openIngress attaches the program to every interface that can receive tunnel
// packets. One that comes later, or an address that does, is left to the
// sockets.
func openIngress(o Options) (*ingress, error) {
	list, err := addresses()
	if err != nil {
		return nil, err
	}
	roles := map[decapAddress]uint32{}
	for _, a := range list {
		roles[keyOf(a.ip)] = roleOwn
	}
	for _, a := range o.Directors {
		roles[keyOf(a)] = roleDirector
	}
	for _, a := range o.VIPs {
		roles[keyOf(a)] = roleVIP
	}
	i := &ingress{}
	if err := i.load(o, roles); err != nil {
		return nil, err
	}
	if err := i.attach(o.VIPs); err != nil {
		return nil, errors.Join(err, i.close())
	}
	return i, nil
}

// keyOf is a as the program looks it up.
func keyOf(a netip.Addr) decapAddress {
	addr, family := packet.AddrFrom(a)
	return decapAddress{Bytes: addr, Family: uint32(family)}
}

// load loads the program for the tunnels of o.
func (i *ingress) load(o Options, roles map[decapAddress]uint32) error {
	// Kernels before 5.11 charge maps to the memlock limit; where it cannot be
	// raised, loading tells.
	_ = rlimit.RemoveMemlock()
	spec, err := loadDecap()
	if err != nil {
		return err
	}
	var kinds uint32
	for _, kind := range o.Tunnels {
		kinds |= 1 << kind
	}
	err = errors.Join(spec.Variables["kinds"].Set(kinds), spec.Variables["gue_port"].Set(o.Port))
	if err != nil {
		return err
	}
	spec.Maps["addresses"].MaxEntries = uint32(len(roles))
	if err := spec.LoadAndAssign(&i.objects, nil); err != nil {
		if errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("missing capability BPF: run as root; in a container, start it with --cap-add BPF: %w", err)
		}
		return fmt.Errorf("load the program that unpacks: %w", err)
	}
	for a, r := range roles {
		if err := i.objects.Addresses.Put(a, r); err != nil {
			return errors.Join(fmt.Errorf("tell the program that unpacks an address: %w", err), i.objects.Close())
		}
	}
	return nil
}

// attach attaches the program wherever the inner packets will be taken. At a
// port of a bridge or a bond it waits for what the whole device has received.
func (i *ingress) attach(vips []netip.Addr) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		if a.EncapType != "ether" || a.MasterIndex != 0 || a.Flags&net.FlagLoopback != 0 || a.Name == DefaultDevice {
			continue
		}
		if why := refuses(a.Name, vips); why != "" {
			i.skipped = append(i.skipped, a.Name+": "+why)
			continue
		}
		x, err := link.AttachTCX(link.TCXOptions{Interface: a.Index, Program: i.objects.Decap, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return fmt.Errorf("attach the program that unpacks to %s (it needs Linux 6.6): %w", a.Name, err)
		}
		i.links, i.devices = append(i.links, x), append(i.devices, a.Name)
	}
	if len(i.links) == 0 {
		return fmt.Errorf("no interface to unpack at: %s", strings.Join(append(i.skipped, "there must be one for Ethernet frames"), "; "))
	}
	return nil
}

// refuses says why the kernel would not take inner packets from the interface
// called name, or nothing. Those of the sockets come out of a device of their
// own, which is set up for them.
func refuses(name string, vips []netip.Addr) string {
	if slices.ContainsFunc(vips, netip.Addr.Is4) {
		own, err := setting{link: name, name: "rp_filter"}.current()
		all, errAll := setting{link: "all", name: "rp_filter"}.current()
		if err != nil || errAll != nil || max(own, all) == 1 {
			return "rp_filter is strict"
		}
	}
	if slices.ContainsFunc(vips, netip.Addr.Is6) {
		off, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6")
		if err != nil || strings.TrimSpace(string(off)) != "0" {
			return "IPv6 is off"
		}
	}
	return ""
}

// count is what the program has unpacked: packets, super-packets by their
// segments, and bytes as they went up.
func (i *ingress) count() (packets, bytes uint64) {
	var perCPU []decapCount
	if err := i.objects.Counts.Lookup(uint32(0), &perCPU); err != nil {
		return 0, 0
	}
	for _, c := range perCPU {
		packets += c.Packets
		bytes += c.Bytes
	}
	return packets, bytes
}

func (i *ingress) close() error {
	var errs []error
	for _, l := range i.links {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, i.objects.Close())...)
}
