package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"

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

// New makes a speaker. It touches nothing until Run.
func New(o Options) (*Speaker, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Speaker{options: o, log: o.Log, peers: newPeerTable(&o), monitor: bfd.New(o.Log), announced: map[routeKey]Route{}}, nil
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
	err := s.serve(ctx)
	end := context.WithoutCancel(ctx)
	err = errors.Join(err, s.Announce(end, nil))
	s.mu.Lock()
	s.running = false
	s.mu.Unlock()
	if s.peers.anyUp() {
		time.Sleep(flushTime)
	}
	return errors.Join(err, s.server.StopBgp(end, &api.StopBgpRequest{}))
}

// serve runs what goes on beside the sessions until ctx ends or one of it
// fails.
func (s *Speaker) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks []func(context.Context) error
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
	port := int32(-1)
	if s.options.ListenPort > 0 {
		port = int32(s.options.ListenPort)
	}
	if err := s.server.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: s.options.AS, RouterId: s.options.RouterID.String(), ListenPort: port,
	}}); err != nil {
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
	for i := range s.options.Peers {
		p := &s.options.Peers[i]
		if !p.Address.IsValid() {
			continue // until it is found
		}
		if err := s.server.AddPeer(ctx, &api.AddPeerRequest{Peer: s.peer(p, p.Address)}); err != nil {
			return fmt.Errorf("peer %s: %w", p.Name, err)
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
