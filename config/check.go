package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// check notes every value out of range and every combination that cannot
// work. A value that did not parse already has its fault and is zero here;
// faults.add keeps the first.
func (fs *faults) check(o Options) {
	fs.checkDevice()
	fs.checkAddresses()
	fs.checkLAN()
	fs.between("limits.flows", fs.cfg.Limits.Flows, 1, maxFlows)
	fs.between("limits.answers", fs.cfg.Limits.Answers, 0, maxAnswers)
	fs.checkTimeouts("timeouts", &fs.cfg.Timeouts, new(Timeouts))
	fs.duration("drain.deadline", fs.cfg.Drain.Deadline, 0, maxDrain)
	fs.duration("drain.quiet", fs.cfg.Drain.Quiet, 0, maxDrain)
	fs.between("drain.flows", fs.cfg.Drain.Flows, 0, maxFlows)
	fs.between("drain.prepend", fs.cfg.Drain.Prepend, 0, maxPrepend)
	fs.checkPolicy("policy", &fs.cfg.Policy, nil)
	fs.checkDefence()
	fs.checkAdmin()
	fs.checkServices(o)
	fs.checkBGP()
	fs.checkAnnouncement()
}

const (
	maxFlows   = 1 << 28   // entries are counted in 32 bits, with room for two keys a flow
	maxAnswers = 1_000_000 // one a microsecond
	maxQueues  = 64        // more threads than a director has cores only contend
	maxWeight  = 65535     // as ipvsadm

	minTable = 256   // those below are the kernel's
	maxTable = 32756 // its ten rules come before the kernel's rule for the table main, 32766

	maxDrain = 24 * time.Hour // who waits longer has forgotten it

	maxSlowStart = time.Hour // a cache that takes longer to fill is no reason to keep clients away

	minTimeout = time.Second // the resolution of expiry
	maxTimeout = 31 * 24 * time.Hour

	// maxPoolBits bounds a LIP prefix: 2^16 addresses times 64512 ports are
	// four thousand million flows to each real server.
	maxPoolBits = 16

	maxDropRate   = 1 << 20
	maxFreeMemory = 1 << 20 // MiB, a terabyte

	maxDeviceName = 15  // IFNAMSIZ - 1
	maxSocketPath = 107 // sizeof(sun_path) - 1
)

func (fs *faults) between(path string, n, low, high int) {
	if n < low || n > high {
		fs.add(path, "%d is out of range, %d to %d", n, low, high)
	}
}

func oneOf[T ~string](fs *faults, path string, value T, allowed ...T) {
	if slices.Contains(allowed, value) {
		return
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	if value == "" {
		fs.add(path, "missing; one of %s", strings.Join(names, ", "))
		return
	}
	fs.add(path, "%q is none of %s", string(value), strings.Join(names, ", "))
}

func (fs *faults) checkDevice() {
	d := fs.cfg.Device
	fs.checkInterfaceName("device.name", d.Name)
	if d.Queues != 0 {
		fs.between("device.queues", int(d.Queues), 1, maxQueues)
	}
	oneOf(fs, "device.egress", d.Egress, EgressAuto, EgressKernel, EgressLink)
	oneOf(fs, "device.offload", d.Offload, OffloadAuto, OffloadOff, OffloadRequired)
	if d.Offload == OffloadRequired && d.Egress == EgressKernel {
		fs.add("device.offload", "the fast lane goes past the host's routing, which egress kernel asks for: set egress to auto, or offload to off")
	}
	fs.between("device.offload_every", d.OffloadEvery, 1, 1<<16)
	fs.between("device.table", d.Table, minTable, maxTable)
	if fs.cfg.Node == "" || strings.ContainsFunc(fs.cfg.Node, isSpaceOrControl) {
		fs.add("node", "%q is not a name: it must not be empty and not hold spaces", fs.cfg.Node)
	}
}

func isSpaceOrControl(r rune) bool { return r <= ' ' || r == 0x7f }

// checkInterfaceName follows dev_valid_name of the Linux kernel, and refuses
// the percent sign, which would number the device.
func (fs *faults) checkInterfaceName(path, name string) {
	switch {
	case name == "" || len(name) > maxDeviceName:
		fs.add(path, "%q: the name of a device has 1 to %d letters", name, maxDeviceName)
	case name == "." || name == ".." || strings.ContainsAny(name, "/:%") || strings.ContainsFunc(name, isSpaceOrControl):
		fs.add(path, "%q is not a name for a device: no space, slash, colon or percent sign", name)
	}
}

func (fs *faults) checkAddresses() {
	sources := map[bool]netip.Addr{}
	for i, a := range fs.cfg.Addresses.TunnelSource {
		path := fmt.Sprintf("addresses.tunnel_source[%d]", i)
		if !fs.checkUnicast(path, a) {
			continue
		}
		if other, ok := sources[a.Is4()]; ok {
			fs.add(path, "%v: %v is the source of that family already", a, other)
		}
		sources[a.Is4()] = a
	}
	pool := fs.cfg.Addresses.FullNATPool
	for i, p := range pool {
		path := fmt.Sprintf("addresses.fullnat_pool[%d]", i)
		switch {
		case !fs.checkUnicast(path, p.Addr()):
			continue
		case p != p.Masked():
			fs.add(path, "%v has bits after its length; write %v", p, p.Masked())
		case p.Addr().BitLen()-p.Bits() > maxPoolBits:
			fs.add(path, "%v is too large: at most 2^%d addresses", p, maxPoolBits)
		}
		for j, q := range pool[:i] {
			if q.IsValid() && p.Overlaps(q) {
				fs.add(path, "%v overlaps fullnat_pool[%d], %v", p, j, q)
			}
		}
		for _, a := range fs.cfg.Addresses.TunnelSource {
			if p.Contains(a) {
				fs.add(path, "%v holds the tunnel_source %v, which is the host's own address; LIPs belong to uvs alone", p, a)
			}
		}
	}
}

// checkUnicast notes an address that no host on a network can have. It is
// true if a is of use.
func (fs *faults) checkUnicast(path string, a netip.Addr) bool {
	switch {
	case !a.IsValid():
		fs.add(path, "missing")
	case a.Zone() != "":
		fs.add(path, "%v: no zone is possible here", a)
	case a.Is4In6():
		fs.add(path, "%v: write the IPv4 address %v", a, a.Unmap())
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.IsLinkLocalUnicast(),
		a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		fs.add(path, "%v is not a unicast address that routers forward to", a)
	default:
		return true
	}
	return false
}

func (fs *faults) checkLAN() {
	lan := fs.cfg.LAN
	oneOf(fs, "lan.announce", lan.Announce, AnnounceAuto, AnnounceOff)
	for i, name := range lan.Interfaces {
		path := fmt.Sprintf("lan.interfaces[%d]", i)
		fs.checkInterfaceName(path, name)
		if name == fs.cfg.Device.Name {
			fs.add(path, "%q is uvs's own device", name)
		}
		if slices.Contains(lan.Interfaces[:i], name) {
			fs.add(path, "%q is listed twice", name)
		}
	}
}

func (fs *faults) duration(path string, d, low, high time.Duration) {
	if d < low || d > high {
		fs.add(path, "%v is out of range, %v to %v", d, low, high)
	}
}

func (fs *faults) checkDefence() {
	d := fs.cfg.Defence
	oneOf(fs, "defence.drop_entry", d.DropEntry, DefenceOff, DefenceAuto, DefenceAlways)
	oneOf(fs, "defence.drop_packet", d.DropPacket, DefenceOff, DefenceAuto, DefenceAlways)
	oneOf(fs, "defence.secure_tcp", d.SecureTCP, DefenceOff, DefenceAuto, DefenceAlways)
	fs.between("defence.drop_rate", d.DropRate, 1, maxDropRate)
	fs.between("defence.free_flows", d.FreeFlows, 1, 99)
	fs.between("defence.free_memory", d.FreeMemory, 1, maxFreeMemory)
}

func (fs *faults) checkAdmin() {
	a := fs.cfg.Admin
	if a.Socket != "" {
		switch {
		case !filepath.IsAbs(a.Socket):
			fs.add("admin.socket", "%q must be an absolute path", a.Socket)
		case len(a.Socket) > maxSocketPath:
			fs.add("admin.socket", "the path is longer than %d bytes, which a unix socket cannot have", maxSocketPath)
		}
	}
	if a.Listen.IsValid() && a.Listen.Port() == 0 {
		fs.add("admin.listen", "%v lacks a port", a.Listen.Addr())
	}
	if !a.Listen.IsValid() {
		return
	}
	for _, s := range fs.cfg.Services {
		for _, l := range s.Listen {
			if l.Addr == a.Listen.Addr() {
				fs.add("admin.listen", "%v is a VIP of service %q; the kernel never gets its packets", l.Addr, s.Name)
			}
		}
	}
}
