// Package stack moves packets between the host and the balancer. A [Road]
// carries those of a [TUN] device through a [Handler], each queue by a
// goroutine of its own:
//
//	  TUN queue                                                   (tun.go, filequeue.go)
//	1    │  read until it is dry or the batch is full             (loop.go)
//	2    ├─ parse; what cannot be a packet is dropped and counted (package packet)
//	3    ├─ a later fragment gets the ports of its first          (fragments.go)
//	4    ├─ Handler ── Drop
//	     │     │  └─── Pass ──► netstack: ping, closed ports      (netstack.go, endpoint.go)
//	     │     └────── Return ► written back as it came
//	5    ├─ Send: an encapsulated super-packet is split           (egress.go)
//	6    │     ├─ kernel ─► written to the TUN device, the host routes it
//	7    │     └─ link ───► hop and neighbour by Routes           (routes.go, neighbour.go)
//	8    └─ flush: the frames of the batch leave together        (sender.go, ring.go, link.go)
//
// Queues share nothing that they write but the fragment table and the frames
// that wait for a neighbour, both off the usual way. Buffers are made once;
// a packet is rewritten, and gets its link header, where it was read.
//
// This package asks the host for nothing but the device itself: addresses,
// routes and neighbours are for package stack/host, which implements [Routes].
package stack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Options say how a Road carries packets.
type Options struct {
	Egress EgressMode // empty: auto
	Routes Routes     // nil: every packet leaves by the kernel, and direct routing cannot
}

// A Road carries the packets of a TUN device through a [Handler], one
// goroutine per queue.
type Road struct {
	name      string // of the TUN device
	loops     []*loop
	beside    *beside
	netstack  *netstack
	fragments *fragments
	outbox    outbox
	start     time.Time   // where the Handler's time begins
	stop      atomic.Bool // set when the loops shall end
}

// New builds the road between tun, which stays the caller's to close, and the
// handlers, one per queue and one more for what Inject is given. Run opens it; Close takes it down, also where Run
// was never called.
func New(tun TUN, handler func(queue int) Handler, o Options) (*Road, error) {
	if err := o.Egress.check(); err != nil {
		return nil, err
	}
	r := &Road{name: tun.Name(), start: time.Now(), fragments: newFragments()}
	var err error
	if r.netstack, err = newNetstack(tun.Queues()); err != nil {
		return nil, err
	}
	queues := tun.Queues()
	r.beside = newBeside(queues[0], handler(len(queues)))
	for i, q := range queues {
		l := newLoop(q, handler(i), r, o)
		if i == 0 {
			l.outbox = &r.outbox
		}
		r.loops = append(r.loops, l)
		if o.Routes == nil {
			continue
		}
		if l.egress.link, err = openSender(&l.tally, &l.count); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// Run carries packets until ctx ends, when it returns nil, or until a queue
// fails, when it returns why. A Road runs once.
func (r *Road) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make([]error, len(r.loops))
	var wg sync.WaitGroup
	for i, l := range r.loops {
		wg.Go(func() {
			defer cancel()
			if err := l.run(); err != nil {
				ended[i] = fmt.Errorf("queue %d of TUN device %s: %w", i, r.name, err)
			}
		})
	}
	<-ctx.Done()
	r.stop.Store(true)
	var errs []error
	for _, l := range r.loops {
		errs = append(errs, l.queue.Wake())
	}
	wg.Wait()
	return errors.Join(append(errs, ended...)...)
}

// SetVIPs makes vips the addresses that the netstack answers for, no more and
// no less.
func (r *Road) SetVIPs(vips []netip.Addr) error { return r.netstack.setVIPs(vips) }

// Close ends the netstack and closes the packet sockets, once Run has
// returned. The TUN device must still be open.
func (r *Road) Close() error {
	r.netstack.close()
	var errs []error
	for _, l := range r.loops {
		if l.egress.link != nil {
			errs = append(errs, l.egress.link.close())
		}
	}
	return errors.Join(errs...)
}

// Now is the time that handlers get, for those outside the loop who must use
// the same clock.
func (r *Road) Now() time.Duration { return time.Since(r.start) }

// Stats reads the counters of all queues.
func (r *Road) Stats() Stats {
	s := Stats{Queues: make([]QueueStats, len(r.loops)), Beside: r.beside.count.stats()}
	for i, l := range r.loops {
		s.Queues[i] = l.count.stats()
	}
	return s
}
