package bgp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// A peer on an interface is found by its link-local address. Routers make
// theirs known in two ways, and this works with both:
//
//  1. by router advertisements (FRR's unnumbered peers send them, and wait for
//     ours: we send them with a lifetime of 0, which makes nobody use us as a
//     gateway)
//  2. by answering a ping to all routers of the link
//
// The first router that is heard is the peer, until it is silent for
// lostAfter and another one is heard.
const (
	solicitEvery = time.Second      // until there is a peer
	adviseEvery  = 10 * time.Second // afterwards
	lostAfter    = 35 * time.Second // three of its advertisements
)

// The ICMPv6 types (RFC 4443, RFC 4861).
const (
	echoRequest         = 128
	echoReply           = 129
	routerSolicitation  = 133
	routerAdvertisement = 134
)

var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// discover finds the peer on its interface and keeps looking, until ctx ends.
// An interface that is not there is waited for.
func (g *gate) discover(ctx context.Context) error {
	said := ""
	for {
		err := g.listenOnLink(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if text := err.Error(); text != said {
			said = text
			g.s.peers.failed(g.s.log, g.i, text)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(solicitEvery):
		}
	}
}

// A scout listens for routers on one link.
type scout struct {
	conn *ipv6.PacketConn
	link *net.Interface
	own  map[netip.Addr]bool
	id   uint16 // of our pings

	peer  netip.Addr // heard last
	heard time.Time
}

// listenOnLink does discover's work until the link fails.
func (g *gate) listenOnLink(ctx context.Context) error {
	name := g.peer.Interface
	sc, err := newScout(ctx, name)
	if err != nil {
		return err
	}
	defer sc.conn.Close()
	stop := context.AfterFunc(ctx, func() { sc.conn.Close() })
	defer stop()

	buf := make([]byte, 2048)
	var next time.Time
	for {
		if now := time.Now(); !now.Before(next) {
			if err := sc.ask(); err != nil {
				return err
			}
			next = now.Add(solicitEvery)
			if sc.peer.IsValid() {
				next = now.Add(adviseEvery)
			}
			if err := sc.conn.SetReadDeadline(next); err != nil {
				return err
			}
		}
		from, err := sc.hear(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return err
		case !from.IsValid():
			continue
		case from == sc.peer:
			sc.heard = time.Now()
			continue
		case sc.peer.IsValid() && time.Since(sc.heard) < lostAfter:
			g.s.peers.failed(g.s.log, g.i, fmt.Sprintf("there are two routers on %s, %v and %v: give the peer's address", name, sc.peer, from))
			continue
		}
		g.foundAt(from)
		sc.peer, sc.heard = from, time.Now()
	}
}

func newScout(ctx context.Context, name string) (*scout, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		if err := c.Control(func(fd uintptr) { set = unix.BindToDevice(int(fd), name) }); err != nil {
			return err
		}
		return set
	}}
	raw, err := config.ListenPacket(ctx, "ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	sc := &scout{conn: ipv6.NewPacketConn(raw), link: link, own: map[netip.Addr]bool{}, id: uint16(os.Getpid())}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	filter.Accept(ipv6.ICMPTypeEchoReply)
	if err := errors.Join(
		sc.conn.SetICMPFilter(&filter),
		sc.conn.SetControlMessage(ipv6.FlagHopLimit, true),
		sc.conn.SetMulticastHopLimit(gtsmTTL), // RFC 4861 section 4.2
		sc.conn.SetMulticastInterface(link),
		sc.conn.SetMulticastLoopback(false),
	); err != nil {
		return nil, errors.Join(err, sc.conn.Close())
	}
	addrs, err := link.Addrs()
	if err != nil {
		return nil, errors.Join(err, sc.conn.Close())
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				sc.own[ip] = true
			}
		}
	}
	return sc, nil
}

// ask sends what makes routers tell of themselves. The kernel fills in the
// checksums.
func (sc *scout) ask() error {
	source := append([]byte{1, 1}, sc.link.HardwareAddr...) // source link-layer address, RFC 4861 section 4.6.1
	if len(sc.link.HardwareAddr) != 6 {
		source = nil
	}
	ping := binary.BigEndian.AppendUint16([]byte{echoRequest, 0, 0, 0}, sc.id)
	for _, m := range []struct {
		to   netip.Addr
		data []byte
	}{
		{allNodes, append([]byte{routerAdvertisement, 15: 0}, source...)}, // all zero: no gateway, no prefix, no time
		{allRouters, append([]byte{routerSolicitation, 7: 0}, source...)},
		{allRouters, append(ping, 0, 1)},
	} {
		to := &net.IPAddr{IP: m.to.AsSlice(), Zone: sc.link.Name}
		if _, err := sc.conn.WriteTo(m.data, nil, to); err != nil {
			return fmt.Errorf("interface %s: %w", sc.link.Name, err)
		}
	}
	return nil
}

// hear waits for a packet and returns which router it is of; no valid address
// where it tells of none.
func (sc *scout) hear(buf []byte) (netip.Addr, error) {
	n, control, src, err := sc.conn.ReadFrom(buf)
	if err != nil {
		return netip.Addr{}, err
	}
	ip, ok := src.(*net.IPAddr)
	if !ok {
		return netip.Addr{}, nil
	}
	from, ok := netip.AddrFromSlice(ip.IP)
	if !ok || !from.IsLinkLocalUnicast() || sc.own[from] || !tellsOfRouter(buf[:n], control, sc.id) {
		return netip.Addr{}, nil
	}
	return from.WithZone(sc.link.Name), nil
}

// tellsOfRouter says whether a message is a router's own.
func tellsOfRouter(b []byte, control *ipv6.ControlMessage, id uint16) bool {
	if len(b) < 8 {
		return false
	}
	switch b[0] {
	case routerAdvertisement: // RFC 4861 section 6.1.2
		return control != nil && control.HopLimit == gtsmTTL && len(b) >= 16 && b[1] == 0
	case echoReply:
		return binary.BigEndian.Uint16(b[4:]) == id
	}
	return false
}
