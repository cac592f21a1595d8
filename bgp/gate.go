package bgp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
	"golang.org/x/sys/unix"
)

// A gate stands between one peer and GoBGP, which runs in our process and must
// not fall over what a peer sends. The steps of a session:
//
//  1. reach: connect to the peer, or take a connection of its
//  2. enter: open the session at GoBGP, which listens on a loopback address
//     and knows the peer by another one
//  3. carry: what GoBGP says goes out as it is. What the peer says is read
//     message by message: OPEN, NOTIFICATION and KEEPALIVE go in once they are
//     seen to be right, an UPDATE is counted and goes in as a KEEPALIVE, so no
//     route of others reaches GoBGP or takes memory
//
// When either side closes, it begins anew.
type gate struct {
	s       *Speaker
	i       int               // the number of the peer inside, which no other has at the time
	options *Options          // of the speaker as a whole; its peers are not for us
	peer    Peer              // never changes: a peer that does gets another gate
	crew    *crew             // guarded by the Speaker's configuring; nil: not open
	inbound chan *net.TCPConn // a connection that the peer opened
	places  chan netip.Addr   // where the peer was found, last
	local   netip.Addr        // our end when GoBGP was told of the peer; not valid before

	carried atomic.Pointer[chan struct{}] // closed when the session that is carried ends; nil: none is
}

const (
	openTime    = 30 * time.Second       // for the peer to send its OPEN
	writeTime   = 20 * time.Second       // for it to take what we send
	enterTime   = 15 * time.Second       // for GoBGP to be ready; it rests 5 seconds after a session
	restTime    = 500 * time.Millisecond // between two attempts, until GoBGP has told that it rests
	aliveRate   = time.Second            // between KEEPALIVEs that stand for UPDATEs
	refreshRate = time.Second            // between ROUTE-REFRESHs that are heeded
)

func newGate(s *Speaker, i int, o *Options, p Peer) *gate {
	g := &gate{s: s, i: i, options: o, peer: p, inbound: make(chan *net.TCPConn, 1), places: make(chan netip.Addr, 1)}
	if p.Address.IsValid() {
		g.places <- p.Address
	}
	return g
}

// maxNumbers is how many numbers of peers inside makes addresses of.
const maxNumbers = 1<<16 - 2

// inside is the address by which GoBGP knows peer i.
func inside(i int) netip.Addr {
	n := i + 1
	return netip.AddrFrom4([4]byte{127, 179, byte(n >> 8), byte(n)})
}

// offer hands over a connection that the peer opened, in place of an earlier
// one that nobody has taken. Only the goroutine that accepts calls it; a peer
// has one address, so there is one.
func (g *gate) offer(c *net.TCPConn) {
	select {
	case old := <-g.inbound:
		old.Close()
	default:
	}
	g.inbound <- c
}

// foundAt tells where the peer is.
func (g *gate) foundAt(at netip.Addr) {
	select {
	case <-g.places:
	default:
	}
	g.places <- at
}

// run holds the session until ctx ends.
func (g *gate) run(ctx context.Context) error {
	var at netip.Addr
	for ctx.Err() == nil {
		if g.local.IsValid() && g.s.peers.awaitActive(ctx, g.i) != nil {
			break
		}
		g.s.peers.tries(g.i)
		conn, place := g.reach(ctx, at)
		if conn == nil {
			break
		}
		at = place
		g.s.peers.found(g.i, at)
		if err := g.session(ctx, conn); err != nil && ctx.Err() == nil {
			g.s.peers.ended(g.s.log, g.i, err.Error())
		}
		select {
		case <-ctx.Done():
		case <-time.After(restTime):
		}
	}
	select {
	case c := <-g.inbound:
		c.Close()
	default:
	}
	return nil
}

// reach returns a connection to the peer, nil when ctx ended, and where it is.
func (g *gate) reach(ctx context.Context, at netip.Addr) (*net.TCPConn, netip.Addr) {
	p := &g.peer
	for {
		select {
		case at = <-g.places:
			g.s.peers.found(g.i, at)
		default:
		}
		if at.IsValid() && !p.Passive {
			c, err := g.dial(ctx, at)
			if err == nil {
				return c, at
			}
			if ctx.Err() != nil {
				return nil, at
			}
			g.s.peers.failed(g.s.log, g.i, whyNot(err, p.Password != ""))
		}
		var again <-chan time.Time
		if at.IsValid() && !p.Passive {
			again = time.After(p.ConnectRetry)
		}
		select {
		case <-ctx.Done():
			return nil, at
		case at = <-g.places:
			g.s.peers.found(g.i, at)
		case c := <-g.inbound:
			if err := g.prepare(c, at); err != nil {
				g.s.peers.failed(g.s.log, g.i, err.Error())
				c.Close()
				continue
			}
			return c, at
		case <-again:
		}
	}
}

// session is steps 2 and 3. It returns why it ended, nil where that is noted.
func (g *gate) session(ctx context.Context, peer *net.TCPConn) error {
	defer peer.Close()
	local, err := netip.ParseAddrPort(peer.LocalAddr().String())
	if err != nil {
		return err
	}
	inner, err := g.enter(ctx, local.Addr().Unmap().WithZone(""))
	if err != nil {
		return err
	}
	defer inner.Close()
	stop := context.AfterFunc(ctx, func() { peer.Close(); inner.Close() })
	defer stop()
	end := make(chan struct{})
	g.carried.Store(&end)
	defer close(end)
	defer g.carried.Store(nil)

	out := make(chan error, 1)
	go func() {
		out <- g.carryOut(peer, inner)
		peer.Close() // ends what carryIn reads
	}()
	err = g.carryIn(inner, peer)
	if r := new(refusal); errors.As(err, &r) {
		_ = peer.SetWriteDeadline(time.Now().Add(writeTime)) // it is closed either way
		_, _ = peer.Write(r.notification())
	}
	if why := ending(err); why != "" {
		g.s.peers.ended(g.s.log, g.i, why) // before GoBGP notices the end
	}
	inner.Close() // ends what carryOut reads
	if outErr := <-out; outErr != nil && !errors.Is(outErr, net.ErrClosed) {
		return fmt.Errorf("the connection broke: %w", outErr)
	}
	return nil
}

// farewells waits until the sessions of gates that GoBGP ends have ended, so that
// what it says last has gone out.
func farewells(gates []*gate) {
	limit := time.After(farewellTime)
	for _, g := range gates {
		end := g.carried.Load()
		if end == nil {
			continue
		}
		select {
		case <-*end:
		case <-limit:
			return
		}
	}
}

// ending is in words why carryIn ended; empty where the other side did.
func ending(err error) string {
	switch {
	case errors.Is(err, net.ErrClosed):
		return ""
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET):
		return "the peer closed the connection"
	}
	return err.Error()
}

// enter opens the session at GoBGP. local is our end of the connection to the
// peer: GoBGP takes it for the next hop.
func (g *gate) enter(ctx context.Context, local netip.Addr) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, enterTime)
	defer cancel()
	if local != g.local {
		if g.local.IsValid() {
			if err := g.s.server.DeletePeer(ctx, &api.DeletePeerRequest{Address: inside(g.i).String()}); err != nil {
				return nil, err
			}
		}
		g.s.peers.is(g.s.log, g.i, Idle) // until GoBGP tells that it is ready
		if err := g.s.server.AddPeer(ctx, &api.AddPeerRequest{Peer: g.config(local)}); err != nil {
			return nil, err
		}
		g.local = local
	}
	if err := g.s.peers.awaitActive(ctx, g.i); err != nil {
		return nil, fmt.Errorf("GoBGP is not ready: %w", err)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: inside(g.i).AsSlice()}, Control: g.s.insideKey}
	c, err := d.DialContext(ctx, "tcp4", g.s.inner.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// carryOut copies what GoBGP says. It returns nil when GoBGP closed.
func (g *gate) carryOut(peer, inner *net.TCPConn) error {
	buf := make([]byte, bgp.BGP_MAX_MESSAGE_LENGTH)
	for {
		m, err := readMessage(inner, buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := peer.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return err
		}
		if _, err := peer.Write(m); err != nil {
			return err
		}
		g.s.peers.sent(g.i, m.kind())
	}
}

// carryIn passes on what of the peer's messages may reach GoBGP, until one is
// refused, the peer says farewell or a side closes.
func (g *gate) carryIn(inner, peer *net.TCPConn) error {
	buf := make([]byte, bgp.BGP_MAX_MESSAGE_LENGTH)
	if err := peer.SetReadDeadline(time.Now().Add(openTime)); err != nil {
		return err
	}
	var refreshed, alive time.Time
	keepalive := frame(bgp.BGP_MSG_KEEPALIVE)
	for first := true; ; first = false {
		m, err := readMessage(peer, buf)
		if err != nil {
			if first && errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("the peer sent no OPEN within %v", openTime)
			}
			return err
		}
		g.s.peers.received(g.i, m.kind())
		if first != (m.kind() == bgp.BGP_MSG_OPEN) && m.kind() != bgp.BGP_MSG_NOTIFICATION {
			return &refusal{bgp.BGP_ERROR_FSM_ERROR, 0, fmt.Sprintf("type %d is out of its turn", m.kind())}
		}
		pass := m
		switch m.kind() {
		case bgp.BGP_MSG_OPEN:
			if err := checkOpen(m); err != nil {
				return err
			}
			if err := peer.SetReadDeadline(time.Time{}); err != nil { // from here GoBGP's hold timer
				return err
			}
		case bgp.BGP_MSG_UPDATE:
			n, err := countPrefixes(m)
			if err != nil {
				return err
			}
			g.s.peers.refused(g.i, n)
			if time.Since(alive) < aliveRate {
				continue
			}
			alive, pass = time.Now(), keepalive
		case bgp.BGP_MSG_NOTIFICATION:
			g.s.peers.failed(g.s.log, g.i, "the peer closed the session: "+farewell(m))
		case bgp.BGP_MSG_ROUTE_REFRESH:
			if !isRefresh(m) || time.Since(refreshed) < refreshRate {
				continue
			}
			refreshed = time.Now()
		}
		if _, err := inner.Write(pass); err != nil {
			return err
		}
	}
}
