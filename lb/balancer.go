package lb

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// Options are what a Balancer is made with.
type Options struct {
	Queues int // how many Queues handle packets; 0: 1
	Flows  int // limit of the flow table; 0: 4 million

	// Answers is how many ICMP errors each queue sends in a second in the long
	// run, and how many resets and answers to pings; 0: 1000, as Linux sends
	// ICMP errors.
	Answers int

	// EveryAnswer sends all of them without a limit, as Linux does with the
	// sysctl icmp_msgs_per_sec at its largest. For tests and offline use: an
	// attacker can have a live director answer to anybody.
	EveryAnswer bool

	// Memory tells how many bytes are free for the program, as Defence wants to
	// know; it is called once a second. nil: not known.
	Memory func() (free int64, ok bool)

	// OnDefence is told when a defence was switched on or off; nil: nobody is.
	OnDefence func(DefenceState)

	// OnFailing is told of a real server that fails, once for each
	// Policy.Failures. It is called from Run's goroutine; nil: nobody is told.
	OnFailing func(Failing)

	Offload    Offload // carries established flows; nil: nothing does
	OfferEvery int     // one in so many packets of an established flow offers it; 0: 8

	// Emit sends a packet that answers none, a reset of Policy.ResetExpired or
	// Policy.Removed. It is called from Run's goroutine, must not block, and
	// does not keep p; false says that it had no room. nil: there are none.
	Emit func(p *packet.Packet) bool
}

const defaultFlows = 4_000_000

// A Balancer owns the flow table and the configuration. Packets enter by its
// Queues; everything else is the control plane, safe from any goroutine.
type Balancer struct {
	table   *Table
	servers *registry
	queues  []*Queue
	state   atomic.Pointer[snapshot] // never nil
	origins atomic.Pointer[origins]  // of state; never nil

	offerEvery int // one in so many packets of an established flow offers it

	onFailing func(Failing) // or nil

	defence defence
	sampled time.Duration // when the rates were brought up to date; Tick's own
	walk    walk          // Tick's own

	mu          sync.Mutex
	accounts    map[string]*account   // by the name of the service
	numAccounts uint32                // ever made
	freeIDs     []uint32              // of records that were freed
	pathMTU     map[netip.Addr]int    // as SetPathMTU had it
	byName      map[string]*service   // the services of state
	left        map[*account]struct{} // those with real servers whose flows are to end
	gone        Traffic               // of accounts that were forgotten
	all         meter
}

// New makes a Balancer without services.
func New(o Options) (*Balancer, error) {
	if o.Queues == 0 {
		o.Queues = 1
	}
	if o.Flows == 0 {
		o.Flows = defaultFlows
	}
	if o.Queues < 0 {
		return nil, fmt.Errorf("%d queues", o.Queues)
	}
	if o.Answers < 0 {
		return nil, fmt.Errorf("%d answers a second", o.Answers)
	}
	b := &Balancer{
		servers:  newRegistry(),
		accounts: map[string]*account{},
		left:     map[*account]struct{}{},
		pathMTU:  map[netip.Addr]int{},
		defence: defence{
			memory: o.Memory,
			notify: o.OnDefence,
			random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		},
	}
	var err error
	if b.table, err = newTable(o.Flows, b.servers); err != nil {
		return nil, err
	}
	b.table.offload = o.Offload
	b.onFailing = o.OnFailing
	b.offerEvery = cmp.Or(o.OfferEvery, defaultOfferEvery)
	b.table.resets.emit = o.Emit
	b.state.Store(new(snapshot))
	b.origins.Store(new(origins))
	for i := range o.Queues {
		b.queues = append(b.queues, &Queue{b: b, index: i, errors: newAnswers(&o), replies: newAnswers(&o)})
	}
	return b, nil
}

// Queue is the handler of the i-th queue of packets, to be used by one
// goroutine at a time.
func (b *Balancer) Queue(i int) *Queue { return b.queues[i] }

const (
	sweepEvery = time.Second / 16

	// sweepBudget is how many entries a sweep looks at, enough for 500 000
	// flows to end in a second.
	sweepBudget = 1 << 15
)

// Run does what is due besides packets until ctx ends. clock is the one that
// the packet loops read.
func (b *Balancer) Run(ctx context.Context, clock func() time.Duration) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			b.Tick(clock())
		}
	}
}

// Tick frees flows that are due and ends those of real servers that left, tells
// of real servers that fail, looks after the Defence every second, and brings the rates up to date every
// two. Run calls it sixteen times a second; who has no Run calls it instead,
// one goroutine at a time.
func (b *Balancer) Tick(now time.Duration) {
	b.table.Sweep(now, sweepBudget)
	b.endFlows(now)
	b.tellFailing(tickOf(now))
	if now >= b.defence.looked+defendEvery {
		b.defence.looked = now
		b.defend()
		if b.defence.entries.Load() {
			b.dropEntries(now)
		}
	}
	for n := 0; b.sampled+sampleEvery <= now; n++ {
		b.sampled += sampleEvery
		if n < maxSamples {
			b.sample()
		}
	}
}

// maxSamples is how many samples are made up for after a stop of the clock;
// by then any rate has come down to nothing.
const maxSamples = 128

// Close gives the memory of the flow table back. No Queue may be used any
// more, and Run must have returned.
func (b *Balancer) Close() { b.table.close() }

// SetPathMTU says that the path to the real servers with address rip carries
// packets of at most mtu bytes; 0 says that it is not known. Real servers
// that are added later get the same value.
func (b *Balancer) SetPathMTU(rip netip.Addr, mtu int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pathMTU[rip] == mtu {
		return
	}
	b.pathMTU[rip] = mtu
	defer b.takeBack()
	addr, family := packet.AddrFrom(rip)
	for _, a := range b.accounts {
		for _, rs := range a.servers {
			if rs.Endpoint.Addr == addr && rs.Endpoint.Family == family {
				rs.pathMTU.Store(int32(mtu))
			}
		}
	}
}
