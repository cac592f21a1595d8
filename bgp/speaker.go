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
	options Options
	log     *slog.Logger
	server  *server.BgpServer
	peers   *peerTable
	monitor *bfd.Monitor
	gates   []*gate        // as Options.Peers
	inner   netip.AddrPort // where GoBGP listens
	secret  string         // without which nobody connects there; empty where the kernel has no TCP MD5

	watching sync.Mutex // held while BFD is told whom to watch

	mu        sync.Mutex // held while the local table is changed; guards what follows
	running   bool
	wanted    []Route            // of the last Announce
	announced map[routeKey]Route // what GoBGP has
}

// flushTime is between the withdrawal of all routes and the end of the
// sessions. Routers have taken the withdrawal milliseconds after it; the rest
// is for packets that were on their way.
const flushTime = 200 * time.Millisecond

// farewellTime is for the end of the sessions to pass through the gates.
const farewellTime = 50 * time.Millisecond

// New makes a speaker. It touches nothing until Run.
func New(o Options) (*Speaker, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	s := &Speaker{options: o, log: o.Log, peers: newPeerTable(&o), monitor: bfd.New(o.Log), announced: map[routeKey]Route{}}
	for i := range o.Peers {
		s.gates = append(s.gates, newGate(s, i))
	}
	return s, nil
}

// Run holds the sessions until ctx ends; it then withdraws every route, gives
// the routers a moment to send their packets elsewhere, and closes the
// sessions. It returns nil when ctx ended it. It is called once.
//
// GoBGP's own loop cannot be ended: some idle goroutines stay until the
// process does.
func (s *Speaker) Run(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("bgp: %w", err)
	}
	// The gates stay open until the routers have the withdrawals and GoBGP's
	// farewell.
	end, endGates := context.WithCancel(context.WithoutCancel(ctx))
	defer endGates()
	served := make(chan error, 1)
	go func() { served <- s.serve(end) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		return err
	}
	err = s.Announce(end, nil)
	s.mu.Lock()
	s.running = false
	s.mu.Unlock()
	up := s.peers.anyUp()
	if up {
		time.Sleep(flushTime)
	}
	err = errors.Join(err, s.server.StopBgp(end, &api.StopBgpRequest{}))
	if up {
		time.Sleep(farewellTime)
	}
	endGates()
	return errors.Join(err, <-served)
}

// serve runs what goes on beside the sessions until ctx ends or one of it
// fails.
func (s *Speaker) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks []func(context.Context) error
	if s.options.ListenPort > 0 {
		listeners, err := s.listen(ctx)
		if err != nil {
			return fmt.Errorf("bgp: listen_port %d: %w", s.options.ListenPort, err)
		}
		for _, l := range listeners {
			tasks = append(tasks, func(ctx context.Context) error {
				defer context.AfterFunc(ctx, func() { l.Close() })()
				s.accept(l)
				return nil
			})
		}
	}
	for _, g := range s.gates {
		tasks = append(tasks, g.run)
	}
	if slices.ContainsFunc(s.options.Peers, func(p Peer) bool { return p.BFD != BFD{} }) {
		tasks = append(tasks, s.monitor.Run, s.watchBFD)
	}
	for i := range s.options.Peers {
		if s.options.Peers[i].Interface != "" {
			tasks = append(tasks, func(ctx context.Context) error { return s.discover(ctx, i) })
		}
	}
	errs := make(chan error, len(tasks))
	for _, task := range tasks {
		go func() {
			defer cancel() // the others end with it
			errs <- task(ctx)
		}()
	}
	<-ctx.Done()
	var all []error
	for range tasks {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// start opens the sessions and announces what is wanted already.
func (s *Speaker) start(ctx context.Context) error {
	s.server = server.NewBgpServer(server.LoggerOption(&logger{s.log, s.peers}))
	go s.server.Serve()
	if err := s.startInside(ctx); err != nil {
		return err
	}
	if err := s.setPolicies(ctx); err != nil {
		return err
	}
	if err := s.server.WatchEvent(ctx, &api.WatchEventRequest{Peer: &api.WatchEventRequest_Peer{}}, s.event); err != nil {
		return err
	}
	// The routes first: a peer gets them all with its first update.
	s.mu.Lock()
	s.running = true
	err := s.applyLocked(ctx)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return nil
}

// startInside starts GoBGP on a free port of the loopback.
func (s *Speaker) startInside(ctx context.Context) error {
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
			Asn: s.options.AS, RouterId: s.options.RouterID.String(),
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
	for i, g := range s.gates {
		if s.peers.address(i) == at {
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
	wanted := make(map[routeKey]*Route, len(s.wanted))
	for i := range s.wanted {
		wanted[s.wanted[i].key()] = &s.wanted[i]
	}
	for key, old := range s.announced {
		if wanted[key] != nil {
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
		if old, there := s.announced[key]; there && old.equal(r) {
			continue
		}
		path, err := s.path(r)
		if err == nil {
			_, err = s.server.AddPath(ctx, &api.AddPathRequest{TableType: api.TableType_GLOBAL, Path: path})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("bgp: announce %v: %w", r.Prefix, err))
			continue
		}
		s.announced[key] = *r
	}
	return errors.Join(errs...)
}
