// Package host asks the host, by netlink only, for what uvs needs of it: that
// the packets of the VIPs, of the FullNAT addresses and of the NAT replies come
// into the TUN device, and that what leaves it is routed.
//
// [Open] finds the device that package stack made and sets it up. [Host.Apply]
// takes the whole desired state, compares it with what is there and changes
// only what differs, in this order:
//
//	Desired       ->  checks       ->  rules, routes  ->  nftables       ->  settings       ->  LAN
//	(desired.go)      (device.go)      (steering.go)      (nftables.go)      (settings.go)      (announce.go)
//
// Meanwhile a mirror of the host's routes and neighbours (mirror.go) serves the
// link egress as [stack.Routes], and what others take away comes back (watch.go).
//
// [Host.Close] undoes all of it. What uvs makes is marked as its own (the
// protocol number of routes, rules and proxy neighbours, the name of the
// nftables table), so that the next start mends what a crash has left.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

// Options says which names and numbers of the host are ours. The zero value works.
type Options struct {
	Device     string       // the TUN device; "" is uvs0
	Preference int          // of the first policy rule, the nine after it are ours too; 0 is 9740
	Table      int          // routing table of VIPs and LIPs; NAT replies use the one after it; 0 is 9740
	Protocol   uint8        // marks our routes, rules and proxy neighbours; 0 is 97
	Mark       uint32       // firewall mark of packets that a rule cannot recognise; 0 is 0x97400000
	MarkMask   uint32       // the bits of Mark; 0 is 0xfff00000
	TxQueueLen int          // packets that may wait for a queue's reader; 0 is 10000
	Log        *slog.Logger // nil is slog.Default()
}

func (o Options) withDefaults() Options {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	if o.Device == "" {
		o.Device = "uvs0"
	}
	set(&o.Preference, 9740)
	set(&o.Table, 9740)
	set(&o.TxQueueLen, 10000)
	if o.Protocol == 0 {
		o.Protocol = 97
	}
	if o.Mark == 0 {
		o.Mark = 0x97400000
	}
	if o.MarkMask == 0 {
		o.MarkMask = 0xfff00000
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

// A Host is what uvs changed on the host. Its methods may be called from any
// goroutine of a process that lives in one network namespace.
type Host struct {
	opt       Options
	log       *slog.Logger
	nl        *netlink.Handle
	strict    map[int]*nl.SocketHandle // a socket on which the kernel filters listings as asked
	link      int                      // index of the device
	sysctl    kernelSettings
	nft       *netfilter // nil where the host has no nftables
	mirror    *mirror
	announcer *announcer

	pathErrors *pathErrors
	onChange   atomic.Pointer[func()]
	stop       func() // ends what Open started and waits for it

	mu      sync.Mutex
	closed  bool                // guarded by mu
	fault   error               // guarded by mu; what Apply returned or repair found last
	desired Desired             // guarded by mu; the last that Apply accepted
	changed savedSettings       // guarded by mu; what Close restores
	told    map[proxy]stack.MAC // guarded by mu; what was announced on which link, with which address of it
	silent  []netip.Addr        // guarded by mu; what Silence was told
}

// Open finds the device, removes what a crash of an earlier run has left, and
// brings the device up. Nothing is steered into it until Apply.
func Open(opt Options) (*Host, error) {
	opt = opt.withDefaults()
	h := &Host{opt: opt, log: opt.Log}
	if err := h.open(); err != nil {
		h.closeSockets()
		return nil, err
	}
	return h, nil
}

func (h *Host) open() error {
	var err error
	if h.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	if h.strict, err = strictSocket(); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	h.sysctl = kernelSettings{root: "/proc/sys", nl: h.nl, raw: h.strict}
	h.nft = newNetfilter(h.opt)
	if err := h.nft.available(); err != nil {
		h.log.Warn("no nftables on this host: traffic of uvs is tracked where connections are tracked, fragments of nat replies and errors from routers on the way to real servers of nat are not seen, and settings are not restored after a crash", "error", err)
		h.nft = nil
	}
	if err := h.removeOrphans(); err != nil {
		return err
	}
	if h.nft != nil {
		var err error
		if h.changed, err = h.nft.readUndo(); err != nil {
			return fmt.Errorf("nftables: settings of an earlier run: %w", err)
		}
	}
	if err := h.checkForeign(); err != nil {
		return err
	}
	if err := h.setUpDevice(); err != nil {
		return err
	}
	h.warnOfFirewall()
	return h.start()
}

// Routes is what the link egress asks for its hops. It is empty until Open
// has returned and stays as it is after Close.
func (h *Host) Routes() stack.Routes { return h.mirror }

// Apply makes the host as d says. It first checks all of d; where that finds
// faults they are returned together and nothing is changed. Afterwards it
// carries on past a fault, so that one that the host has does not hide the
// next, and returns them all; a [MissingSetting] among them is what the host
// refuses, which a caller may choose to live with.
//
// Applying the same state twice changes nothing the second time.
func (h *Host) Apply(ctx context.Context, d Desired) error {
	d = d.normalised()
	if err := h.check(d); err != nil {
		return err
	}
	h.mirror.setDirect(ctx, d.OnLink)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errors.New("apply after close")
	}
	h.desired = d
	h.fault = h.applyLocked() // the caller's to log
	return h.fault
}

// Fault is why the host is not as Apply was told: what Apply could not do, or
// what others have changed since and cannot be mended here; nil: it is.
func (h *Host) Fault() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fault
}

func (h *Host) applyLocked() error {
	errs := []error{h.applySteering(h.desired)}
	lans, err := h.lans()
	errs = append(errs, err)
	proxies, err := h.desired.proxies(lans)
	errs = append(errs, err)
	announcing := map[uint8][]string{
		packet.IPv4: lanNames(proxies, lans, packet.IPv4),
		packet.IPv6: lanNames(proxies, lans, packet.IPv6),
	}
	return errors.Join(append(errs,
		h.applySettingsLocked(h.desired, announcing),
		h.applyLANLocked(h.audibleLocked(proxies), lans),
	)...)
}

// Close undoes everything. It returns what could not be undone, with the
// command that does it by hand. Closing again does nothing.
func (h *Host) Close() error {
	h.mu.Lock()
	again := h.closed
	h.closed = true
	h.mu.Unlock()
	if again {
		return nil
	}
	h.stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.desired = Desired{}
	err := errors.Join(
		h.applyLANLocked(nil, nil),
		h.applySteering(Desired{}),
		h.restoreSettingsLocked(),
	)
	if h.nft != nil {
		err = errors.Join(err, h.nft.remove())
	}
	h.closeSockets()
	return err
}

func (h *Host) closeSockets() {
	if h.nl != nil {
		h.nl.Close()
	}
	for _, s := range h.strict {
		s.Close()
	}
}

// strictSocket opens a netlink socket on which the kernel filters listings by
// what the request says, instead of ignoring most of it.
func strictSocket() (map[int]*nl.SocketHandle, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	// A kernel before 4.20 does not know the option; its unfiltered answer is right too.
	if err := unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		s.Close()
		return nil, err
	}
	return map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}, nil
}
