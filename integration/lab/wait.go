package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
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

// WaitListen waits until a socket of the host is bound to each of ports
// ("tcp/80", "udp/53") and, for TCP, listens.
func (h *Host) WaitListen(ctx context.Context, ports ...string) error {
	return Wait(ctx, h.Name+": "+strings.Join(ports, " "), func() error {
		for _, p := range ports {
			network, number, _ := strings.Cut(p, "/")
			port, err := strconv.ParseUint(number, 10, 16)
			if err != nil {
				return fmt.Errorf("%q is not network/port", p)
			}
			if err := h.Do(func() error { return bound(network, uint16(port)) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// bound looks the port up in the tables of sockets in /proc.
func bound(network string, port uint16) error {
	state := map[string]string{"tcp": "0A", "udp": "07"}[network] // TCP_LISTEN, and what an unconnected UDP socket has
	local := fmt.Sprintf(":%04X", port)
	for _, table := range []string{network, network + "6"} {
		f, err := os.Open("/proc/thread-self/net/" + table)
		if err != nil {
			return err
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text()) // sl local_address rem_address st …
			if len(fields) > 3 && strings.HasSuffix(fields[1], local) && fields[3] == state {
				return nil
			}
		}
	}
	return errors.New("no socket on " + network + "/" + strconv.Itoa(int(port)))
}
