package lab

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pollEvery is how often a condition is tried: often enough that a test does
// not notice, seldom enough that a busy machine does not either.
const pollEvery = 10 * time.Millisecond

// Wait tries cond until it returns nil. When ctx ends first, the error tells
// what was waited for and the last fault of cond.
func Wait(ctx context.Context, what string, cond func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lab: waiting for %s: %w: %w", what, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// Await is Wait for a condition that p brings about; it gives up when p ends.
func (p *Process) Await(ctx context.Context, what string, cond func() error) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() {
		select {
		case <-p.Exited():
			fail(errors.New("it ended"))
		case <-ctx.Done():
		}
	}()
	return Wait(ctx, what, cond)
}

// WaitListen waits until a socket of the host is bound to each of ports
// ("tcp/80" on any address, "udp/192.0.2.1:53" on just that one) and, for
// TCP, listens.
func (h *Host) WaitListen(ctx context.Context, ports ...string) error {
	return Wait(ctx, h.Name+": "+strings.Join(ports, " "), func() error {
		for _, p := range ports {
			network, local, _ := strings.Cut(p, "/")
			suffix, err := socketSuffix(local)
			if err != nil {
				return err
			}
			if err := h.Do(func() error { return bound(network, suffix) }); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
		return nil
	})
}

// socketSuffix is how the kernel writes a port, or address and port, at the
// end of a local address in /proc/net: the port in hexadecimal, an address
// as words of the machine's byte order.
func socketSuffix(local string) (string, error) {
	if port, err := strconv.ParseUint(local, 10, 16); err == nil {
		return fmt.Sprintf(":%04X", port), nil
	}
	ap, err := netip.ParseAddrPort(local)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for word := range slices.Chunk(ap.Addr().AsSlice(), 4) {
		fmt.Fprintf(&b, "%08X", binary.NativeEndian.Uint32(word))
	}
	fmt.Fprintf(&b, ":%04X", ap.Port())
	return b.String(), nil
}

// bound looks for a local address in the tables of sockets in /proc.
func bound(network, suffix string) error {
	state := map[string]string{"tcp": "0A", "udp": "07"}[network] // TCP_LISTEN, and what an unconnected UDP socket has
	for _, table := range []string{network, network + "6"} {
		f, err := os.Open("/proc/thread-self/net/" + table)
		if err != nil {
			return err
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text()) // sl local_address rem_address st …
			if len(fields) > 3 && strings.HasSuffix(fields[1], suffix) && fields[3] == state {
				return nil
			}
		}
	}
	return errors.New("no socket")
}
