package bgp

import (
	"context"
	"sync"
)

// A crew is goroutines that end together.
type crew struct {
	ctx    context.Context
	cancel context.CancelFunc
	faults chan<- error // gets the first error of one, if there is room
	all    sync.WaitGroup
	once   map[string]bool // names of startOnce
}

func newCrew(ctx context.Context, faults chan<- error) *crew {
	c := &crew{faults: faults, once: map[string]bool{}}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c
}

// start runs a task, which returns nil when its context ended it.
func (c *crew) start(task func(context.Context) error) {
	c.all.Go(func() {
		if err := task(c.ctx); err != nil {
			select {
			case c.faults <- err:
			default: // an earlier one ends us already
			}
		}
	})
}

// startOnce is start, unless a task of the name was started.
func (c *crew) startOnce(name string, task func(context.Context) error) {
	if !c.once[name] {
		c.once[name] = true
		c.start(task)
	}
}

// stop ends all tasks and waits for them.
func (c *crew) stop() {
	c.cancel()
	c.all.Wait()
}
