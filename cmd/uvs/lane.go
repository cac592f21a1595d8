package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
	"github.com/uvs-project/uvs/stack/fastlane"
	"github.com/uvs-project/uvs/stack/host"
)

// A lane joins the fast lane to the balancer, which offers it flows, and to
// the host's routes, which say where their packets go.
type lane struct {
	*fastlane.Lane
	host       *host.Host
	log        *slog.Logger
	changed    chan struct{} // the host's routes or devices have
	offerEvery int           // device.offload_every
	refused    atomic.Uint64 // offers for which it had no room, or that the kernel did not take

	mu      sync.Mutex
	trouble map[string]string // what was last logged of each task; guarded by mu
}

// laneServers is how many real servers the lane can count for. Flows of those
// beyond stay on the TUN road.
const laneServers = 1 << 15

// openLane opens the fast lane if cfg wants it and the machine can. Where it
// is not required, why says what is in the way. What a killed uvs has left of
// its lane is removed in any case.
func openLane(cfg *config.Config, h *host.Host, log *slog.Logger) (l *lane, why string, err error) {
	switch n, err := fastlane.Clean(); {
	case err != nil:
		log.Warn("a filter of a killed uvs stays; it does nothing any more", "error", err)
	case n > 0:
		log.Info("removed the fast lane's filters that a killed uvs has left", "filters", n)
	}
	switch {
	case cfg.Device.Offload == config.OffloadOff:
		return nil, "device.offload is off", nil
	case cfg.Device.Egress == config.EgressKernel:
		return nil, "device.egress is kernel: every packet goes through the host's routing", nil
	}
	f, err := fastlane.Open(fastlane.Options{Flows: cfg.Limits.Flows, Accounts: 2 * laneServers})
	switch {
	case err == nil:
		return &lane{Lane: f, offerEvery: cfg.Device.OffloadEvery, host: h, log: log, changed: make(chan struct{}, 1), trouble: map[string]string{}}, "", nil
	case cfg.Device.Offload == config.OffloadRequired:
		return nil, "", fmt.Errorf("device.offload is required: %w", err)
	}
	return nil, err.Error(), nil
}

// Offer implements lb.Offload.
func (l *lane) Offer(o *lb.Offer) bool {
	if o.Account >= 2*laneServers || !fastlane.Carries(&o.Rewrite, o.Tuple.Family, o.Tuple.Proto) {
		return false
	}
	generation := l.Generation() // routes that change from now on make the entry stale
	hop := l.host.Routes().Lookup(o.Rewrite.Goes(&o.Tuple), stack.FlowHash(&o.Tuple))
	if hop == nil {
		return false
	}
	e := fastlane.Entry{
		Tuple: o.Tuple, Rewrite: o.Rewrite, Account: o.Account,
		Hop: fastlane.Hop{IfIndex: hop.IfIndex, MTU: hop.MTU, Addr: hop.Neighbour.Addr()},
	}
	if o.MTU > 0 {
		e.Hop.MTU = min(e.Hop.MTU, o.MTU)
	}
	if l.Put(&e, generation) != nil {
		l.refused.Add(1)
		return false
	}
	return true
}

// whyNot says why the lane does not carry the packets t of one direction of f.
func (l *lane) whyNot(f *lb.FlowInfo, d lb.Direction, t *packet.Tuple, rw *packet.Rewrite) string {
	switch {
	case !fastlane.Carries(rw, t.Family, t.Proto):
		return "the fast lane does not carry this protocol, or this kind of tunnel"
	case f.Account(d) >= 2*laneServers:
		return fmt.Sprintf("the fast lane counts for %d real servers only", laneServers)
	case f.Stays() != "":
		return f.Stays()
	case l.host.Routes().Lookup(rw.Goes(t), stack.FlowHash(t)) == nil:
		return "only the host's routing knows the way"
	case f.Offered:
		return "the fast lane had no room, or routes or real servers have changed since: it is offered again by its next packets"
	}
	return fmt.Sprintf("it was not offered yet: one in %d packets of established flows offers its flow", l.offerEvery)
}

// Withdraw implements lb.Offload. An entry that is there can be deleted as long
// as the lane is open.
func (l *lane) Withdraw(t *packet.Tuple) { _ = l.Delete(t) }

// Invalidate implements lb.Offload. Where it fails the heartbeat does too,
// which logs it and ends the lane.
func (l *lane) Invalidate() { _ = l.Lane.Invalidate() }

// Count implements lb.Offload.
func (l *lane) Count(account uint32) (packets, bytes uint64) {
	if account >= 2*laneServers {
		return 0, 0
	}
	c, err := l.Lane.Count(account)
	if err != nil {
		return 0, 0
	}
	return c.Packets, c.Bytes
}

// routesChanged tells run that the host's routes or devices have changed.
func (l *lane) routesChanged() { signalOne(l.changed) }

const (
	beatEvery = 500 * time.Millisecond // a quarter of what the program waits for

	// attachEvery is how soon a removed program is attached anew. Where that
	// does not last, or fails, twice as much is waited each time, up to
	// attachSlowest.
	attachEvery   = 5 * time.Second
	attachSlowest = 5 * time.Minute
)

// run keeps the lane alive and attached where packets arrive.
func (l *lane) run(ctx context.Context) error {
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	wait := attachEvery
	attach := time.NewTimer(wait)
	defer attach.Stop()
	l.check("attach", l.attach())
	l.check("heartbeat", l.Beat())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			l.check("heartbeat", l.Beat())
		case <-l.changed:
			l.check("heartbeat", l.Lane.Invalidate())
			l.check("attach", l.attach())
		case <-attach.C:
			err := l.attach()
			l.check("attach", err)
			if wait = min(2*wait, attachSlowest); err == nil {
				wait = attachEvery
			}
			attach.Reset(wait)
		}
	}
}

func (l *lane) attach() error {
	devices, err := l.host.Uplinks()
	if err != nil {
		return err
	}
	return l.Attach(devices)
}

// check logs the trouble of a task when it comes and when it goes.
func (l *lane) check(task string, err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	l.mu.Lock()
	was := l.trouble[task]
	l.trouble[task] = now
	l.mu.Unlock()
	if now == was {
		return
	}
	if err != nil {
		l.log.Warn("the fast lane is in trouble; what it does not carry takes the TUN road", "task", task, "error", err)
	} else {
		l.log.Info("the fast lane is well again", "task", task)
	}
}

// laneOn is the state of a lane that nothing is in the way of.
const laneOn = "on"

// state is laneOn, with what is in its way.
func (l *lane) state() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := laneOn
	for _, task := range slices.Sorted(maps.Keys(l.trouble)) {
		if l.trouble[task] != "" {
			state += fmt.Sprintf("; %s: %s", task, strings.ReplaceAll(l.trouble[task], "\n", "; "))
		}
	}
	return state
}

var _ lb.Offload = (*lane)(nil)
