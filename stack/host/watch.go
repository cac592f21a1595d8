package host

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// start begins to follow what happens on the host.
func (h *Host) start() (err error) {
	var closers []func()
	closeAll := func() {
		for _, c := range closers {
			c()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	if h.mirror, err = newMirror(h.opt); err != nil {
		return err
	}
	closers = append(closers, h.mirror.close)
	h.mirror.changed, h.mirror.lost = h.routesChanged, h.repair
	send, closeSender, err := frameSender()
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("packet socket: missing capability NET_RAW: run as root; in a container, start it with --cap-add NET_ADMIN --cap-add NET_RAW: %w", err)
	}
	if err != nil {
		return fmt.Errorf("packet socket: %w", err)
	}
	closers = append(closers, closeSender)
	h.announcer = newAnnouncer(h.log)
	if h.pathErrors, err = newPathErrors(h.routesChanged); err != nil {
		return err
	}
	closers = append(closers, h.pathErrors.close)
	changes, err := subscribe()
	if err != nil {
		return err
	}
	sockets := []*nl.NetlinkSocket{changes}
	classify := []func(uint16, []byte) event{h.classify}
	if h.nft != nil {
		filter, err := subscribeFilter()
		if err != nil {
			h.log.Warn("the table of nftables is not repaired when somebody removes it", "error", err)
		} else {
			sockets = append(sockets, filter)
			classify = append(classify, h.classifyFilter)
		}
	}

	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan event, askQueue)
	var wg sync.WaitGroup
	for i, s := range sockets {
		wg.Go(func() { h.follow(ctx, s, classify[i], events) })
	}
	wg.Go(func() { h.mirror.run(ctx, events) })
	wg.Go(func() {
		h.announcer.run(ctx, func(n announcement) error { return h.sendTold(n, send) })
	})
	h.stop = func() {
		cancel()
		for _, s := range sockets {
			s.Close()
		}
		wg.Wait()
		closeAll()
	}
	h.mirror.sync(ctx)
	return nil
}

// OnChange sets what is called, from another goroutine, after routes, devices
// or policy rules of the host changed, or a router told what a path carries:
// PathMTU, SourceFor and CheckRoute may have other answers then. It must not
// call Close.
func (h *Host) OnChange(f func()) { h.onChange.Store(&f) }

// OnTunnelError sets what is called, from another goroutine, with each ICMP
// error that the host got about a packet to an address that PathMTU was asked
// for, as a whole IP packet. After Close it is not called any more.
func (h *Host) OnTunnelError(f func(ip []byte)) { h.pathErrors.tell.Store(&f) }

func (h *Host) routesChanged() {
	if f := h.onChange.Load(); f != nil {
		(*f)()
	}
}

// repair makes the host as desired again after somebody else took away what
// was ours, as network managers do with what they do not know, and when a
// device has come that must forward.
func (h *Host) repair() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	if _, err := h.nl.LinkByIndex(h.link); isNoLink(err) {
		return // ours has gone, and with it all reason
	}
	was := h.fault
	h.fault = errors.Join(h.check(h.desired), h.applyLocked())
	switch {
	case h.fault == nil && was != nil:
		h.log.Info("the host is as uvs needs it again")
	case h.fault != nil && (was == nil || was.Error() != h.fault.Error()):
		h.log.Error("the host has changed and is not as uvs needs it", "error", h.fault)
	}
}
