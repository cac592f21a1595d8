package realserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

// errDeviceGone says that somebody removed the TUN device: Undo in another
// process does.
var errDeviceGone = errors.New("the TUN device was removed")

// A Decapsulator unpacks the tunnel packets of any director and gives the
// inner ones to the kernel, if they are for a VIP.
//
//	director ──► kernel: routing, firewall, reassembly ──► socket ──► strip the outer
//	headers ──► for a VIP? ──► merge segments of one connection ──► TUN device ──► kernel
//
// The tunnel packets come from sockets, a raw one for each IP protocol, or
// bound to the port of GUE, so the host's firewall has seen them and the
// kernel does not refuse the protocol. A tunnel has no key: whoever reaches
// the host can send packets with any inner source. What is not addressed to a
// VIP is therefore dropped, and so is what claims to come from one.
//
// With DecapBPF a program in front of all this unpacks the plain packets of
// known directors, and only the rest takes this way.
type Decapsulator struct {
	tun     *stack.DeviceTUN
	readers []*reader
	ingress *ingress // nil: all take the sockets
}

// maxGUESockets bounds the sockets for GUE, the only tunnel whose packets the
// kernel spreads over several of them. Four readers keep a 10 Gbit/s link busy.
const maxGUESockets = 4

// OpenDecapsulator opens the sockets and makes the TUN device of a
// Decapsulator for o.VIPs, o.Tunnels and o.Port. Nothing is read before Run.
// Close releases everything.
func OpenDecapsulator(o Options) (*Decapsulator, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	// The device comes first: its name keeps a second Decapsulator out, which
	// could bind the port of GUE beside the first.
	tun, err := stack.OpenTUN(stack.TUNOptions{Name: DefaultDevice})
	if err != nil {
		return nil, err
	}
	d := &Decapsulator{tun: tun}
	sockets, err := openSockets(o.Tunnels, o.Port, min(runtime.GOMAXPROCS(0), maxGUESockets))
	if err != nil {
		return nil, errors.Join(err, d.tun.Close())
	}
	vips := map[packet.Endpoint]bool{}
	for _, vip := range o.VIPs {
		vips[packet.EndpointFrom(netip.AddrPortFrom(vip, 0))] = true
	}
	for _, s := range sockets {
		d.readers = append(d.readers, newReader(s, d.tun.Queues()[0], vips))
	}
	if err := d.setUp(o.VIPs); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if o.Decap != DecapBPF {
		return d, nil
	}
	if d.ingress, err = openIngress(o); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// setUp has the TUN device up, without addresses of its own, for packets of
// any size and from clients whose route leads elsewhere.
func (d *Decapsulator) setUp(vips []netip.Addr) error {
	link, err := netlink.LinkByName(d.tun.Name())
	if err != nil {
		return fmt.Errorf("find TUN device %s: %w", d.tun.Name(), err)
	}
	const noLinkLocal = 1                                // IN6_ADDR_GEN_MODE_NONE
	_ = netlink.LinkSetIP6AddrGenMode(link, noLinkLocal) // no IPv6, no matter
	if err := netlink.LinkSetMTU(link, 65535); err != nil {
		return fmt.Errorf("set the MTU of %s: %w", d.tun.Name(), explain(err))
	}
	if err := errors.Join(beLoose(d.tun.Name()), carryIPv6(d.tun.Name(), vips)); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set TUN device %s up: %w", d.tun.Name(), explain(err))
	}
	return nil
}

// Device is the name of the TUN device.
func (d *Decapsulator) Device() string { return d.tun.Name() }

// Ingress names the interfaces at whose ingress the program of DecapBPF
// unpacks, and those where it cannot, with the reason.
func (d *Decapsulator) Ingress() (at, left []string) {
	if d.ingress == nil {
		return nil, nil
	}
	return d.ingress.devices, d.ingress.skipped
}

// Run unpacks until ctx ends, then returns nil. It returns nil too when the
// TUN device is removed, which is how Undo ends it.
func (d *Decapsulator) Run(ctx context.Context, log *slog.Logger) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for _, r := range d.readers {
		wg.Go(func() { stop(r.run()) })
	}
	wg.Go(func() { stop(d.watch(ctx)) })
	wg.Go(func() { d.report(ctx, log) })

	<-ctx.Done()
	errs := []error{d.tun.Queues()[0].Wake()}
	for _, r := range d.readers {
		errs = append(errs, r.stop())
	}
	wg.Wait()
	cause, s := context.Cause(ctx), d.Stats()
	log.Info("stopped", "why", cause, "packets", s.Packets, "bytes", s.Bytes, "writes", s.Writes,
		"packets_at_ingress", s.IngressPackets, "bytes_at_ingress", s.IngressBytes)
	if dropped := s.droppedSince(Stats{}); dropped != nil {
		log.Warn("tunnel packets dropped in all", dropped...)
	}
	if errors.Is(cause, errDeviceGone) {
		return nil
	}
	if !errors.Is(cause, context.Canceled) {
		errs = append(errs, cause)
	}
	return errors.Join(errs...)
}

// watch reads what the kernel sends into the TUN device, which is nothing of
// use, to learn when the device is removed.
func (d *Decapsulator) watch(ctx context.Context) error {
	q := d.tun.Queues()[0]
	buf := make([]byte, packet.VNetLen+packet.MaxSize)
	for ctx.Err() == nil {
		n, err := q.Read(buf)
		if errors.Is(err, unix.EBADFD) {
			return errDeviceGone
		}
		if err == nil && n == 0 {
			err = q.Wait()
		}
		if err != nil {
			return fmt.Errorf("TUN device %s: %w", d.tun.Name(), err)
		}
	}
	return nil
}

// report logs, once a minute, what was dropped in that minute.
func (d *Decapsulator) report(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	var before Stats
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := d.Stats()
		if dropped := now.droppedSince(before); dropped != nil {
			log.Warn("tunnel packets dropped", dropped...)
		}
		before = now
	}
}

// Stats are counters since the start.
func (d *Decapsulator) Stats() Stats {
	var s Stats
	for _, r := range d.readers {
		r.counters.addTo(&s)
	}
	if d.ingress != nil {
		s.IngressPackets, s.IngressBytes = d.ingress.count()
	}
	return s
}

// Close removes the TUN device and closes the sockets. Run must have
// returned, or never been called.
func (d *Decapsulator) Close() error {
	var errs []error
	if d.ingress != nil {
		errs = append(errs, d.ingress.close())
	}
	for _, r := range d.readers {
		errs = append(errs, r.stop())
	}
	return errors.Join(append(errs, d.tun.Close())...)
}
