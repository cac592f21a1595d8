package host

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/stack"
)

// A neighbourEntry is a neighbour and what the kernel last said of it.
type neighbourEntry struct {
	*stack.Neighbour
	state int // NUD_*
}

// usableStates are those in which the kernel itself would send to the address.
const usableStates = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT

// neighbourOf is the one Neighbour of a key, made when first asked for.
func (m *mirror) neighbourOf(k neighbourKey) *stack.Neighbour {
	e := m.neighbours[k]
	if e == nil {
		e = &neighbourEntry{Neighbour: stack.NewNeighbour(k.addr)}
		m.neighbours[k] = e
	}
	return e.Neighbour
}

// update takes over what the kernel says of a neighbour.
func (m *mirror) update(n *netlink.NeighUpdate) {
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok || n.Flags&netlink.NTF_PROXY != 0 {
		return
	}
	e := m.neighbours[neighbourKey{n.LinkIndex, a.Unmap()}]
	if e == nil {
		return
	}
	e.state = n.State
	switch {
	case n.Type == unix.RTM_DELNEIGH:
		e.state = netlink.NUD_NONE
		e.Fail()
	case n.State&usableStates != 0 && len(n.HardwareAddr) == 6:
		e.Set(stack.MAC(n.HardwareAddr))
	case n.State&netlink.NUD_FAILED != 0:
		e.Fail()
	}
}

// readNeighbours takes over all that the kernel knows: at the start, for hops
// that are new, and after events were lost.
func (m *mirror) readNeighbours() {
	for _, family := range [...]int{unix.AF_INET, unix.AF_INET6} {
		list, err := dump(func() ([]netlink.Neigh, error) { return m.nl.NeighList(0, family) })
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			if !noFamily(err) {
				m.log.Error("cannot read the host's neighbours", "error", err)
			}
			continue
		}
		for _, n := range list {
			m.update(&netlink.NeighUpdate{Type: unix.RTM_NEWNEIGH, Neigh: n})
		}
	}
}

// resolve lets the kernel ask for a link address, as a packet of its own would
// (NTF_USE). The entry is an ordinary one that the kernel forgets by itself;
// one that it keeps fresh for ever (NTF_EXT_MANAGED) would outlive a crash.
func (m *mirror) resolve(k neighbourKey) {
	e := m.neighbours[k]
	if e == nil {
		return
	}
	family := unix.AF_INET
	if k.addr.Is6() {
		family = unix.AF_INET6
	}
	err := m.nl.NeighSet(&netlink.Neigh{LinkIndex: k.link, Family: family, IP: k.addr.AsSlice(), State: netlink.NUD_NONE, Flags: netlink.NTF_USE})
	if err != nil {
		m.log.Debug("cannot resolve a neighbour", "address", k.addr, "error", err)
		e.Fail()
		return
	}
	m.readNeighbour(k, family)
}

// readNeighbour takes over what the kernel knows of one neighbour. It tells
// only changes, and for one that it has resolved before there is none to come.
func (m *mirror) readNeighbour(k neighbourKey, family int) {
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, 0)
	req.Sockets = m.raw
	req.AddData(&netlink.Ndmsg{Family: uint8(family), Index: uint32(k.link)})
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, k.addr.AsSlice()))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if errors.Is(err, unix.EOPNOTSUPP) { // a kernel before 5.0
		m.readNeighbours()
		return
	}
	for _, msg := range msgs {
		if n, err := netlink.NeighDeserialize(msg); err == nil {
			m.update(&netlink.NeighUpdate{Type: unix.RTM_NEWNEIGH, Neigh: *n})
		}
	}
}

// want gives a host on a link a hop of its own.
func (m *mirror) want(a netip.Addr) {
	if m.hosts[a] != nil || len(m.hosts) >= maxHosts {
		return
	}
	t := m.ways.Load()
	hop := t.hostHop(a, m.neighbourOf)
	if hop == nil {
		return
	}
	m.hosts[a] = &hostEntry{}
	next := *t
	next.hosts = t.hosts.InsertPersist(netip.PrefixFrom(a, a.BitLen()), hop)
	m.ways.Store(&next)
	m.resolve(neighbourKey{hop.IfIndex, a})
}

// keepDirect makes addrs all the hosts that keep their hop for good.
func (m *mirror) keepDirect(addrs []netip.Addr) {
	for _, h := range m.hosts {
		h.direct = false
	}
	for _, a := range addrs {
		if h := m.hosts[a]; h != nil {
			h.direct = true
			continue
		}
		m.hosts[a] = &hostEntry{direct: true}
	}
	m.read()
}

// askDirect asks for the link addresses of the real servers of dr that are not
// known, until they are.
func (m *mirror) askDirect() {
	t := m.ways.Load()
	for a, h := range m.hosts {
		if !h.direct {
			continue
		}
		if hop, ok := t.hosts.Lookup(a); ok {
			if _, known := hop.Neighbour.Link(); !known {
				m.resolve(neighbourKey{hop.IfIndex, a})
			}
		}
	}
}

// age keeps the neighbours fresh that packets went to, since the kernel does
// not see those packets, and drops the hops of hosts that had none for long.
func (m *mirror) age() {
	t := m.ways.Load()
	hosts := t.hosts
	for k, e := range m.neighbours {
		if !e.Used() {
			continue
		}
		if e.state&netlink.NUD_STALE != 0 {
			m.resolve(k)
		}
		if h := m.hosts[k.addr]; h != nil {
			h.idle = -1 // this tick does not count
		}
	}
	// Also those that have no neighbour, as they are on no link any more.
	for a, h := range m.hosts {
		if h.direct {
			continue
		}
		if h.idle++; h.idle >= idleTicks {
			delete(m.hosts, a)
			hosts = hosts.DeletePersist(netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if hosts != t.hosts {
		next := *t
		next.hosts = hosts
		m.ways.Store(&next)
		m.dropUnused()
	}
	m.askDirect()
}

// dropUnused forgets the neighbours that no hop leads to any more.
func (m *mirror) dropUnused() {
	t := m.ways.Load()
	inUse := make(map[*stack.Neighbour]bool)
	for _, hop := range t.hosts.All() {
		inUse[hop.Neighbour] = true
	}
	if t.main != nil {
		for _, w := range t.main.All() {
			for _, hop := range w.hops {
				inUse[hop.Neighbour] = true
			}
		}
	}
	for k, e := range m.neighbours {
		if !inUse[e.Neighbour] {
			e.Fail() // what still waits for it goes nowhere
			delete(m.neighbours, k)
		}
	}
}
