package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/admin"
	"github.com/uvs-project/uvs/announce"
	"github.com/uvs-project/uvs/bgp"
	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/drain"
	"github.com/uvs-project/uvs/health"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/metrics"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
	"github.com/uvs-project/uvs/stack/host"
)

// A director is a running uvs: all its parts, joined.
//
// It starts in this order, and stops in the reverse one. Each step touches
// more of the machine than the one before; the last lets packets in.
//
//  1. the admin socket, which is the lock against a second director
//  2. the TUN device
//  3. what the host knows of it, still without steering
//  4. the balancer with its services, the road with its VIPs
//  5. the goroutines
//  6. the steering of VIPs, LIPs and replies into the device
//  7. the announcement of VIPs to routers
type director struct {
	file    string
	log     *slog.Logger
	started time.Time

	admin    *admin.Server
	tun      *stack.DeviceTUN
	host     *host.Host
	balancer *lb.Balancer
	road     *stack.Road
	speaker  *bgp.Speaker
	lane     *lane  // nil: there is none
	laneOff  string // why
	drains   drain.Drains

	probe *selfProbe

	exitWhenGone atomic.Bool // the drain of the node ends the director
	health       *health.Monitor

	healthChanged chan struct{} // holds one token after a change
	failing       chan lb.Failing
	carrying      atomic.Bool    // packets are carried
	undo          []func() error // what close does, the last first
	hostClosed    sync.Once

	applying sync.Mutex // held while the balancer is given a configuration; before mu
	applied  *plan      // guarded by applying; what it has, but with all weights as configured
	steered  bool       // guarded by applying; the host sends packets to VIPs to us

	announcing sync.Mutex                         // held while VIPs are judged; before mu
	decider    *announce.Decider                  // guarded by announcing
	verdicts   map[netip.Addr]announce.Verdict    // guarded by announcing; the latest
	judged     atomic.Pointer[[]announce.Verdict] // the same, for who only looks; nil: none yet
	lookAgain  *time.Timer                        // has them judged again when a hold-down ends

	mu      sync.Mutex     // guards what a reload changes
	cfg     *config.Config // in force
	plan    *plan          // of cfg
	loaded  time.Time
	failed  error // of the last reload; nil if it succeeded
	reloads reloadCounts
}

// reloadCounts count reloads since the start.
type reloadCounts struct{ good, bad uint64 }

// startDirector builds the director of cfg, which came from file, up to step
// 4. Where it fails, nothing is left behind.
func startDirector(cfg *config.Config, file string, log *slog.Logger) (_ *director, err error) {
	d := &director{file: file, log: log, started: time.Now(), cfg: cfg, loaded: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	queues := int(cfg.Device.Queues)
	if queues == 0 {
		queues = runtime.GOMAXPROCS(0)
	}
	// A queue's goroutine yields its processor to no other in time, neither
	// while it is busy nor while it waits for the next packet: those that
	// answer, check, expire and reload get as many for themselves.
	procs := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(procs + queues)
	d.onClose(func() error { runtime.GOMAXPROCS(procs); return nil })

	if d.admin, err = admin.Listen(cfg.Admin.Socket, cfg.Admin.Listen); err != nil {
		return nil, err
	}
	d.onClose(d.admin.Close)

	if d.tun, err = stack.OpenTUN(stack.TUNOptions{Name: cfg.Device.Name, Queues: queues}); err != nil {
		return nil, err
	}
	d.onClose(d.tun.Close)

	if d.host, err = host.Open(host.Options{
		Device: cfg.Device.Name, Preference: cfg.Device.Table, Table: cfg.Device.Table, Log: log,
	}); err != nil {
		return nil, err
	}
	d.onClose(d.closeHost)

	balance := lb.Options{Queues: queues + 1, Flows: cfg.Limits.Flows, Answers: cfg.Limits.Answers, EveryAnswer: cfg.Limits.Answers == 0, Memory: host.FreeMemory, OnDefence: d.defended}
	d.failing = make(chan lb.Failing, maxFailing)
	balance.OnFailing = d.fails
	balance.Emit = func(p *packet.Packet) bool { return d.road.Emit(p) } // the road is there before anything expires
	if d.lane, d.laneOff, err = openLane(cfg, d.host, log); err != nil {
		return nil, err
	}
	if d.lane != nil {
		d.onClose(d.lane.Close)
		balance.Offload, balance.OfferEvery = d.lane, cfg.Device.OffloadEvery
	}
	if d.balancer, err = lb.New(balance); err != nil {
		return nil, err
	}
	d.onClose(func() error { d.balancer.Close(); return nil })

	d.healthChanged = make(chan struct{}, 1)
	d.decider = announce.NewDecider()
	if d.probe, err = newSelfProbe(log); err != nil {
		return nil, err
	}
	d.lookAgain = time.AfterFunc(never, func() { signalOne(d.healthChanged) })
	d.onClose(func() error { d.lookAgain.Stop(); return nil })
	d.health = health.NewMonitor(health.MonitorOptions{Changed: func() { signalOne(d.healthChanged) }, Log: log})

	if d.plan, err = d.newPlan(cfg); err != nil {
		return nil, err
	}
	d.road, err = stack.New(d.tun, func(queue int) stack.Handler { return d.balancer.Queue(queue) }, stack.Options{
		Egress: stack.EgressMode(cfg.Device.Egress), Routes: d.host.Routes(),
	})
	if err != nil {
		return nil, err
	}
	d.onClose(d.road.Close)
	speak, err := speakerOptions(cfg, log)
	if err != nil {
		return nil, err
	}
	if d.speaker, err = bgp.New(speak); err != nil {
		return nil, err
	}
	return d, d.balance(d.plan)
}

// onClose adds a step to undo. Steps are undone the last first.
func (d *director) onClose(f func() error) { d.undo = append(d.undo, f) }

// close undoes what startDirector did. Nothing may be running any more.
func (d *director) close() error {
	var errs []error
	for len(d.undo) > 0 {
		last := len(d.undo) - 1
		errs = append(errs, d.undo[last]())
		d.undo = d.undo[:last]
	}
	return errors.Join(errs...)
}

// run carries packets until ctx ends, leave receives or a part fails. Whenever
// hup receives, the configuration that load returns is put into force. The
// director is closed after it.
func (d *director) run(ctx context.Context, leave, hup <-chan os.Signal, load func() (*config.Config, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Parts stop in the reverse order. The host's steering goes before the
	// road, so that nothing is sent to a device that nobody reads, and those
	// that ask or change the host before that.
	d.onClose(startParts(ctx, cancel, []part{
		{"admin", func(ctx context.Context) error {
			return d.admin.Run(ctx, admin.Handlers{State: d.state, Metrics: metrics.Handler(d.source()), Healthy: d.healthy, Drains: d.drainer(), Flows: d.lister()})
		}},
		{"flow table", func(ctx context.Context) error { return d.balancer.Run(ctx, d.road.Now) }},
		{"road", d.road.Run},
		{"health", d.health.Run},
		{"weights", d.followHealth},
		{"ejections", d.followFailing},
	}).stop)
	d.onClose(d.closeHost)
	d.awaitFirstResults(ctx)
	if err := d.announce(ctx); err != nil { // the LAN hears at once of what is steered
		return errors.Join(err, d.close())
	}
	if err := d.steer(ctx, d.plan); err != nil {
		return errors.Join(err, d.close())
	}
	d.host.OnTunnelError(d.road.Inject)
	d.watchThrough()
	d.log.Info("carrying packets", "device", d.tun.Name(), "queues", len(d.tun.Queues()), "offloads", d.tun.Offloads(),
		"fast_lane", d.laneState(), "services", len(d.cfg.Services), "version", versionString())
	d.carrying.Store(true)
	last := []part{
		{"routes", d.followRoutes},
		{"drains", d.followDrains},
		{"self-probe", func(ctx context.Context) error {
			return d.probe.run(ctx, func() { signalOne(d.healthChanged) })
		}},
		{"reload", func(ctx context.Context) error { return d.reloadOn(ctx, hup, load) }},
	}
	if err := d.announce(ctx); err != nil {
		return errors.Join(err, d.close())
	}
	last = append(last, part{"bgp", d.speaker.Run})
	if d.lane != nil {
		last = append(last, part{"fast lane", d.lane.run})
	}
	d.onClose(startParts(ctx, cancel, last).stop)

	select {
	case <-ctx.Done():
	case <-leave:
		d.leave(ctx, leave)
	}
	d.carrying.Store(false)
	d.log.Info("stopping")
	return d.close()
}

// followRoutes keeps the path MTUs as the host's routes have them. What changed
// since they were first read, nobody has told.
func (d *director) followRoutes(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	tell := func() {
		if d.lane != nil {
			d.lane.routesChanged()
		}
		signalOne(changed)
	}
	d.host.OnChange(tell)
	tell()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			d.applying.Lock()
			d.setPathMTUs(d.applied.servers)
			d.applying.Unlock()
		}
	}
}

// laneState is "on" with what is in its way, or why the fast lane is off.
func (d *director) laneState() string {
	if d.lane != nil {
		return d.lane.state()
	}
	return "off: " + d.laneOff
}

// never is when a timer fires that nobody has set.
const never = 100 * 365 * 24 * time.Hour

// signalOne wakes who reads c, which has room for one: more would say the same.
func signalOne(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// closeHost undoes what was changed on the host, once.
func (d *director) closeHost() (err error) {
	d.hostClosed.Do(func() { err = d.host.Close() })
	return err
}

// balance puts p into force in the parts that check real servers and handle
// packets.
func (d *director) balance(p *plan) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	d.setPathMTUs(p.servers)
	d.health.Set(d.members(p))
	if err := d.balancer.Apply(p.weighted(d.status())); err != nil {
		return err
	}
	d.applied = p
	if err := d.balancer.SetDefence(p.defence); err != nil {
		return err
	}
	return d.road.SetVIPs(p.vips)
}

// defended logs that a defence was switched on or off.
func (d *director) defended(s lb.DefenceState) {
	d.log.Warn("a defence was switched", "drop_entry", s.DropEntry, "drop_packet", s.DropRate, "secure_tcp", s.SecureTCP,
		"few_flows", s.FewFlows, "low_memory", s.LowMemory)
}

// steer asks the host to send p's packets to the device. What the host does
// not let us set is no error but a warning.
func (d *director) steer(ctx context.Context, p *plan) error {
	warnings, err := split(d.host.Apply(ctx, p.host))
	if err != nil {
		return err
	}
	for _, w := range warnings {
		d.log.Warn("the host is not as uvs needs it", "setting", w)
	}
	return nil
}

// split tells the settings that the host refuses from real errors.
func split(err error) (warnings []string, rest error) {
	var missing *host.MissingSetting
	switch e := err.(type) {
	case nil:
		return nil, nil
	case interface{ Unwrap() []error }:
		var errs []error
		for _, one := range e.Unwrap() {
			w, r := split(one)
			warnings = append(warnings, w...)
			errs = append(errs, r)
		}
		return warnings, errors.Join(errs...)
	default:
		if errors.As(err, &missing) {
			return []string{missing.Error()}, nil
		}
		return nil, err
	}
}

// newPlan is what cfg asks for on this host, whose routes it must find.
func (d *director) newPlan(cfg *config.Config) (*plan, error) {
	p, err := newPlan(cfg, d.host.SourceFor)
	errs := []error{err}
	for _, rip := range p.servers {
		errs = append(errs, d.host.CheckRoute(rip, slices.Contains(p.host.OnLink, rip)))
	}
	return p, errors.Join(errs...)
}

// setPathMTUs tells the balancer what fits on the way to each real server.
func (d *director) setPathMTUs(servers []netip.Addr) {
	for _, rip := range servers {
		mtu, err := d.host.PathMTU(rip)
		if err != nil {
			mtu = 0 // no route just now: nothing gets there, of whatever size
		}
		d.balancer.SetPathMTU(rip, mtu)
	}
}

// healthy is nil while packets are carried.
func (d *director) healthy() error {
	if !d.carrying.Load() {
		return errors.New("not carrying packets: starting or stopping")
	}
	return nil
}
