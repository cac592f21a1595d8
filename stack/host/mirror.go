package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

const (
	// maxHosts bounds the hosts on a link that have a hop of their own; packets
	// to further ones leave by the kernel.
	maxHosts = 4096

	// askQueue holds what queues ask for between two turns of the mirror. What
	// does not fit is asked for again by a later packet.
	askQueue = 256

	// settle is how long the mirror waits for further changes before it reads
	// the routes again, and settleShare the least multiple of the time that a
	// reading takes: routes that never come to rest cost no more than a
	// twentieth of a core.
	settle      = 20 * time.Millisecond
	settleShare = 20

	// tick is how often the mirror looks which neighbours are in use: well
	// within the 30 s that the kernel takes a neighbour for reachable.
	tick = 5 * time.Second

	// idleTicks is after how many ticks without a packet a host's hop is dropped.
	idleTicks = 24
)

// A mirror keeps what the link egress needs of the host's routes and
// neighbours. The queues read it through an atomic pointer; run, the only
// goroutine that changes it, is told of every change by the kernel.
type mirror struct {
	opt    Options
	log    *slog.Logger
	nl     *netlink.Handle
	raw    map[int]*nl.SocketHandle
	ways   atomic.Pointer[wayTable] // nil until the first reading
	asks   chan neighbourKey        // neighbours to resolve
	wants  chan netip.Addr          // hosts on a link that want a hop
	direct chan []netip.Addr        // all real servers of dr
	reread chan chan struct{}       // closed when everything has been read anew
	ended  chan struct{}            // closed when run returns

	// What run alone touches.
	neighbours map[neighbourKey]*neighbourEntry
	hosts      map[netip.Addr]*hostEntry
	last       struct{ policy, full bool } // what was logged

	// changed is called by run after routes or devices changed; lost after
	// something that may have been ours vanished, or a device came.
	changed, lost func()
}

type hostEntry struct {
	direct bool // stays for as long as it is a real server of dr
	idle   int  // ticks
}

var _ stack.Routes = (*mirror)(nil)

// newMirror opens the mirror's own sockets, so that its listings wait for
// nobody else's.
func newMirror(o Options) (*mirror, error) {
	m := &mirror{
		opt: o, log: o.Log,
		asks:       make(chan neighbourKey, askQueue),
		wants:      make(chan netip.Addr, askQueue),
		direct:     make(chan []netip.Addr),
		reread:     make(chan chan struct{}),
		ended:      make(chan struct{}),
		neighbours: make(map[neighbourKey]*neighbourEntry),
		hosts:      make(map[netip.Addr]*hostEntry),
	}
	var err error
	if m.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	if m.raw, err = strictSocket(); err != nil {
		m.nl.Close()
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return m, nil
}

func (m *mirror) close() {
	m.nl.Close()
	m.raw[unix.NETLINK_ROUTE].Close()
}

// Lookup implements stack.Routes.
func (m *mirror) Lookup(dst packet.Endpoint, hash uint32) *stack.Hop {
	t := m.ways.Load()
	if t == nil {
		return nil
	}
	hop, wanted := t.lookup(dst, hash)
	if wanted {
		select {
		case m.wants <- dst.Addr.Netip(dst.Family):
		default:
		}
	}
	return hop
}

// Resolve implements stack.Routes.
func (m *mirror) Resolve(h *stack.Hop) {
	select {
	case m.asks <- neighbourKey{h.IfIndex, h.Neighbour.Addr()}:
	default:
	}
}

// setDirect tells the real servers of dr and returns when each has its hop.
func (m *mirror) setDirect(ctx context.Context, addrs []netip.Addr) {
	select {
	case m.direct <- addrs:
		m.sync(ctx)
	case <-ctx.Done():
	case <-m.ended:
	}
}

// sync returns when the mirror shows the host as it was when sync was called.
func (m *mirror) sync(ctx context.Context) {
	done := make(chan struct{})
	select {
	case m.reread <- done:
	case <-ctx.Done():
		return
	case <-m.ended:
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// run follows the host until ctx ends.
func (m *mirror) run(ctx context.Context, events <-chan event) {
	defer close(m.ended)
	m.read()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	later := time.NewTimer(0)
	<-later.C
	pending, took := event{}, time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if e.neighbour != nil {
				m.update(e.neighbour)
				continue
			}
			if pending == (event{}) {
				later.Reset(max(settle, settleShare*took))
			}
			pending.routes = pending.routes || e.routes
			pending.lost = pending.lost || e.lost
		case <-later.C:
			start := time.Now()
			if pending.routes {
				m.read()
				m.changed()
			}
			if pending.lost {
				m.lost()
			}
			pending, took = event{}, time.Since(start)
		case done := <-m.reread:
			m.read()
			close(done)
		case k := <-m.asks:
			m.resolve(k)
		case a := <-m.wants:
			m.want(a)
		case addrs := <-m.direct:
			m.keepDirect(addrs)
		case <-ticker.C:
			m.age()
		}
	}
}

// read lists devices, rules, routes and neighbours and publishes a new table.
func (m *mirror) read() {
	b := wayBuilder{neighbour: m.neighbourOf}
	var err error
	if b.devices, err = ethernetDevices(m.nl); err == nil {
		b.policy, err = m.foreignPolicy()
	}
	if err == nil {
		err = m.listRoutes(&b)
	}
	if err != nil {
		m.log.Error("cannot read the host's routes, packets leave by the kernel", "error", err)
		b = wayBuilder{neighbour: m.neighbourOf, policy: true}
	}
	m.tell(&b)
	m.ways.Store(b.build(m.hostList()))
	m.dropUnused()
	m.readNeighbours()
	m.askDirect()
}

func (m *mirror) hostList() []netip.Addr {
	addrs := make([]netip.Addr, 0, len(m.hosts))
	for a := range m.hosts {
		addrs = append(addrs, a)
	}
	return addrs
}

// tell logs when the link egress has to leave all but dr to the kernel.
func (m *mirror) tell(b *wayBuilder) {
	now := struct{ policy, full bool }{b.policy, b.full}
	if now == m.last {
		return
	}
	m.last = now
	switch {
	case now.policy:
		m.log.Warn("policy rules of other programs decide routes: packets leave by the kernel, but for direct routing")
	case now.full:
		m.log.Warn("the host has too many routes to mirror: packets leave by the kernel, but for direct routing", "most", maxMirrored)
	default:
		m.log.Info("packets can leave by the link egress again")
	}
}

// foreignPolicy says whether there are policy rules that neither the kernel
// nor we have made: then routes depend on more than the destination.
func (m *mirror) foreignPolicy() (bool, error) {
	rules, err := listRules(m.nl)
	if err != nil {
		return false, err
	}
	for _, r := range rules {
		if r.Protocol != m.opt.Protocol && !isKernelRule(&r) {
			return true, nil
		}
	}
	return false, nil
}

// isKernelRule recognises the rules that every network namespace starts with.
func isKernelRule(r *netlink.Rule) bool {
	own := ruleFrom(r)
	plain := rule{family: own.family, pref: own.pref, table: own.table}
	if own != plain || r.OifName != "" || r.Dst != nil || r.Dport != nil || r.UIDRange != nil || r.Tos != 0 || r.TunID != 0 {
		return false
	}
	switch r.Priority {
	case 0:
		return r.Table == unix.RT_TABLE_LOCAL
	case 32766:
		return r.Table == unix.RT_TABLE_MAIN
	case 32767:
		return r.Table == unix.RT_TABLE_DEFAULT
	}
	return false
}

// listRoutes feeds all routes of the host to b.
func (m *mirror) listRoutes(b *wayBuilder) error {
	for _, family := range [...]int{unix.AF_INET, unix.AF_INET6} {
		for _, table := range [...]int{unix.RT_TABLE_LOCAL, unix.RT_TABLE_MAIN} {
			req := tableRequest(m.raw, family, table)
			err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE, func(msg []byte) bool {
				if r, ok := parseRoute(msg); ok && r.table == table {
					b.add(r)
				}
				return true
			})
			// What an interrupted listing missed is told by the event that interrupted it.
			if err != nil && !noFamily(err) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, netlink.ErrDumpInterrupted) {
				return err
			}
		}
	}
	return nil
}

// tableRequest asks for the routes of one table. netlink's own listing would
// read the whole of a router's tables to find a few routes.
func tableRequest(raw map[int]*nl.SocketHandle, family, table int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	req.Sockets = raw
	req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family)}})
	req.AddData(nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(uint32(table))))
	return req
}
