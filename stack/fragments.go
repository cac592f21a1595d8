package stack

import (
	"container/list"
	"sync"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// The bounds of the fragment table. Linux keeps 4 MiB of fragments for 30
// seconds (net.ipv4.ipfrag_high_thresh, ipfrag_time).
const (
	fragmentTime        = 30 * time.Second
	maxDatagrams        = 16384   // whose ports are known; an entry takes some 200 bytes
	maxEarly            = 1024    // fragments that wait for their first
	maxEarlyBytes       = 4 << 20 // of those
	maxEarlyPerDatagram = 64      // a datagram of 64 KiB has 45 fragments of 1480 bytes
)

// A fragments table gives the fragments of a datagram the ports that only the
// first one has. The first is remembered when it passes; fragments that come
// before it wait.
//
// All queues share it, as the fragments of a datagram may come by different
// ones; only fragments ever touch the mutex. Where a bound is reached the
// oldest goes, so a flood of fragments shortens the time that others may take
// but does not shut them out. What is due is dropped when the next fragment
// comes.
type fragments struct {
	mu        sync.Mutex
	datagrams map[datagramKey]*list.Element // guarded by mu; all of known and early
	known     list.List                     // guarded by mu; of *datagram, oldest first
	early     list.List                     // guarded by mu; of *datagram without a first, oldest first
	waiting   int                           // guarded by mu; fragments in early
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

type datagram struct {
	key      datagramKey
	deadline time.Duration

	first            bool // has come; the ports and the protocol are its
	srcPort, dstPort uint16
	proto            uint8
	seen             int // bytes of payload
	total            int // bytes of payload of the whole; 0 until the last fragment tells

	waiting [][]byte // whole packets behind Headroom, in the order in which they came; while first is false
}

func newFragments() *fragments {
	return &fragments{datagrams: make(map[datagramKey]*list.Element)}
}

// place gives the fragment p its ports and says whether it can be handled now;
// otherwise a copy waits, or is dropped. With a first fragment come those that
// waited for it, to be handled behind it: whole packets behind Headroom, still
// to be parsed, which belong to the caller now.
func (t *fragments) place(p *packet.Packet, now time.Duration, count *counters) (ready bool, waited [][]byte) {
	f := p.Fragment()
	key := datagramKey{p.Tuple.Src, p.Tuple.Dst, f.ID, p.Tuple.Proto, p.Tuple.Family}
	if key.family == packet.IPv6 {
		key.proto = 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now, count)
	d := t.datagramLocked(key, now)
	if f.Offset == 0 {
		waited = t.learnLocked(d, p, now, count)
	}
	if !d.first {
		t.waitLocked(d, p, count)
		return false, nil
	}
	p.SetPorts(d.srcPort, d.dstPort)
	p.Tuple.Proto = d.proto
	d.saw(p)
	return true, waited
}

// datagramLocked finds or makes the entry of key. One that is complete already
// belonged to an earlier datagram with the same identification.
func (t *fragments) datagramLocked(key datagramKey, now time.Duration) *datagram {
	if e := t.datagrams[key]; e != nil {
		d := e.Value.(*datagram)
		if d.total == 0 || d.seen < d.total {
			return d
		}
		t.removeLocked(d)
	}
	d := &datagram{key: key, deadline: now + fragmentTime}
	t.datagrams[key] = t.early.PushBack(d)
	return d
}

// learnLocked takes the ports of the first fragment p and gives back what
// waited for them.
func (t *fragments) learnLocked(d *datagram, p *packet.Packet, now time.Duration, count *counters) [][]byte {
	waited := d.waiting
	t.removeLocked(d)
	*d = datagram{
		key: d.key, deadline: now + fragmentTime, first: true,
		srcPort: p.Tuple.SrcPort, dstPort: p.Tuple.DstPort, proto: p.Tuple.Proto,
	}
	if t.known.Len() == maxDatagrams {
		t.dropLocked(t.known.Front().Value.(*datagram), packet.FragmentOverflow, count)
	}
	t.datagrams[d.key] = t.known.PushBack(d)
	return waited
}

// waitLocked keeps a copy of p until its first fragment comes.
func (t *fragments) waitLocked(d *datagram, p *packet.Packet, count *counters) {
	if len(d.waiting) == maxEarlyPerDatagram {
		count.drop(packet.FragmentOverflow)
		return
	}
	b := make([]byte, packet.Headroom+p.Len())
	copy(b[packet.Headroom:], p.Bytes())
	for t.waiting == maxEarly || t.bytes+len(b) > maxEarlyBytes {
		oldest := t.early.Front().Value.(*datagram)
		t.dropLocked(oldest, packet.FragmentOverflow, count)
		if oldest == d {
			count.drop(packet.FragmentOverflow)
			return
		}
	}
	d.waiting = append(d.waiting, b)
	t.waiting++
	t.bytes += len(b)
}

// expireLocked drops what is due.
func (t *fragments) expireLocked(now time.Duration, count *counters) {
	for _, l := range [...]*list.List{&t.known, &t.early} {
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
	l := &t.early
	if d.first {
		l = &t.known
	}
	l.Remove(t.datagrams[d.key])
	delete(t.datagrams, d.key)
	t.waiting -= len(d.waiting)
	for _, b := range d.waiting {
		t.bytes -= len(b)
	}
	d.waiting = nil
}

// saw notes that p has passed.
func (d *datagram) saw(p *packet.Packet) {
	f := p.Fragment()
	n := p.FragmentLen()
	d.seen += n
	if !f.More {
		d.total = int(f.Offset) + n
	}
}
