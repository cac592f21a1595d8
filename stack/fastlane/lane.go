package fastlane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// Options are what a Lane is made with.
type Options struct {
	Flows    int // the most flows that are carried; each takes two entries
	Accounts int // how many accounts there are
}

// A Lane is the program with its maps. Put and Delete are for the packet
// loops and take a system call each; the rest is the control plane's. All are
// safe from several goroutines.
type Lane struct {
	objects laneObjects

	generation atomic.Uint32

	mu   sync.Mutex
	hops map[Hop]uint32 // slots of the current generation; guarded by mu
	next uint32         // slot of the next hop; guarded by mu

	ports ports
}

// ErrFull says that the lane has no room for the entry. The flow stays on the
// TUN road.
var ErrFull = errors.New("the fast lane is full")

// Open loads the program. Until the first Beat it carries nothing. The error
// says what is missing where the kernel or the permissions do not allow it.
func Open(o Options) (*Lane, error) {
	// Kernels before 5.11 charge maps to the memlock limit; where it cannot be
	// raised, loading tells.
	_ = rlimit.RemoveMemlock()
	spec, err := loadLane()
	if err != nil {
		return nil, err
	}
	spec.Maps[laneMapFlows].MaxEntries = uint32(2 * o.Flows)
	spec.Maps[laneMapAccounts].MaxEntries = uint32(o.Accounts)
	l := &Lane{hops: map[Hop]uint32{}}
	if err := spec.LoadAndAssign(&l.objects, nil); err != nil {
		return nil, explain(err)
	}
	l.generation.Store(1)
	return l, nil
}

// explain says what would have to be given or changed.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		return fmt.Errorf("the kernel's verifier refuses the program: %w", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("missing capability BPF: run as root; in a container, start it with --cap-add BPF: %w", err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("this kernel has no eBPF: %w", err)
	}
	return fmt.Errorf("load the program: %w", err)
}

// clock is the clock that the program reads.
func clock() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail for this clock
	return time.Duration(t.Nano())
}

// Beat says that uvs lives. Two seconds after the last one the program lets
// everything go up.
func (l *Lane) Beat() error {
	c := laneControl{Generation: l.generation.Load(), Beat: uint64(clock())}
	if err := l.objects.Control.Put(uint32(0), c); err != nil {
		return fmt.Errorf("the fast lane's heartbeat: %w", err)
	}
	return nil
}

// Invalidate makes every entry stale at once, as when the routes of the host
// have changed. The flows take the TUN road until they are put anew.
func (l *Lane) Invalidate() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.hops)
	l.generation.Add(1)
	return l.Beat()
}

// Generation is what an Invalidate ends. Who makes an Entry asks for it first, and
// for the routes then.
func (l *Lane) Generation() uint32 { return l.generation.Load() }

// Put lets the lane carry the packets of e, unless the generation for which it
// was made has ended. What it has for the same tuple is replaced. ErrFull says
// that there is no room.
func (l *Lane) Put(e *Entry, generation uint32) error {
	hop, err := l.hop(e.Hop)
	if err != nil {
		return err
	}
	value := e.value(generation, hop)
	err = l.objects.Flows.Put(key(&e.Tuple), unsafe.Pointer(&value))
	if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOMEM) {
		return ErrFull
	}
	return err
}

// hop finds or makes the slot of h.
func (l *Lane) hop(h Hop) (slot uint32, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slot, ok := l.hops[h]; ok {
		return slot, nil
	}
	slots := l.objects.Hops.MaxEntries()
	if len(l.hops) == int(slots) {
		return 0, ErrFull
	}
	// The slots of the generation before are used last.
	slot = l.next % slots
	if err := l.objects.Hops.Put(slot, h.value()); err != nil {
		return 0, fmt.Errorf("a way out for the fast lane: %w", err)
	}
	l.next++
	l.hops[h] = slot
	return slot, nil
}

// Delete takes the packets of t back: the next one comes up. It is nothing
// where the lane has none of them.
func (l *Lane) Delete(t *packet.Tuple) error {
	if err := l.objects.Flows.Delete(key(t)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("take a flow back from the fast lane: %w", err)
	}
	return nil
}

// Seen is how long ago the lane carried a packet of t. It is not ok where the
// lane has no such entry, or has carried none of its packets yet.
func (l *Lane) Seen(t *packet.Tuple) (ago time.Duration, ok bool) {
	var f laneFlow
	if l.objects.Flows.Lookup(key(t), unsafe.Pointer(&f)) != nil || f.Seen == 0 {
		return 0, false
	}
	return max(0, clock()-time.Duration(f.Seen)), true
}

// Has says whether the lane carries the packets of t as things stand.
func (l *Lane) Has(t *packet.Tuple) bool {
	var f laneFlow
	return l.objects.Flows.Lookup(key(t), unsafe.Pointer(&f)) == nil && f.Generation == l.generation.Load()
}

// Try gives the program a packet, as one that has just arrived, and says whether
// it would carry it and what it would make of it. Nothing is sent.
func (l *Lane) Try(pkt []byte) (out []byte, carried bool, err error) {
	frame := make([]byte, etherLen, etherLen+len(pkt))
	ether := uint16(unix.ETH_P_IP)
	if len(pkt) > 0 && pkt[0]>>4 == packet.IPv6 {
		ether = unix.ETH_P_IPV6
	}
	binary.BigEndian.PutUint16(frame[12:], ether)
	frame = append(frame, pkt...)
	o := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+packet.Headroom)}
	answer, err := l.objects.Lane.Run(o)
	if err != nil {
		return nil, false, fmt.Errorf("try a packet in the fast lane: %w", err)
	}
	return o.DataOut[etherLen:], answer == redirected, nil
}

const (
	etherLen   = 14
	redirected = 7 // TC_ACT_REDIRECT
)

// key is t as the program's struct tuple, which has the same layout, so that
// the system call needs no copy.
func key(t *packet.Tuple) unsafe.Pointer { return unsafe.Pointer(t) }

var _ = [1]struct{}{}[unsafe.Sizeof(packet.Tuple{})-unsafe.Sizeof(laneTuple{})]

// A Count is what was carried on one account since Open.
type Count struct{ Packets, Bytes uint64 }

// Count reads an account.
func (l *Lane) Count(account uint32) (Count, error) {
	var cores []laneAccount
	if err := l.objects.Accounts.Lookup(account, &cores); err != nil {
		return Count{}, fmt.Errorf("account %d of the fast lane: %w", account, err)
	}
	var sum Count
	for _, c := range cores {
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
	}
	return sum, nil
}

// Close detaches the program and frees its maps.
func (l *Lane) Close() error {
	return errors.Join(l.ports.close(), l.objects.Close())
}
