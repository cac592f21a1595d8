// Package realserver makes a host a real server for the modes whose real
// servers own the VIP: dr and tun.
//
// [Setup] puts the VIPs on the loopback, keeps the host from answering or
// announcing them by ARP and, for tun, sees to it that tunnel packets are
// unpacked: by the kernel's own tunnel devices where it has them, else by a
// [Decapsulator], which reads tunnel packets from sockets and writes the inner
// ones to a TUN device, and may be told to unpack those of known directors
// before they get there, by a program in the kernel. [Undo] takes back what Setup made, [Show] says what
// there is.
//
// No file remembers what was made. The addresses carry a protocol number of
// their own, the tunnel devices a name or alias, and the former values of
// changed settings stand in the alias of the loopback: like the changes
// themselves they live in the network namespace and end with it, so a host
// that rebooted or a process that was killed leaves nothing that lies.
package realserver

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/uvs-project/uvs/packet"
)

// DefaultDevice is the name of the Decapsulator's TUN device.
const DefaultDevice = "uvs-decap"

// DefaultGUEPort is the UDP port of GUE that IANA assigned.
const DefaultGUEPort = 6080

// Options say what the host is to be.
type Options struct {
	Mode    string             // "dr" or "tun"
	VIPs    []netip.Addr       // at least one
	Tunnels []packet.EncapKind // tun: how the directors encapsulate; none: IPIP
	Port    uint16             // GUE: UDP port; 0: DefaultGUEPort
	Decap   Decap              // tun: who unpacks; empty: DecapAuto

	// Directors, for DecapBPF, are whose tunnel packets are unpacked before the
	// host's firewall sees them: the source addresses of their outer headers.
	Directors []netip.Addr
}

// Decap says who unpacks tunnel packets.
type Decap string

const (
	DecapAuto   Decap = "auto"   // the kernel where it can, else a Decapsulator
	DecapKernel Decap = "kernel" // the kernel, or Setup fails
	DecapUser   Decap = "user"   // a Decapsulator
	DecapBPF    Decap = "bpf"    // a program at the interfaces' ingress, a Decapsulator for what it leaves
)

// Check says every fault of o that can be told without looking at the host.
func (o Options) Check() error {
	var errs []error
	switch o.Mode {
	case "dr", "tun":
	case "nat", "fullnat", "proxy":
		errs = append(errs, fmt.Errorf("mode %s: its real servers need no setup", o.Mode))
	default:
		errs = append(errs, fmt.Errorf("mode %q: want dr or tun", o.Mode))
	}
	if len(o.VIPs) == 0 {
		errs = append(errs, errors.New("no VIP"))
	}
	for _, vip := range o.VIPs {
		if why := unfit(vip); why != "" {
			errs = append(errs, fmt.Errorf("VIP %v: %s", vip, why))
		}
	}
	switch o.Decap {
	case "", DecapAuto, DecapKernel, DecapUser:
		if len(o.Directors) > 0 {
			errs = append(errs, errors.New("directors are told for decapsulation by bpf only"))
		}
	case DecapBPF:
		if len(o.Directors) == 0 {
			errs = append(errs, errors.New("decapsulation by bpf passes the host's firewall by: say whose packets may, the directors' addresses"))
		}
	default:
		errs = append(errs, fmt.Errorf("decapsulation by %q: want auto, kernel, user or bpf", o.Decap))
	}
	return errors.Join(errs...)
}

// withDefaults fills in the zero values of o.
func (o Options) withDefaults() Options {
	if len(o.Tunnels) == 0 {
		o.Tunnels = []packet.EncapKind{packet.IPIP}
	}
	if o.Port == 0 {
		o.Port = DefaultGUEPort
	}
	if o.Decap == "" {
		o.Decap = DecapAuto
	}
	return o
}

// unfit says why vip cannot be one, or nothing.
func unfit(vip netip.Addr) string {
	switch {
	case !vip.IsValid():
		return "not an address"
	case vip.Zone() != "":
		return "an address with a zone"
	case vip.Is4In6():
		return "an IPv4-mapped address; give the IPv4 address itself"
	case vip.IsUnspecified():
		return "the unspecified address"
	case vip.IsLoopback():
		return "a loopback address"
	case vip.IsMulticast():
		return "a multicast address"
	case vip.IsLinkLocalUnicast():
		return "a link-local address"
	case vip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	}
	return ""
}
