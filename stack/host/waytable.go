package host

import (
	"net/netip"

	"github.com/gaissmai/bart"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

// maxMirrored is the most routes that are mirrored. A router with the whole
// Internet's tables has a million, and a reading of them all at every change
// would cost more than the kernel's routing of what is not direct routing.
const maxMirrored = 100_000

// A wayTable is what the link egress knows of the host's routing: the tables
// local and main, and a hop for each host on a link that matters. It is never
// changed once it is published, but by a copy (bart's persistent inserts).
type wayTable struct {
	hosts *bart.Fast[*stack.Hop] // hosts on a link, each by its own address; looked up first and few
	local *bart.Lite             // where main has no say
	main  *bart.Table[*way]      // nil: hosts is all that may leave by link
	links *bart.Table[*way]      // the part of main that is on a link
}

// A way is a route of main. One without hops and without device is the kernel's.
type way struct {
	hops   []*stack.Hop // the gateways, none for a route on a link
	weight []uint32     // of each hop, summed up
	device *device      // of a route on a link
	mtu    int          // of a route on a link
}

// A device is an Ethernet device that frames can be sent to.
type device struct {
	index int
	name  string
	mac   stack.MAC
	mtu   int
}

// A wayBuilder builds a wayTable of what the kernel listed.
type wayBuilder struct {
	devices   map[int]*device // by index; only those that are up and speak Ethernet
	neighbour func(neighbourKey) *stack.Neighbour
	policy    bool // somebody else's policy rules are in the way

	best  map[netip.Prefix]kernelRoute // of main
	local bart.Lite
	full  bool
}

// A neighbourKey names a neighbour: the same address may be on two links.
type neighbourKey struct {
	link int
	addr netip.Addr
}

// add takes the next route of a listing, of any table.
func (b *wayBuilder) add(r kernelRoute) {
	switch {
	case r.table == unix.RT_TABLE_LOCAL:
		b.local.Insert(r.dst)
	case r.table != unix.RT_TABLE_MAIN:
	case len(b.best) >= maxMirrored && !r.onLink():
		b.full = true
	default:
		b.addMain(r)
	}
}

func (r *kernelRoute) onLink() bool { return len(r.hops) == 1 && !r.hops[0].via.IsValid() }

// addMain keeps the route with the lowest metric of each destination. Where
// the kernel's choice needs more than that, it is the kernel's.
func (b *wayBuilder) addMain(r kernelRoute) {
	if b.best == nil {
		b.best = make(map[netip.Prefix]kernelRoute)
	}
	alive := r.hops[:0]
	for _, h := range r.hops {
		if !h.dead {
			alive = append(alive, h)
		}
	}
	if r.hops = alive; len(alive) == 0 && r.kind == unix.RTN_UNICAST {
		return
	}
	old, ok := b.best[r.dst]
	switch {
	case !ok || r.metric < old.metric:
		r.odd = r.odd || ok && old.tos != 0
		b.best[r.dst] = r
	case r.metric == old.metric, r.tos != 0: // routers of unlike preference, type of service
		old.odd = true
		b.best[r.dst] = old
	}
}

// build ends the listing. wanted are the hosts on a link that shall have a hop.
func (b *wayBuilder) build(wanted []netip.Addr) *wayTable {
	t := &wayTable{hosts: new(bart.Fast[*stack.Hop]), local: &b.local, main: new(bart.Table[*way]), links: new(bart.Table[*way])}
	for dst, r := range b.best {
		w := b.way(&r)
		t.main.Insert(dst, w)
		if r.onLink() {
			t.links.Insert(dst, w)
		}
	}
	if b.policy || b.full {
		t.main = nil
	}
	for _, a := range wanted {
		if hop := t.hostHop(a, b.neighbour); hop != nil {
			t.hosts.Insert(netip.PrefixFrom(a, a.BitLen()), hop)
		}
	}
	return t
}

func (b *wayBuilder) way(r *kernelRoute) *way {
	kernel := &way{}
	if r.kind != unix.RTN_UNICAST || r.odd || r.tos != 0 || r.dst.Addr().IsLinkLocalUnicast() || r.dst.Addr().IsMulticast() {
		return kernel
	}
	w := &way{}
	sum := uint32(0)
	for _, h := range r.hops {
		d := b.devices[h.link]
		if d == nil || h.dark {
			return kernel
		}
		mtu := d.mtu
		if r.mtu != 0 {
			mtu = min(mtu, r.mtu)
		}
		if !h.via.IsValid() {
			if len(r.hops) > 1 {
				return kernel
			}
			return &way{device: d, mtu: mtu}
		}
		sum += uint32(h.weight)
		w.weight = append(w.weight, sum)
		w.hops = append(w.hops, d.hop(mtu, b.neighbour(neighbourKey{h.link, h.via})))
	}
	return w
}

func (d *device) hop(mtu int, n *stack.Neighbour) *stack.Hop {
	return &stack.Hop{Device: d.name, IfIndex: d.index, MTU: mtu, Source: d.mac, Neighbour: n}
}

// hostHop is the hop to a host on a link, nil if a is none.
func (t *wayTable) hostHop(a netip.Addr, neighbour func(neighbourKey) *stack.Neighbour) *stack.Hop {
	if t.local.Contains(a) {
		return nil
	}
	from := t.main
	if from == nil {
		from = t.links
	}
	w, ok := from.Lookup(a)
	if !ok || w.device == nil {
		return nil
	}
	return w.device.hop(w.mtu, neighbour(neighbourKey{w.device.index, a}))
}

// lookup is the hop to dst. A destination on a link that has no hop yet is
// told by wanted.
func (t *wayTable) lookup(dst packet.Endpoint, hash uint32) (hop *stack.Hop, wanted bool) {
	a := dst.Addr.Netip(dst.Family)
	if hop, ok := t.hosts.Lookup(a); ok {
		return hop, false
	}
	if t.main == nil || t.local.Contains(a) {
		return nil, false
	}
	w, ok := t.main.Lookup(a)
	switch {
	case !ok:
		return nil, false
	case w.device != nil:
		return nil, true
	case len(w.hops) == 0:
		return nil, false
	case len(w.hops) == 1:
		return w.hops[0], false
	}
	total := w.weight[len(w.weight)-1]
	at := uint32(uint64(hash*hashMix) * uint64(total) >> 32)
	for i, end := range w.weight {
		if at < end {
			return w.hops[i], false
		}
	}
	return nil, false
}

// hashMix spreads the bits of a hash into its upper half (2^32 over the golden ratio).
const hashMix = 0x9e3779b1
