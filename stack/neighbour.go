package stack

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// What waits for one neighbour: the kernel's own queue
// (net.ipv4.neigh.*.unres_qlen_bytes) holds about 100 packets; a neighbour on
// the link answers in less than a millisecond, and the kernel gives up asking
// after three seconds.
const (
	maxWaitingFrames = 128
	maxWaitingBytes  = 256 << 10
	maxWaitingTime   = 3 * time.Second
)

// A Neighbour is a host on the link of a device. The queues read its link
// address without a lock; the owner of [Routes] sets it. Frames for an address
// that is not known yet wait here, few and not for long.
//
// Lock order: mu before a linkSocket's.
type Neighbour struct {
	addr netip.Addr
	link atomic.Uint64 // knownLink and the 48 bits of the address, one word so that they cannot disagree
	used atomic.Bool

	mu      sync.Mutex
	waiting []waitingFrame // guarded by mu; oldest first
	bytes   int            // guarded by mu; of all waiting frames
}

// knownLink marks a link address that is known.
const knownLink = 1 << 48

// A waitingFrame is a whole frame that misses only its destination address.
type waitingFrame struct {
	frame   []byte // its own memory
	ifindex int
	since   time.Duration
	socket  *linkSocket
	count   *counters
}

// NewNeighbour makes the neighbour with this address, of which no link address
// is known yet. Set tells it.
func NewNeighbour(addr netip.Addr) *Neighbour { return &Neighbour{addr: addr} }

// Addr is the address that NewNeighbour got.
func (n *Neighbour) Addr() netip.Addr { return n.addr }

// Link is the link address, and whether it is known.
func (n *Neighbour) Link() (MAC, bool) {
	w := n.link.Load()
	return MAC{byte(w >> 40), byte(w >> 32), byte(w >> 24), byte(w >> 16), byte(w >> 8), byte(w)}, w&knownLink != 0
}

// Used says whether a packet went to n since Used was last called. The kernel
// does not see those packets, so whoever keeps neighbours fresh asks here which
// ones matter.
func (n *Neighbour) Used() bool { return n.used.Swap(false) }

// touch marks n as used. It writes only where that is news, as all queues
// share the mark.
func (n *Neighbour) touch() {
	if !n.used.Load() {
		n.used.Store(true)
	}
}

// Set tells the link address and sends what waited for it. It may be called
// again with a new address.
func (n *Neighbour) Set(mac MAC) {
	w := uint64(knownLink)
	for i, b := range mac {
		w |= uint64(b) << (40 - 8*i)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.takeWaitingLocked() {
		f.send(mac)
	}
	n.link.Store(w) // last: no later frame overtakes those that waited
}

// Fail says that the address could not be resolved, or is known no more, and
// drops what waited for it. The next packet asks anew.
func (n *Neighbour) Fail() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link.Store(0)
	for _, f := range n.takeWaitingLocked() {
		f.count.lose(packet.NoNeighbour)
	}
}

func (n *Neighbour) takeWaitingLocked() []waitingFrame {
	fs := n.waiting
	n.waiting, n.bytes = nil, 0
	return fs
}

func (f *waitingFrame) send(mac MAC) {
	copy(f.frame[packet.VNetLen:], mac[:])
	if f.socket.sendOne(f.frame, f.ifindex) != nil {
		f.count.lose(packet.SendFailed)
		return
	}
	f.count.byLink.Add(1)
}

// wait lets a copy of frame wait for n's address; frame itself may be reused
// afterwards. It says whether the address should be asked for: once per burst,
// and again when the answer is overdue. Where the address has become known
// meanwhile, the frame is sent.
func (n *Neighbour) wait(f waitingFrame) (ask bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if mac, known := n.Link(); known {
		f.send(mac)
		return false
	}
	overdue := n.expireLocked(f.since)
	ask = overdue || len(n.waiting) == 0
	if len(n.waiting) == maxWaitingFrames || n.bytes+len(f.frame) > maxWaitingBytes {
		f.count.lose(packet.QueueFull)
		return ask
	}
	f.frame = append([]byte(nil), f.frame...)
	f.count.waited.Add(1)
	n.waiting = append(n.waiting, f)
	n.bytes += len(f.frame)
	return ask
}

// expireLocked drops what has waited too long and says whether there was any.
func (n *Neighbour) expireLocked(now time.Duration) bool {
	due := 0
	for due < len(n.waiting) && now-n.waiting[due].since > maxWaitingTime {
		n.bytes -= len(n.waiting[due].frame)
		n.waiting[due].count.lose(packet.NoNeighbour)
		due++
	}
	n.waiting = n.waiting[due:]
	return due > 0
}
