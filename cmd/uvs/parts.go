package main

import (
	"context"
	"errors"
	"fmt"
)

// A part is a goroutine of the director.
type part struct {
	name string
	run  func(context.Context) error // returns nil when its context ended it
}

// running are parts that were started.
type running struct {
	stops []func() error // in the order of the start
}

// startParts starts the parts in their order, each under a context of its own,
// so that they can be stopped one after the other. failed is called when one
// ends by itself.
func startParts(ctx context.Context, failed func(), parts []part) *running {
	r := &running{}
	for _, p := range parts {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan error, 1)
		go func() {
			defer failed()
			done <- p.run(own)
		}()
		r.stops = append(r.stops, func() error {
			cancel()
			if err := <-done; err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			return nil
		})
	}
	return r
}

// stop ends the parts in the reverse order of their start, each before the
// next, and returns what went wrong in them.
func (r *running) stop() error {
	var errs []error
	for i := len(r.stops) - 1; i >= 0; i-- {
		errs = append(errs, r.stops[i]())
	}
	return errors.Join(errs...)
}
