package stack

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// The bounds of the fragment table. Linux keeps 4 MiB of fragments, for 30
// seconds and for 60 (net.ipv4.ipfrag_high_thresh, ipfrag_time, net.ipv6.ip6frag_time).
const (
	fragmentTime4         = 30 * time.Second
	fragmentTime6         = 60 * time.Second
	maxDatagrams          = 16384   // of which no fragment waits; an entry takes some 300 bytes
	maxWaiting            = 1024    // fragments that wait
	maxWaitingInAll       = 4 << 20 // bytes of those
	maxWaitingPerDatagram = 64      // a datagram of 64 KiB has 45 fragments of 1480 bytes
)

// A fragments table gives the fragments of a datagram what only the first one
// says. Each datagram is carried in one of two ways:
//
//   - The first leads: it goes as soon as it comes, and the others, which get
//     its ports, follow it. Those that come before it wait.
//   - Where the first cannot be rewritten alone (packet.Leads) all wait, and the
//     datagram is put together.
//
// All queues share the table, as the fragments of a datagram may come by
// different ones; only fragments ever touch the mutex. A fragment follows only
// when the handler is done with the first, as before that there may be no flow
// to find.
//
// Where a bound is reached the oldest goes, so a flood of fragments shortens
// the time that others may take but does not shut them out. What is due is
// dropped when the next fragment comes.
type fragments struct {
	mu        sync.Mutex
	datagrams map[datagramKey]*list.Element // guarded by mu; all of both lists
	settled   list.List                     // guarded by mu; of *datagram in which nothing waits any more, oldest first
	open      list.List                     // guarded by mu; of the other *datagram, oldest first
	waiting   int                           // guarded by mu; fragments in open
	bytes     int                           // guarded by mu; of those
}

// A datagramKey names a datagram as RFC 791 and RFC 8200 do. IPv6 leaves the
// protocol out, as it may differ from fragment to fragment.
type datagramKey struct {
	src, dst packet.Addr
	id       uint32
	proto    uint8
	family   uint8
}

// lifetime is how long the fragments of a datagram may take.
func (k *datagramKey) lifetime() time.Duration {
	if k.family == packet.IPv6 {
		return fragmentTime6
	}
	return fragmentTime4
}

func keyOf(p *packet.Packet) datagramKey {
	key := datagramKey{p.Tuple.Src, p.Tuple.Dst, p.Fragment().ID, p.Tuple.Proto, p.Tuple.Family}
	if key.family == packet.IPv6 {
		key.proto = 0
	}
	return key
}

// A stage is how far a datagram is.
type stage uint8

const (
	early   stage = iota // the first has not come; open
	leading              // the first is with the handler; open
	gather               // all wait for all; open
	led                  // the others follow; settled
	spoiled              // fragments overlap: none goes any more; settled
)

type datagram struct {
	key      datagramKey
	deadline time.Duration
	stage    stage
	came     spans

	srcPort, dstPort uint16 // from leading on; the first's
	proto            uint8

	waiting [][]byte // whole packets behind Headroom, in the order in which they came; while open
}

func newFragments() *fragments {
	return &fragments{datagrams: make(map[datagramKey]*list.Element)}
}

// A turn says whose turn it is when a fragment was placed.
type turn uint8

const (
	nobodys  turn = iota // the fragment waits, or was dropped
	itsOwn               // the fragment can be handled now
	asLeader             // likewise, and then follow must be called
	allOf                // the fragments of a whole datagram
)

// place takes in the fragment p. all are those of a whole datagram, p among
// them: whole packets behind Headroom, still to be parsed, in the order of
// their offsets, which belong to the caller now.
func (t *fragments) place(p *packet.Packet, now time.Duration, count *counters) (whose turn, all [][]byte) {
	f := p.Fragment()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now, count)
	d := t.datagramLocked(keyOf(p), now, count)
	if d.stage == spoiled {
		count.drop(packet.FragmentOverlap)
		return nobodys, nil
	}
	end := int(f.Offset) + p.FragmentLen()
	if f.More && p.Tuple.Family == packet.IPv4 {
		end &^= 7 // as the kernel, which cuts what is more
	}
	switch d.came.add(int(f.Offset), end, f.More) {
	case repeats:
		count.drop(packet.FragmentRepeated)
		return nobodys, nil
	case overlaps:
		count.drop(packet.FragmentOverlap)
		t.spoilLocked(d, count)
		return nobodys, nil
	case tooMany:
		count.drop(packet.FragmentOverflow)
		return nobodys, nil
	}
	if f.Offset == 0 {
		d.stage = gather
		if p.Leads() {
			d.stage = leading
			d.srcPort, d.dstPort, d.proto = p.Tuple.SrcPort, p.Tuple.DstPort, p.Tuple.Proto
			return asLeader, nil
		}
	}
	switch {
	case d.stage == led:
		d.tell(p)
		return itsOwn, nil
	case !t.waitLocked(d, p, count):
		return nobodys, nil
	case d.stage == gather && d.came.complete():
		all = d.waiting
		t.removeLocked(d)
		slices.SortFunc(all, byOffset)
		return allOf, all
	}
	return nobodys, nil
}

// follow is called when the handler is done with the first fragment of the
// datagram key. It gives those that waited for it, which have its ports, in the
// order in which they came.
func (t *fragments) follow(key datagramKey, count *counters) []*packet.Packet {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.datagrams[key]
	if e == nil {
		return nil // its time was up, or its place taken, meanwhile
	}
	d := e.Value.(*datagram)
	if d.stage != leading {
		return nil
	}
	waited := d.waiting
	t.settleLocked(d, led, count)
	var ps []*packet.Packet
	for _, b := range waited {
		p := parsed(b)
		d.tell(p)
		ps = append(ps, p)
	}
	return ps
}

// tell gives a later fragment what the first said.
func (d *datagram) tell(p *packet.Packet) {
	p.SetPorts(d.srcPort, d.dstPort)
	p.Tuple.Proto = d.proto
}

// parsed is a fragment that waited.
func parsed(b []byte) *packet.Packet {
	p := new(packet.Packet)
	p.Reset(b, packet.Headroom, len(b))
	if why := p.Parse(); why != packet.OK {
		panic("stack: a fragment that was parsed before: " + why.String())
	}
	return p
}

func byOffset(a, b []byte) int {
	return cmp.Compare(parsed(a).Fragment().Offset, parsed(b).Fragment().Offset)
}

// datagramLocked finds or makes the entry of key. One that is complete already
// belonged to an earlier datagram with the same identification.
func (t *fragments) datagramLocked(key datagramKey, now time.Duration, count *counters) *datagram {
	if e := t.datagrams[key]; e != nil {
		d := e.Value.(*datagram)
		if d.deadline <= now { // its list is blocked by one of the longer time
			t.dropLocked(d, packet.FragmentTimeout, count)
			return t.datagramLocked(key, now, count)
		}
		if d.stage != led || !d.came.complete() {
			return d
		}
		t.removeLocked(d)
	}
	d := &datagram{key: key, deadline: now + key.lifetime()}
	t.datagrams[key] = t.open.PushBack(d)
	return d
}

// waitLocked keeps a copy of p. It says false where there is no room; then all
// that waits of the datagram is dropped with it.
func (t *fragments) waitLocked(d *datagram, p *packet.Packet, count *counters) bool {
	if len(d.waiting) == maxWaitingPerDatagram {
		t.dropLocked(d, packet.FragmentOverflow, count)
		count.drop(packet.FragmentOverflow)
		return false
	}
	b := make([]byte, packet.Headroom+p.Len())
	copy(b[packet.Headroom:], p.Bytes())
	for t.waiting == maxWaiting || t.bytes+len(b) > maxWaitingInAll {
		oldest := t.open.Front().Value.(*datagram)
		t.dropLocked(oldest, packet.FragmentOverflow, count)
		if oldest == d {
			count.drop(packet.FragmentOverflow)
			return false
		}
	}
	d.waiting = append(d.waiting, b)
	t.waiting++
	t.bytes += len(b)
	return true
}

// settleLocked takes what waits out of d, which is at its last stage now.
func (t *fragments) settleLocked(d *datagram, last stage, count *counters) {
	t.removeLocked(d)
	d.stage = last
	if t.settled.Len() == maxDatagrams {
		t.dropLocked(t.settled.Front().Value.(*datagram), packet.FragmentOverflow, count)
	}
	t.datagrams[d.key] = t.settled.PushBack(d)
}

// spoilLocked drops what waits of d and whatever may come of it.
func (t *fragments) spoilLocked(d *datagram, count *counters) {
	count.dropped[packet.FragmentOverlap].Add(uint64(len(d.waiting)))
	t.settleLocked(d, spoiled, count)
}

// expireLocked drops what is due.
func (t *fragments) expireLocked(now time.Duration, count *counters) {
	for _, l := range [...]*list.List{&t.settled, &t.open} {
		for e := l.Front(); e != nil && e.Value.(*datagram).deadline <= now; e = l.Front() {
			t.dropLocked(e.Value.(*datagram), packet.FragmentTimeout, count)
		}
	}
}

// dropLocked removes d and counts what waited in it as dropped.
func (t *fragments) dropLocked(d *datagram, why packet.Reason, count *counters) {
	count.dropped[why].Add(uint64(len(d.waiting)))
	t.removeLocked(d)
}

func (t *fragments) removeLocked(d *datagram) {
	l := &t.open
	if d.stage >= led {
		l = &t.settled
	}
	l.Remove(t.datagrams[d.key])
	delete(t.datagrams, d.key)
	t.waiting -= len(d.waiting)
	for _, b := range d.waiting {
		t.bytes -= len(b)
	}
	d.waiting = nil
}
