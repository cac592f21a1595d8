package stack

import (
	"context"
	"errors"
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
	tun   TUN
	loops []*loop
	start time.Time   // where the Handler's time begins
	stop  atomic.Bool // set when the loops shall end
}

// New builds the road between tun, which stays the caller's to close, and the
// handlers, one per queue. Run opens it.
func New(tun TUN, handler func(queue int) Handler, o Options) (*Road, error) {
	if err := o.Egress.check(); err != nil {
		return nil, err
	}
	r := &Road{tun: tun, start: time.Now()}
	for i, q := range tun.Queues() {
		l := newLoop(q, handler(i), r, o)
		if o.Routes != nil {
			s, err := openLinkSocket()
			if err != nil {
				return nil, errors.Join(err, r.close())
			}
			l.egress.frames = newFrameBatch(s)
		}
		r.loops = append(r.loops, l)
	}
	return r, nil
}

// Run carries packets until ctx ends, when it returns nil, or until a queue
// fails, when it returns why. A Road runs once.
func (r *Road) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(r.loops))
	var wg sync.WaitGroup
	for i, l := range r.loops {
		wg.Go(func() {
			defer cancel()
			errs[i] = l.run()
		})
	}
	<-ctx.Done()
	r.stop.Store(true)
	for _, l := range r.loops {
		errs = append(errs, l.queue.Wake())
	}
	wg.Wait()
	return errors.Join(append(errs, r.close())...)
}

func (r *Road) close() error {
	var errs []error
	for _, l := range r.loops {
		if l.egress.frames != nil {
			errs = append(errs, l.egress.frames.socket.close())
		}
	}
	return errors.Join(errs...)
}

// Now is the time that handlers get, for those outside the loop who must use
// the same clock.
func (r *Road) Now() time.Duration { return time.Since(r.start) }

// Stats reads the counters of all queues.
func (r *Road) Stats() Stats {
	s := Stats{Queues: make([]QueueStats, len(r.loops))}
	for i, l := range r.loops {
		s.Queues[i] = l.count.stats()
	}
	return s
}
