package lab

import (
	"context"
	"net"
	"runtime"

	"github.com/vishvananda/netns"
)

// Listen opens a listener in the host. addr must be a literal address and
// port: a name would be looked up elsewhere. It is closed with the lab.
func (h *Host) Listen(network, addr string) (ln net.Listener, err error) {
	err = h.Do(func() error {
		ln, err = net.Listen(network, addr)
		return err
	})
	if err == nil {
		h.lab.atClose(func() { ln.Close() })
	}
	return ln, err
}

// ListenPacket is Listen for datagrams.
func (h *Host) ListenPacket(network, addr string) (pc net.PacketConn, err error) {
	err = h.Do(func() error {
		pc, err = net.ListenPacket(network, addr)
		return err
	})
	if err == nil {
		h.lab.atClose(func() { pc.Close() })
	}
	return pc, err
}

// Dial connects from the host to a literal address and port. The caller
// closes the connection. It fits http.Transport.DialContext.
func (h *Host) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	// Waiting for an answer would hold the host's own thread, so this one
	// visits the namespace and ends.
	go func() {
		runtime.LockOSThread()
		conn, err := h.dial(ctx, network, addr)
		results <- result{conn, err}
	}()
	r := <-results
	return r.conn, r.err
}

func (h *Host) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	fd, err := netns.GetFromPath(h.thread)
	if err != nil {
		return nil, err
	}
	defer fd.Close()
	if err := netns.Set(fd); err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}
