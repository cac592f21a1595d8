// Package drain takes real servers, VIPs or a whole director out of service
// without breaking what is under way.
//
// A drain goes through two phases. While it is Leaving, new flows go elsewhere:
// a real server gets none, and routers are asked to prefer other directors for
// a VIP (RFC 8326). It is Gone once few enough flows are left, once nothing has
// come for a while, or at its deadline; a VIP is withdrawn then. It stays so
// until it is undone.
//
// The package decides only. What the phases mean to weights and routes is for
// those who ask it.
package drain

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A Target is what is drained: exactly one of its parts is set.
type Target struct {
	Node    bool           // the director with all its VIPs
	VIP     netip.Addr     // one VIP
	Service string         // with Server: of this service; empty: of every service that has it
	Server  netip.AddrPort // a real server
}

// String is how logs and the command name the target.
func (t Target) String() string {
	switch {
	case t.Node:
		return "node"
	case t.VIP.IsValid():
		return "VIP " + t.VIP.String()
	}
	server := t.Server.String()
	if t.Server.Port() == 0 {
		server = t.Server.Addr().String() // as the configuration has it
	}
	if t.Service != "" {
		return fmt.Sprintf("real server %s of service %s", server, t.Service)
	}
	return "real server " + server
}

func (t Target) check() error {
	n := 0
	for _, set := range []bool{t.Node, t.VIP.IsValid(), t.Server.Addr().IsValid()} {
		if set {
			n++
		}
	}
	if n != 1 || t.Service != "" && !t.Server.Addr().IsValid() {
		return errors.New("name one of: the node, a VIP, a real server")
	}
	return nil
}

// Options say when a drain has done what it can.
type Options struct {
	Deadline time.Duration // at the latest; 0: at once
	Flows    int64         // so many active flows may be left
	Quiet    time.Duration // no packet from a client for so long; 0: does not count
}

// Phase is how far a drain has come.
type Phase string

const (
	None    Phase = ""        // not drained
	Leaving Phase = "leaving" // gets nothing new
	Gone    Phase = "gone"    // done with
)

// Why a drain is Gone.
const (
	causeFlows    = "few flows are left"
	causeQuiet    = "no packet comes any more"
	causeDeadline = "the deadline has come"
)

// Status is one drain as it stands.
type Status struct {
	Target Target
	Options
	Phase Phase
	Cause string // why it is Gone
	Began time.Time
	Left  int64 // active flows when it was last looked at
}

// A Load is what goes over a target.
type Load struct {
	Flows   int64  // active
	Packets uint64 // from clients, ever
}

// Drains are those of one director. Its methods may be called from any
// goroutine.
type Drains struct {
	mu  sync.Mutex
	all []*running // guarded by mu
}

type running struct {
	Status
	packets uint64 // when it was last looked at
	moved   time.Time
}

// maxDrains bounds what can be drained at one time.
const maxDrains = 10_000

// Start drains a target that has the load l now. A drain of the same target
// that is under way goes on with the new options.
func (d *Drains) Start(t Target, o Options, l Load, now time.Time) error {
	if err := t.check(); err != nil {
		return err
	}
	if o.Deadline < 0 || o.Flows < 0 || o.Quiet < 0 {
		return errors.New("deadline, flows and quiet are not below 0")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.all {
		if r.Target == t {
			r.Options, r.Began, r.moved = o, now, now
			return nil
		}
	}
	if len(d.all) == maxDrains {
		return fmt.Errorf("%d drains are under way; undo some", maxDrains)
	}
	d.all = append(d.all, &running{Status: Status{Target: t, Options: o, Phase: Leaving, Began: now, Left: l.Flows}, packets: l.Packets, moved: now})
	return nil
}

// Undo ends the drain of a target. It is false where there is none.
func (d *Drains) Undo(t Target) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := len(d.all)
	d.all = slices.DeleteFunc(d.all, func(r *running) bool { return r.Target == t })
	return len(d.all) < before
}

// Step looks at every drain that is Leaving and says which are Gone now.
func (d *Drains) Step(now time.Time, load func(Target) Load) (gone []Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.all {
		l := load(r.Target)
		if l.Packets != r.packets {
			r.packets, r.moved = l.Packets, now
		}
		r.Left = l.Flows
		if r.Phase == Gone {
			continue
		}
		switch {
		case now.Sub(r.Began) >= r.Deadline:
			r.Cause = causeDeadline
		case l.Flows <= r.Flows:
			r.Cause = causeFlows
		case r.Quiet > 0 && now.Sub(r.moved) >= r.Quiet:
			r.Cause = causeQuiet
		default:
			continue
		}
		r.Phase = Gone
		gone = append(gone, r.Status)
	}
	return gone
}

// Of is the phase of exactly this target.
func (d *Drains) Of(t Target) Phase {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.all {
		if r.Target == t {
			return r.Phase
		}
	}
	return None
}

// VIP is the phase of a VIP: its own or the node's, whichever is further.
func (d *Drains) VIP(vip netip.Addr) Phase {
	own, node := d.Of(Target{VIP: vip}), d.Of(Target{Node: true})
	if own == Gone || node == Gone {
		return Gone
	}
	return cmp.Or(own, node)
}

// Server says whether a real server of a service is drained.
func (d *Drains) Server(service string, server netip.AddrPort) bool {
	return d.Of(Target{Server: server}) != None || d.Of(Target{Service: service, Server: server}) != None
}

// All lists the drains in the order of their start.
func (d *Drains) All() []Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]Status, len(d.all))
	for i, r := range d.all {
		list[i] = r.Status
	}
	return list
}
