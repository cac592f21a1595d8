package health

import (
	"context"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dial connects to the target by network: tcp, udp, or ip with a protocol. The connection has the
// deadline of ctx. It leaves nothing behind when it is closed: a TCP
// connection that the real server has not closed yet is reset, so that checks
// use up no ports.
func (t Target) dial(ctx context.Context, network string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	conn := &connection{done: func() {}}
	if t.Prepare != nil {
		d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			proto := uint8(unix.IPPROTO_TCP)
			if strings.HasPrefix(network, "udp") {
				proto = unix.IPPROTO_UDP
			}
			controlErr := raw.Control(func(fd uintptr) {
				var done func()
				if done, err = t.Prepare(int(fd), proto); err == nil {
					conn.done = sync.OnceFunc(done)
				}
			})
			if controlErr != nil {
				return controlErr
			}
			return err
		}
	}
	address := t.Addr.String()
	if strings.HasPrefix(network, "ip") {
		address = t.Addr.Addr().String()
	}
	var err error
	if conn.Conn, err = d.DialContext(ctx, network, address); err != nil {
		conn.done()
		return nil, err
	}
	if tcp, ok := conn.Conn.(*net.TCPConn); ok {
		err = tcp.SetLinger(0)
	}
	if deadline, ok := ctx.Deadline(); ok && err == nil {
		err = conn.SetDeadline(deadline)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	conn.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return conn, nil
}

// A connection of a check ends when the check's context does.
type connection struct {
	net.Conn
	stop func() bool
	done func()
}

func (c *connection) Close() error {
	if c.stop != nil {
		c.stop()
	}
	defer c.done()
	return c.Conn.Close()
}
