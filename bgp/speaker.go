package bgp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/bgp/bfd"
)

// A Speaker announces routes to its peers. A process has one: GoBGP keeps some
// settings for all of a process.
type Speaker struct {
	log     *slog.Logger
	server  *server.BgpServer
	peers   *peerTable
	monitor *bfd.Monitor
	inner   netip.AddrPort          // where GoBGP listens
	secret  string                  // without which nobody connects there; empty where the kernel has no TCP MD5
	gates   atomic.Pointer[[]*gate] // as Options.Peers; what it points to never changes

	watching sync.Mutex // held while BFD is told whom to watch

	configuring sync.Mutex         // held while the speaker or peers begin or end; before mu; guards what follows
	live        bool               // Run is under way
	crew        *crew              // what goes on beside the sessions; nil: the speaker is at rest
	listeners   []*net.TCPListener // on which peers connect
	faults      chan error         // ends Run; has room for one

	mu        sync.Mutex // held while the local table is changed; guards what follows
	options   Options
	running   bool                   // GoBGP has a table
	wanted    []Route                // of the last Announce
	announced map[routeKey]announced // what GoBGP has
}

// announced is a route as GoBGP has it.
type announced struct {
	Route
	marks []int // peers that do not get it
}

// flushTime is between the withdrawal of all routes and the end of the
// sessions. Routers have taken the withdrawal milliseconds after it; the rest
// is for packets that were on their way.
const flushTime = 200 * time.Millisecond

// farewellTime is how long the end of sessions may take to pass through the gates.
const farewellTime = time.Second

// New makes a speaker. It touches nothing until Run.
func New(o Options) (*Speaker, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	s := &Speaker{log: o.Log, peers: newPeerTable(), monitor: bfd.New(o.Log), faults: make(chan error, 1), announced: map[routeKey]announced{}}
	s.take(o)
	return s, nil
}

// take makes o the options of a speaker at rest.
func (s *Speaker) take(o Options) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options = o
	known := s.peers.clear()
	gates := make([]*gate, len(o.Peers))
	for i, p := range o.Peers {
		s.peers.add(i, &p, known[p.Name])
		gates[i] = newGate(s, i, &o, p)
	}
	s.gates.Store(&gates)
}

// Run holds the sessions until ctx ends; it then withdraws every route, gives
// the routers a moment to send their packets elsewhere, and closes the
// sessions. It returns nil when ctx ended it. It is called once.
func (s *Speaker) Run(ctx context.Context) error {
	s.configuring.Lock()
	s.live = true
	err := s.startLocked(ctx)
	s.configuring.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case err = <-s.faults:
	}
	s.configuring.Lock()
	defer s.configuring.Unlock()
	s.live = false
	return errors.Join(err, s.stopLocked(ctx))
}

// startLocked opens the sessions and announces what is wanted already. Where
// it fails, the speaker is at rest.
func (s *Speaker) startLocked(ctx context.Context) (err error) {
	s.mu.Lock()
	o := s.options
	s.mu.Unlock()
	if o.AS == 0 {
		return nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("bgp: %w", err), s.stopLocked(ctx))
		}
	}()
	if s.server == nil {
		s.server = server.NewBgpServer(server.LoggerOption(&logger{s.log, s.peers}))
		// GoBGP's loop has no end: this goroutine and those that it starts by
		// itself stay, idle after StopBgp, until the process ends. That is why
		// a speaker that begins anew takes the same server again.
		go s.server.Serve()
	}
	// The gates stay open until the routers have the withdrawals and GoBGP's
	// farewell.
	s.crew = newCrew(context.WithoutCancel(ctx), s.faults)
	if err := s.startInside(ctx, &o); err != nil {
		return err
	}
	gates := *s.gates.Load()
	if err := s.setPolicies(ctx, gates); err != nil {
		return err
	}
	if err := s.server.WatchEvent(s.crew.ctx, &api.WatchEventRequest{Peer: &api.WatchEventRequest_Peer{}}, s.event); err != nil {
		return err
	}
	// The routes first: a peer gets them all with its first update.
	s.mu.Lock()
	s.running = true
	err = s.applyLocked(ctx)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if o.ListenPort > 0 {
		if s.listeners, err = s.listen(ctx, o.ListenPort); err != nil {
			return fmt.Errorf("listen_port %d: %w", o.ListenPort, err)
		}
	}
	for _, l := range s.listeners {
		s.crew.start(func(ctx context.Context) error {
			defer context.AfterFunc(ctx, func() { l.Close() })()
			s.accept(l)
			return nil
		})
	}
	s.crew.start(s.watchBFD)
	s.open(gates)
	return nil
}

// open starts the sessions of gates.
func (s *Speaker) open(gates []*gate) {
	for _, g := range gates {
		if g.peer.BFD != (BFD{}) {
			s.crew.startOnce("bfd", s.monitor.Run)
		}
		g.crew = newCrew(s.crew.ctx, s.faults)
		g.crew.start(g.run)
		if g.peer.Interface != "" {
			g.crew.start(g.discover)
		}
	}
}

// stopLocked withdraws all routes and ends all sessions.
func (s *Speaker) stopLocked(ctx context.Context) error {
	if s.crew == nil {
		return nil
	}
	end := context.WithoutCancel(ctx)
	var err error
	s.mu.Lock()
	if s.running {
		wanted := s.wanted
		s.wanted = nil
		err = s.applyLocked(end)
		s.wanted, s.running, s.announced = wanted, false, map[routeKey]announced{}
	}
	s.mu.Unlock()
	gates := *s.gates.Load()
	if slices.ContainsFunc(gates, func(g *gate) bool { return g.carried.Load() != nil }) {
		time.Sleep(flushTime)
	}
	err = errors.Join(err, s.server.StopBgp(end, &api.StopBgpRequest{}))
	farewells(gates)
	for _, g := range gates {
		if g.crew != nil {
			g.crew.stop()
		}
	}
	s.crew.stop()
	s.crew, s.listeners = nil, nil
	return err
}

// startInside starts GoBGP on a free port of the loopback.
func (s *Speaker) startInside(ctx context.Context, o *Options) error {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	s.secret = newSecret()
	var err error
	for range portAttempts {
		var port uint16
		if port, err = freePort(loopback); err != nil {
			return fmt.Errorf("the loopback, by which the speaker is reached inside: %w", err)
		}
		s.inner = netip.AddrPortFrom(loopback, port)
		if err = s.server.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
			Asn: o.AS, RouterId: o.RouterID.String(),
			ListenPort: int32(port), ListenAddresses: []string{loopback.String()},
		}}); !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
	return err
}

// portAttempts is for a port that was free and is taken before GoBGP has it.
const portAttempts = 3

func freePort(at netip.Addr) (uint16, error) {
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}

// newSecret is a password for TCP MD5, by which no other process of the host
// can pass for a peer at GoBGP. It is empty where the kernel has no TCP MD5.
func newSecret() string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	secret := rand.Text()
	if setMD5(fd, inside(0), secret) != nil {
		return ""
	}
	return secret
}

// insideKey signs a gate's connection to GoBGP.
func (s *Speaker) insideKey(_, _ string, c syscall.RawConn) error {
	return control(c, func(fd int) error { return setMD5(fd, s.inner.Addr(), s.secret) })
}

// gateOf is the gate of the peer at an address, nil for none.
func (s *Speaker) gateOf(at netip.Addr) *gate {
	for _, g := range *s.gates.Load() {
		if s.peers.address(g.i) == at {
			return g
		}
	}
	return nil
}

// Announce makes routes what is announced: what is new or changed is sent,
// what is not among them is withdrawn. Before Run it only notes them. Where a
// route is refused the others are announced all the same.
func (s *Speaker) Announce(ctx context.Context, routes []Route) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = routes
	if !s.running {
		return nil
	}
	return s.applyLocked(ctx)
}

// applyLocked brings GoBGP's table from announced to wanted. Withdrawals go
// first: they are for what no longer works.
func (s *Speaker) applyLocked(ctx context.Context) error {
	var errs []error
	wanted := make(map[routeKey]announced, len(s.wanted))
	for i := range s.wanted {
		r := &s.wanted[i]
		wanted[r.key()] = announced{*r, s.marks(r)}
	}
	for key, old := range s.announced {
		if _, there := wanted[key]; there {
			continue
		}
		path, err := s.path(&old)
		if err == nil {
			err = s.server.DeletePath(ctx, &api.DeletePathRequest{TableType: api.TableType_GLOBAL, Path: path})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("bgp: withdraw %v: %w", old.Prefix, err))
			continue
		}
		delete(s.announced, key)
	}
	for key, r := range wanted {
		if old, there := s.announced[key]; there && old.equal(&r.Route) && slices.Equal(old.marks, r.marks) {
			continue
		}
		path, err := s.path(&r)
		if err == nil {
			_, err = s.server.AddPath(ctx, &api.AddPathRequest{TableType: api.TableType_GLOBAL, Path: path})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("bgp: announce %v: %w", r.Prefix, err))
			continue
		}
		s.announced[key] = r
	}
	return errors.Join(errs...)
}
