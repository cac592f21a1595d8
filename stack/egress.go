package stack

import (
	"fmt"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// An EgressMode says which way rewritten packets leave.
type EgressMode string

const (
	EgressAuto   EgressMode = "auto"   // link where route and neighbour are known, else kernel
	EgressKernel EgressMode = "kernel" // the host routes everything but direct routing
	EgressLink   EgressMode = "link"   // link where the route is known, even if the neighbour is yet to be asked
)

// splitRoom is the memory, in bytes, for the packets that a super-packet is
// cut into: the whole of one with the usual segment size.
const splitRoom = 128 << 10

// An egress is one queue's way out. Packets leave in the order of send, each
// way by itself.
//
//  1. The hop is looked up: the next hop of direct routing, else the
//     destination.
//  2. An encapsulation that is still to be done cuts a super-packet into
//     single packets first; what is too long for its path, and may be, is cut
//     into fragments.
//  3. Without a hop, or where the packet is too big for it, the kernel gets the
//     packet through the TUN device and routes it, fragments it or answers
//     that it is too big. Direct routing cannot do that: the kernel would
//     route the VIP to us again.
//  4. Known neighbour: the frame is made in the packet's headroom and joins
//     those that leave together (sender.go). Unknown: it waits (neighbour.go).
type egress struct {
	mode   EgressMode
	routes Routes // nil: there is no link egress
	queue  Queue
	link   *sender // nil if routes is

	splitter packet.Splitter
	cutter   packet.Cutter
	segment  packet.Packet
	fragment packet.Packet
	room     []byte // segments and fragments that are held lie here
	used     int    // bytes of room

	tally *tally
	count *counters
}

// send takes out p, which was read. Its bytes must stay as they are until flush.
func (e *egress) send(p *packet.Packet, now time.Duration) {
	e.tally.sent++
	e.take(p, now)
}

// take takes p out, wherever it comes from.
func (e *egress) take(p *packet.Packet, now time.Duration) {
	hop := e.hop(p)
	if p.NextHop.Family != 0 && hop != nil && p.SegmentLen() > hop.MTU {
		p.FragmentTo(hop.MTU)
	}
	if p.Encap.Kind != packet.NoEncap || p.VNet.GSOType != packet.GSONone && p.CutLen() != 0 {
		e.sendSegments(p, hop, now)
		return
	}
	e.sendPlain(p, hop, now)
}

// sendSegments takes out the packets that a super-packet stands for.
func (e *egress) sendSegments(p *packet.Packet, hop *Hop, now time.Duration) {
	if why := e.splitter.Start(p); why != packet.OK {
		e.count.lose(why)
		return
	}
	size := packet.Headroom + p.SegmentLen() + p.Encap.Overhead()
	fragments := 0
	if n := p.CutLen(); n != 0 {
		fragments = fragmentsRoom(size, n)
	}
	if size+fragments > len(e.room) {
		e.count.lose(packet.TooBig) // no device of today has such segments
		return
	}
	for {
		e.reserve(size + fragments)
		e.segment.Reset(e.room[e.used:e.used+size], packet.Headroom, packet.Headroom)
		if !e.splitter.Next(&e.segment) {
			return
		}
		if fragments != 0 {
			e.used += size // it must stay while it is cut
			e.sendPlain(&e.segment, hop, now)
		} else if e.leave(&e.segment, hop, now) {
			e.used += size
		}
	}
}

// fragmentsRoom is the room for what a packet of so many bytes is cut into, if
// its headers take less than half of each fragment.
func fragmentsRoom(size, cut int) int { return (2*size/cut + 1) * (packet.Headroom + cut) }

// sendPlain takes out p, which is no super-packet, in fragments where it must
// be.
func (e *egress) sendPlain(p *packet.Packet, hop *Hop, now time.Duration) {
	n := p.CutLen()
	if n == 0 {
		e.leave(p, hop, now)
		return
	}
	if why := e.cutter.Start(p); why != packet.OK {
		e.count.lose(why)
		return
	}
	for {
		e.reserve(packet.Headroom + n)
		e.fragment.Reset(e.room[e.used:e.used+packet.Headroom+n], packet.Headroom, packet.Headroom)
		if !e.cutter.Next(&e.fragment) {
			return
		}
		if e.leave(&e.fragment, hop, now) {
			e.used += packet.Headroom + n
		}
	}
}

// reserve makes room for so many bytes behind what is held.
func (e *egress) reserve(size int) {
	if e.used+size > len(e.room) {
		e.flush()
	}
}

// hop is the way out by link, nil where there is none for p.
func (e *egress) hop(p *packet.Packet) *Hop {
	addr, family := p.Destination()
	return Way(e.mode, e.routes, packet.Endpoint{Addr: addr, Family: family}, p.NextHop.Family != 0, FlowHash(&p.Tuple))
}

// FlowHash spreads the flows of tuples over a multipath route.
func FlowHash(t *packet.Tuple) uint32 { return uint32(t.SrcPort)<<16 | uint32(t.DstPort) }

// Way is the hop of packets that go to dst, or nil where they leave by the
// kernel, which direct routing cannot.
func Way(mode EgressMode, routes Routes, dst packet.Endpoint, direct bool, hash uint32) *Hop {
	if routes == nil || mode == EgressKernel && !direct {
		return nil
	}
	hop := routes.Lookup(dst, hash)
	if hop == nil || direct || mode == EgressLink {
		return hop
	}
	if _, known := hop.Neighbour.Link(); !known {
		return nil // the kernel resolves it by the way
	}
	return hop
}

// leave takes out a packet by its hop, nil for the kernel's, and says whether
// it is held: then its bytes must stay as they are until flush.
func (e *egress) leave(p *packet.Packet, hop *Hop, now time.Duration) (held bool) {
	direct := p.NextHop.Family != 0
	if direct && hop == nil {
		e.count.lose(packet.NoRoute)
		return false
	}
	if direct && p.SegmentLen() > hop.MTU {
		e.count.lose(packet.TooBig)
		return false
	}
	if hop == nil || p.SegmentLen() > hop.MTU {
		e.toKernel(p)
		return false
	}
	hop.Neighbour.touch()
	mac, known := hop.Neighbour.Link()
	frame := putFrame(p, hop.Source, mac)
	if !known {
		if hop.Neighbour.wait(waitingFrame{frame: frame, ifindex: hop.IfIndex, since: now, socket: e.link.batch.socket, count: e.count}) {
			e.routes.Resolve(hop)
		}
		return false
	}
	return e.link.send(frame, hop.IfIndex, p.VNet.GSOType == packet.GSONone)
}

// toKernel leaves the routing of p to the kernel.
func (e *egress) toKernel(p *packet.Packet) {
	if e.write(p) {
		e.tally.byKernel++
	}
}

// giveBack returns p to the kernel as it came.
func (e *egress) giveBack(p *packet.Packet, now time.Duration) {
	e.tally.returned++
	if p.CutLen() != 0 {
		e.sendPlain(p, nil, now)
		return
	}
	e.write(p)
}

// write writes p to the TUN device and says whether the kernel took it.
func (e *egress) write(p *packet.Packet) bool {
	buf, start, end := p.Buffer()
	p.PutVNet(buf[start-packet.VNetLen:start], 0)
	if err := e.queue.Write(buf[start-packet.VNetLen : end]); err != nil {
		e.count.lose(packet.SendFailed)
		return false
	}
	return true
}

// flush sends what is held.
func (e *egress) flush() {
	e.used = 0
	if e.link != nil {
		e.link.flush()
	}
}

// check says whether m is a mode, empty for auto.
func (m EgressMode) check() error {
	switch m {
	case "", EgressAuto, EgressKernel, EgressLink:
		return nil
	}
	return fmt.Errorf("egress %q: want %s, %s or %s", m, EgressAuto, EgressKernel, EgressLink)
}
