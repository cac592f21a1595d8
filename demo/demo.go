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

// caseTime bounds one case, whose traffic takes about a second.
const caseTime = 15 * time.Second

// Run runs the demo and shows it. It returns ErrFailed where a case failed, and
// an error of its own where the lab could not be set up or ctx ended it before
// its end. All that it made is gone when it returns.
func Run(ctx context.Context, o Options) error {
	p := &printer{w: o.Out, color: o.Color}
	if o.JSON {
		p.w = io.Discard
	}
	began := time.Now()
	report := Report{Cases: []Result{}}
	p.topology()
	lab, err := start(ctx, o.Program)
	if err == nil {
		defer lab.close()
		report.OK = true
		for _, c := range cases {
			if ctx.Err() != nil {
				break
			}
			r := lab.try(ctx, c)
			report.OK = report.OK && r.OK
			report.Cases = append(report.Cases, r)
			p.result(&r)
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("ended before it was done: %w", context.Cause(ctx))
	}
	report.Seconds = time.Since(began).Seconds()
	if err != nil {
		report.Error = err.Error()
	}
	if o.JSON {
		if err := writeJSON(o.Out, &report); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	p.verdict(&report, lab.said())
	if o.Hold {
		p.hold(lab, &report)
		<-ctx.Done()
	}
	if !report.OK {
		return ErrFailed
	}
	return nil
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
