package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A Host is one network namespace.
type Host struct {
	// Name is the host's name in the topology, Namespace the one for ip netns exec.
	Name, Namespace string

	lab    *Lab
	work   chan func()   // run on the thread that is in the namespace
	gone   chan struct{} // closed: that thread ends
	thread string        // that thread's namespace, as a path
	nl     *netlink.Handle
	bridge string // the bridge that takes links without addresses; empty for none
}

// Host adds a host with only a loopback, up. Duplicate address detection is
// off, so an IPv6 address can be used at once; reverse path filters and
// forwarding are off.
func (l *Lab) Host(name string) *Host {
	h := &Host{
		Name: name, Namespace: l.prefix + "-" + name, lab: l,
		work: make(chan func()), gone: make(chan struct{}),
	}
	l.draw("host "+name, func() error {
		if err := h.open(); err != nil {
			return err
		}
		if !l.atClose(h.close) {
			h.close()
			return errClosed
		}
		return h.plain()
	})
	return h
}

// open starts the thread that holds the namespace, and names it.
func (h *Host) open() error {
	started := make(chan error)
	go h.hold(started)
	if err := <-started; err != nil {
		return err
	}
	if err := h.Do(func() error {
		h.thread = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		fd, err := netns.GetFromPath(h.thread)
		if err != nil {
			return err
		}
		defer fd.Close()
		h.nl, err = netlink.NewHandleAt(fd)
		return err
	}); err != nil {
		close(h.gone)
		return err
	}
	// The name is a convenience for people: a file system that cannot be
	// written is no reason to fail.
	if os.MkdirAll(namesDir, 0o755) == nil {
		os.Symlink(h.thread, filepath.Join(namesDir, h.Namespace))
	}
	return nil
}

// hold makes a namespace and runs what Do asks for inside, until the host is
// gone. Its thread is never given back to the scheduler, so it ends with the
// goroutine.
func (h *Host) hold(started chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread cannot end, and /proc/self speaks for it: while it
		// is locked here, another goroutine gets another thread.
		defer runtime.UnlockOSThread()
		again := make(chan error)
		go h.hold(again)
		started <- <-again
		return
	}
	err := unix.Unshare(unix.CLONE_NEWNET)
	started <- err
	if err != nil {
		return
	}
	for {
		select {
		case f := <-h.work:
			f()
		case <-h.gone:
			return
		}
	}
}

// plain sets the namespace to what a fresh kernel has, whatever the machine's
// own settings, which new namespaces inherit.
func (h *Host) plain() error {
	for key, value := range map[string]string{
		"net.ipv4.ip_forward":                 "0",
		"net.ipv4.conf.all.rp_filter":         "0",
		"net.ipv4.conf.default.rp_filter":     "0",
		"net.ipv6.conf.all.forwarding":        "0",
		"net.ipv6.conf.all.disable_ipv6":      "0",
		"net.ipv6.conf.default.disable_ipv6":  "0",
		"net.ipv6.conf.default.accept_dad":    "0",
		"net.ipv6.conf.default.dad_transmits": "0",
		"net.ipv6.conf.default.accept_ra":     "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
		"net.ipv4.ip_unprivileged_port_start": "0",
	} {
		if err := h.setSysctl(key, value); err != nil {
			return err
		}
	}
	lo, err := h.nl.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.nl.LinkSetUp(lo)
}

// Do runs f on a thread that is inside the namespace. Sockets that f opens
// stay there; goroutines that f starts do not.
func (h *Host) Do(f func() error) error {
	result := make(chan error)
	select {
	case h.work <- func() { result <- f() }:
		return <-result
	case <-h.gone:
		return errClosed
	}
}

// Lab is the lab that the host belongs to.
func (h *Host) Lab() *Lab { return h.lab }

// Netlink speaks for the namespace. It is closed with the lab.
func (h *Host) Netlink() *netlink.Handle { return h.nl }

// Sysctl sets a kernel setting of the namespace, such as net.ipv4.ip_forward.
func (h *Host) Sysctl(key, value string) *Host {
	h.lab.draw(h.Name+": sysctl "+key, func() error { return h.setSysctl(key, value) })
	return h
}

// Forward makes the host a router for both families.
func (h *Host) Forward() *Host {
	return h.Sysctl("net.ipv4.ip_forward", "1").Sysctl("net.ipv6.conf.all.forwarding", "1")
}

func (h *Host) setSysctl(key, value string) error {
	return h.Do(func() error { return os.WriteFile(sysctlPath(key), []byte(value), 0) })
}

// SysctlValue reads a kernel setting of the namespace.
func (h *Host) SysctlValue(key string) (string, error) {
	var value []byte
	err := h.Do(func() (err error) {
		value, err = os.ReadFile(sysctlPath(key))
		return err
	})
	return strings.TrimSpace(string(value)), err
}

func sysctlPath(key string) string {
	return "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
}

// close ends the thread and with it the namespace.
func (h *Host) close() {
	os.Remove(filepath.Join(namesDir, h.Namespace))
	h.nl.Close()
	close(h.gone)
}
