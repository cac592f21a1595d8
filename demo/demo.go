// Package demo shows every forwarding mode at work on one machine: a client, a
// router, a director that runs uvs and two real servers, each in a network
// namespace of its own.
//
// [Run] draws the topology ([network]), starts the servers and the director, and
// sends real traffic through every [Case]. What each side saw is read from
// captures on its interfaces and held against what the mode promises, so a
// mode that does not work makes its case fail. Nothing is left behind.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Options say how the demo runs.
type Options struct {
	Program string    // the uvs program that runs as director and real server
	Out     io.Writer // what is shown, case by case
	Color   bool      // Out is a terminal that knows colours
	JSON    bool      // print the Report as JSON instead
	Hold    bool      // at the end stay up until the context ends
}

// A Report is the outcome of all cases.
type Report struct {
	OK      bool     `json:"ok"`
	Error   string   `json:"error,omitempty"` // why the lab could not be set up
	Seconds float64  `json:"seconds"`
	Cases   []Result `json:"cases"`
}

// ErrFailed says that the demo ran and a case failed.
var ErrFailed = errors.New("the demo failed")

// caseTime bounds one case, whose traffic takes about a second; a busy machine
// may need more.
const caseTime = time.Minute

// Run runs the demo and shows it. It returns ErrFailed where a case failed, and
// an error of its own where the lab could not be set up or ctx ended it before
// its end. All that it made is gone when it returns.
func Run(ctx context.Context, o Options) error {
	p := &printer{out: o.Out, color: o.Color}
	if o.JSON {
		p.out = io.Discard
	}
	p.topology()
	if err := p.flush(); err != nil {
		return err
	}
	began := time.Now()
	n, err := start(ctx, o.Program)
	if err != nil && ctx.Err() != nil {
		return ended(ctx)
	}
	if err != nil {
		return errors.Join(err, report(o, &Report{Error: err.Error(), Cases: []Result{}}))
	}
	defer n.close()
	r := Report{OK: true, Cases: []Result{}}
	for _, c := range cases {
		result := n.try(ctx, c)
		if ctx.Err() != nil {
			return ended(ctx)
		}
		r.OK = r.OK && result.OK
		r.Cases = append(r.Cases, result)
		p.result(&result)
		if err := p.flush(); err != nil {
			return err // nobody reads us any more
		}
	}
	r.Seconds = time.Since(began).Seconds()
	p.verdict(&r, n.said())
	if o.Hold {
		p.hold(n, &r)
	}
	if err := errors.Join(p.flush(), report(o, &r)); err != nil {
		return err
	}
	if o.Hold {
		<-ctx.Done()
	}
	if !r.OK {
		return ErrFailed
	}
	return nil
}

func ended(ctx context.Context) error {
	return fmt.Errorf("ended before it was done: %w", context.Cause(ctx))
}

// report prints r as JSON, if that is wanted.
func report(o Options, r *Report) error {
	if !o.JSON {
		return nil
	}
	e := json.NewEncoder(o.Out)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// try runs one case.
func (n *network) try(ctx context.Context, c Case) Result {
	ctx, cancel := context.WithTimeout(ctx, caseTime)
	defer cancel()
	r := Result{Case: c}
	for _, step := range []func(context.Context, *Result) error{n.look, n.spread, n.measure} {
		if err := step(ctx, &r); err != nil {
			r.Errors = append(r.Errors, err.Error())
			break // what follows would fail too, and take its time
		}
	}
	r.OK = len(r.Errors) == 0
	return r
}
