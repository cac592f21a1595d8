package stack

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// What waits for one neighbour: the kernel's own queue (net.ipv4.neigh.*.unres_qlen_bytes)
// holds 212992 bytes of about 100 packets; a neighbour on the link answers in
// less than a millisecond, and the kernel gives up asking after three seconds.
const (
	maxWaitingFrames = 128
	maxWaitingBytes  = 256 << 10
	maxWaitingTime   = 3 * time.Second
)

// The state of a neighbour stands above the 48 bits of its link address.
const (
	neighbourUnknown   = 0 << 48 // nobody has asked
	neighbourResolving = 1 << 48 // asked; frames may wait
	neighbourKnown     = 2 << 48
)

// A Neighbour is a host on the link of a device. The queues read its link
// address without a lock; the owner of [Routes] sets it. Frames for an address
// not known yet wait here, few and not for long.
type Neighbour struct {
	addr netip.Addr
	link atomic.Uint64 // state and link address, one word so that they cannot disagree
	used atomic.Bool

	mu      sync.Mutex
	waiting []waitingFrame // guarded by mu; oldest first
	bytes   int            // guarded by mu; of all waiting frames
}

// A waitingFrame is a whole frame that misses only its destination address.
type waitingFrame struct {
	frame []byte // virtio-net header, Ethernet header, packet; its own memory
	hop   *Hop
	since time.Duration
	to    lateSender
}

// A lateSender takes the frames that waited: with their destination, or not at all.
type lateSender interface {
	sendLate(f waitingFrame, mac MAC)
	dropLate(f waitingFrame, why packet.Reason)
}

// Addr is the address that NewNeighbour got.
func (n *Neighbour) Addr() netip.Addr { return n.addr }

// Link is the link address, and whether it is known.
func (n *Neighbour) Link() (MAC, bool) {
	w := n.link.Load()
	return MAC{byte(w >> 40), byte(w >> 32), byte(w >> 24), byte(w >> 16), byte(w >> 8), byte(w)}, w&^(1<<48-1) == neighbourKnown
}

// Used says whether a packet went to n since Used was last called. The kernel
// does not see those packets, so whoever keeps the neighbour fresh asks here
// which ones matter.
func (n *Neighbour) Used() bool { return n.used.Swap(false) }

// Set tells the link address and sends what waited for it. It may be called
// again with a new address.
func (n *Neighbour) Set(mac MAC) {
	w := uint64(neighbourKnown)
	for i, b := range mac {
		w |= uint64(b) << (40 - 8*i)
	}
	n.link.Store(w)
	for _, f := range n.takeWaiting() {
		f.to.sendLate(f, mac)
	}
}

// Fail says that the address could not be resolved, or is known no more, and
// drops what waited for it. The next packet asks anew.
func (n *Neighbour) Fail() {
	n.link.Store(neighbourUnknown)
	for _, f := range n.takeWaiting() {
		f.to.dropLate(f, packet.NoNeighbour)
	}
}

func (n *Neighbour) takeWaiting() []waitingFrame {
	n.mu.Lock()
	defer n.mu.Unlock()
	fs := n.waiting
	n.waiting, n.bytes = nil, 0
	return fs
}
