package bgp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ipv6MinHopCount is IPV6_MINHOPCOUNT of linux/in6.h.
const ipv6MinHopCount = 73

// dial connects to the peer.
func (g *gate) dial(ctx context.Context, at netip.Addr) (*net.TCPConn, error) {
	p := &g.peer
	port := p.Port
	if port == 0 {
		port = bgpPort
	}
	d := net.Dialer{
		Timeout: max(p.ConnectRetry, minDialTime),
		Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error {
				return errors.Join(setMD5(fd, at, p.Password), setTTL(fd, at, p.ttl(g.options.AS), p.minTTL()))
			})
		},
	}
	if p.LocalAddress.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: p.LocalAddress.AsSlice()}
	}
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(at, port).String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

const (
	bgpPort     = 179
	minDialTime = 3 * time.Second // one lost SYN is no failure
)

// listen opens the ports on which peers may connect, one a family.
func (s *Speaker) listen(ctx context.Context, port int) ([]*net.TCPListener, error) {
	var list []*net.TCPListener
	for _, network := range []string{"tcp4", "tcp6"} {
		config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error { return s.keys(fd, network == "tcp6") })
		}}
		config.SetMultipathTCP(false) // it knows no TCP_MD5SIG
		l, err := config.Listen(ctx, network, fmt.Sprintf(":%d", port))
		if err != nil {
			if network == "tcp6" && errors.Is(err, unix.EAFNOSUPPORT) {
				continue // a host without IPv6
			}
			for _, open := range list {
				open.Close()
			}
			return nil, err
		}
		list = append(list, l.(*net.TCPListener))
	}
	return list, nil
}

// keys sets the passwords of all peers of a family.
func (s *Speaker) keys(fd int, v6 bool) error {
	var errs []error
	for _, g := range *s.gates.Load() {
		if a := g.peer.Address; a.IsValid() && a.Is6() == v6 {
			errs = append(errs, setMD5(fd, a, g.peer.Password))
		}
	}
	return errors.Join(errs...)
}

// signListeners sets the password of a peer on what listens already.
func (s *Speaker) signListeners(p *Peer) error {
	if p.Password == "" || !p.Address.IsValid() {
		return nil
	}
	return s.onListeners(p.Address, func(fd int) error { return setMD5(fd, p.Address, p.Password) })
}

// unsignListeners takes it off.
func (s *Speaker) unsignListeners(p *Peer) error {
	if p.Password == "" || !p.Address.IsValid() {
		return nil
	}
	return s.onListeners(p.Address, func(fd int) error { return writeMD5(fd, p.Address, "") })
}

// onListeners does something with the listeners of an address's family.
func (s *Speaker) onListeners(a netip.Addr, f func(fd int) error) error {
	var errs []error
	for _, l := range s.listeners {
		if on, ok := l.Addr().(*net.TCPAddr); !ok || (on.IP.To4() == nil) != a.Is6() {
			continue
		}
		raw, err := l.SyscallConn()
		if err == nil {
			err = control(raw, f)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// accept takes connections of peers until the listener is closed. Those of
// others are closed.
func (s *Speaker) accept(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptPause) // such as too many open files; others may close some
			continue
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if g := s.gateOf(from); g != nil {
			g.offer(c)
		} else {
			c.Close()
		}
	}
}

const acceptPause = 100 * time.Millisecond

// prepare does to an accepted connection what dial does to its own.
func (g *gate) prepare(c *net.TCPConn, at netip.Addr) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error { return setTTL(fd, at, g.peer.ttl(g.options.AS), g.peer.minTTL()) })
}

func control(c syscall.RawConn, f func(fd int) error) error {
	var err error
	if c := c.Control(func(fd uintptr) { err = f(int(fd)) }); c != nil {
		return c
	}
	return err
}

// ttl is what packets to the peer have, zero for the host's own.
func (p *Peer) ttl(ownAS uint32) int {
	switch {
	case p.TTLSecurity:
		return gtsmTTL
	case p.AS == ownAS:
		return 0
	}
	return max(p.Multihop, 1)
}

// minTTL is the least of a packet from the peer, zero for any.
func (p *Peer) minTTL() int {
	if !p.TTLSecurity {
		return 0
	}
	return gtsmTTL - max(p.Multihop, 1) + 1
}

const gtsmTTL = 255 // what a peer with TTL security sends (RFC 5082)

func setTTL(fd int, at netip.Addr, ttl, least int) error {
	level, name, min := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_MINTTL
	if at.Is6() {
		level, name, min = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ipv6MinHopCount
	}
	if ttl != 0 {
		if err := unix.SetsockoptInt(fd, level, name, ttl); err != nil {
			return fmt.Errorf("TTL %d: %w", ttl, err)
		}
	}
	if least != 0 {
		if err := unix.SetsockoptInt(fd, level, min, least); err != nil {
			return fmt.Errorf("TTL security: %w", err)
		}
	}
	return nil
}

// setMD5 has a socket sign and check the segments of a peer (RFC 2385).
func setMD5(fd int, at netip.Addr, password string) error {
	if password == "" {
		return nil
	}
	return writeMD5(fd, at, password)
}

// writeMD5 is setMD5 where an empty password takes an earlier one away.
func writeMD5(fd int, at netip.Addr, password string) error {
	sig := unix.TCPMD5Sig{Keylen: uint16(len(password))}
	copy(sig.Key[:], password)
	if at.Is4() {
		sig.Addr.Family = unix.AF_INET
		a := at.As4()
		copy(sig.Addr.Data[2:], a[:]) // after sin_port
	} else {
		sig.Addr.Family = unix.AF_INET6
		a := at.As16()
		copy(sig.Addr.Data[6:], a[:]) // after sin6_port and sin6_flowinfo
	}
	if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig); err != nil {
		return fmt.Errorf("TCP MD5, which the kernel may lack: %w", err)
	}
	return nil
}

// whyNot is why a peer cannot be connected to, with what it may mean.
func whyNot(err error, password bool) string {
	why := "cannot connect: " + err.Error()
	if password && strings.Contains(why, "i/o timeout") {
		why += " (a peer with another password, or none, looks the same)"
	}
	return why
}
