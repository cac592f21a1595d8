package realserver

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// errNoKernelTunnel says that this kernel lacks what it takes to unpack the
// tunnel by itself.
var errNoKernelTunnel = errors.New("the kernel has no such tunnel")

// A kernel is the part of netlink that makes tunnels. *netlink.Handle is the
// real one.
type kernel interface {
	LinkAdd(netlink.Link) error
	LinkDel(netlink.Link) error
	LinkByName(string) (netlink.Link, error)
	LinkSetUp(netlink.Link) error
	LinkSetDown(netlink.Link) error
	LinkSetAlias(netlink.Link, string) error
	FouAdd(netlink.Fou) error
	FouDel(netlink.Fou) error
}

// A tunnelDevice is a device of the kernel that unpacks what any director
// sends.
type tunnelDevice struct {
	link netlink.Link // what is added

	// fallback, where not empty, is the device that does the work: sit cannot
	// take packets of any sender but by the device that its module brings
	// along. link is then added only to have the module loaded, and removed.
	fallback string
}

func named(name string) netlink.LinkAttrs { return netlink.LinkAttrs{Name: name} }

// ipDevices unpack IP in IP: 4 in 4, both in 6, and 6 in 4. "FlowBased" is
// what ip(8) calls external: the device takes every packet of its kind that no
// other device claims.
var ipDevices = []tunnelDevice{
	{link: &netlink.Iptun{LinkAttrs: named("uvs-ipip"), FlowBased: true}},
	{link: &netlink.Ip6tnl{LinkAttrs: named("uvs-ip6tnl"), FlowBased: true}},
	{link: &netlink.Sittun{LinkAttrs: named("uvs-sit"), Local: net.IPv4(127, 0, 0, 1)}, fallback: "sit0"},
}

// kernelDevices are the devices for each kind of tunnel. GUE is unpacked by a
// UDP socket of the kernel, which hands the rest to the IP in IP devices.
var kernelDevices = map[packet.EncapKind][]tunnelDevice{
	packet.IPIP: ipDevices,
	packet.GUE:  ipDevices,
	packet.GRE: {
		{link: &netlink.Gretun{LinkAttrs: named("uvs-gre"), Local: net.IPv4zero, FlowBased: true}},
		{link: &netlink.Gretun{LinkAttrs: named("uvs-ip6gre"), Local: net.IPv6zero, FlowBased: true}},
	},
}

// fous are the kernel's UDP sockets for GUE on port.
func fous(port uint16) []netlink.Fou {
	return []netlink.Fou{
		{Family: unix.AF_INET, Port: int(port), EncapType: netlink.FOU_ENCAP_GUE},
		{Family: unix.AF_INET6, Port: int(port), EncapType: netlink.FOU_ENCAP_GUE},
	}
}

// addKernelTunnel has the kernel unpack tunnels of a kind, with the UDP sockets
// ports. What takes each step back is pushed on done, also before an error. It
// returns the names of the devices that the inner packets come out of.
func addKernelTunnel(k kernel, kind packet.EncapKind, ports []netlink.Fou, done *undoStack) (devices []string, err error) {
	for _, d := range kernelDevices[kind] {
		name, err := addKernelDevice(k, d, done)
		if err != nil {
			return nil, err
		}
		devices = append(devices, name)
	}
	for _, f := range ports {
		if err := addFou(k, f, done); err != nil {
			return nil, err
		}
	}
	return devices, nil
}

// addKernelDevice makes d and has it up; what takes that back is pushed on
// done. It returns the name of the device that does the work.
func addKernelDevice(k kernel, d tunnelDevice, done *undoStack) (string, error) {
	if d.fallback != "" {
		return d.fallback, useFallback(k, d, done)
	}
	name := d.link.Attrs().Name
	err := k.LinkAdd(d.link)
	switch {
	case unsupported(err):
		return "", fmt.Errorf("%w: device of type %s: %w", errNoKernelTunnel, d.link.Type(), err)
	case errors.Is(err, unix.EEXIST):
		if _, err := k.LinkByName(name); err != nil {
			return "", fmt.Errorf("add tunnel device %s: another external %s device takes the packets: ip -d link show type %[2]s", name, d.link.Type())
		}
	case err != nil:
		return "", fmt.Errorf("add tunnel device %s: %w", name, explain(err))
	default:
		done.push(func() error { return k.LinkDel(d.link) })
	}
	if err := k.LinkSetUp(d.link); err != nil {
		return "", fmt.Errorf("set tunnel device %s up: %w", name, explain(err))
	}
	return name, nil
}

// unsupported says whether err means that the kernel has no such thing.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT)
}

// useFallback sets the device up that d's module brings along, and leaves in
// its alias that it was down before.
func useFallback(k kernel, d tunnelDevice, done *undoStack) error {
	link, err := k.LinkByName(d.fallback)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		if err := loadModule(k, d.link); err != nil {
			return err
		}
		link, err = k.LinkByName(d.fallback)
	}
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return fmt.Errorf("%w: no device %s in this network namespace", errNoKernelTunnel, d.fallback)
	}
	if err != nil {
		return fmt.Errorf("find tunnel device %s: %w", d.fallback, err)
	}
	if link.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	done.push(func() error { return releaseFallback(k, link) })
	if err := k.LinkSetAlias(link, recordMark); err != nil {
		return fmt.Errorf("set the alias of %s: %w", d.fallback, explain(err))
	}
	if err := k.LinkSetUp(link); err != nil {
		return fmt.Errorf("set tunnel device %s up: %w", d.fallback, explain(err))
	}
	return nil
}

// loadModule has the kernel load the module of link by adding it for a moment.
func loadModule(k kernel, link netlink.Link) error {
	err := k.LinkAdd(link)
	if unsupported(err) {
		return fmt.Errorf("%w: device of type %s: %w", errNoKernelTunnel, link.Type(), err)
	}
	if err == nil {
		err = k.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("load the module of tunnel type %s: %w", link.Type(), explain(err))
	}
	return nil
}

func releaseFallback(k kernel, link netlink.Link) error {
	return errors.Join(k.LinkSetDown(link), k.LinkSetAlias(link, ""))
}

// addFou opens the kernel's UDP socket f.
func addFou(k kernel, f netlink.Fou, done *undoStack) error {
	err := k.FouAdd(f)
	switch {
	case unsupported(err):
		return fmt.Errorf("%w: GUE: %w", errNoKernelTunnel, err)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("UDP port %d of GUE is in use: ss -lunp sport = :%d; ip fou show: %w", f.Port, f.Port, err)
	case err != nil:
		return fmt.Errorf("GUE on UDP port %d: %w", f.Port, explain(err))
	}
	done.push(func() error { return k.FouDel(f) })
	return nil
}

// ourKernelDevices are the tunnel devices that addKernelDevice made or set up
// in any run.
func ourKernelDevices(k kernel) []netlink.Link {
	var ours []netlink.Link
	for _, d := range slices.Concat(ipDevices, kernelDevices[packet.GRE]) {
		name := d.link.Attrs().Name
		if d.fallback != "" {
			name = d.fallback
		}
		link, err := k.LinkByName(name)
		if err == nil && (d.fallback == "" || link.Attrs().Alias == recordMark) {
			ours = append(ours, link)
		}
	}
	return ours
}

// removeKernelDevice undoes addKernelDevice for one of ourKernelDevices.
func removeKernelDevice(k kernel, link netlink.Link) error {
	remove := k.LinkDel
	if link.Attrs().Alias == recordMark {
		remove = func(l netlink.Link) error { return releaseFallback(k, l) }
	}
	if err := remove(link); err != nil {
		return fmt.Errorf("remove tunnel device %s: %w", link.Attrs().Name, explain(err))
	}
	return nil
}
