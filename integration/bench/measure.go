package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// measure makes a whole run and leaves nothing behind but o.Out.
func measure(ctx context.Context, o Options) (*Report, error) {
	rep, err := newReport(ctx, o)
	if err != nil {
		return nil, err
	}
	if o.Micro {
		if rep.Micro, err = runMicro(ctx, o.Quick); err != nil {
			return nil, err
		}
	}
	programs, err := o.binaries(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return nil, err
	}
	logs := filepath.Join(o.Out, "lanes")
	if err := os.RemoveAll(logs); err != nil {
		return nil, err
	}
	var lanes []*lane
	defer func() {
		for _, l := range slices.Backward(lanes) {
			l.Close()
		}
	}()
	for _, name := range o.Contenders {
		c, err := contenderByName(name)
		if err != nil {
			return nil, err
		}
		l, err := newLane(ctx, c, programs.of(c), logs)
		if err != nil {
			return nil, err
		}
		lanes = append(lanes, l)
		fmt.Printf("%-20s in the path: the real server sees %s* -> %s\n", c.title, c.seenClient, c.seenServer)
	}
	for round := 1; round <= o.Rounds; round++ {
		for _, name := range o.Tests {
			if err := rep.turn(ctx, lanes, name, round, o); err != nil {
				return nil, err
			}
		}
	}
	for _, l := range lanes {
		if err := l.Verify(ctx); err != nil {
			return nil, fmt.Errorf("after the last round: %w", err)
		}
	}
	return rep, nil
}

// turn runs one test for every contender. A measurement that fails becomes a
// sample with an error, which counts for nothing; only the end of ctx ends the run.
func (r *Report) turn(ctx context.Context, lanes []*lane, name string, round int, o Options) error {
	if name == "latency" && r.Load == 0 {
		r.Load = r.halfLoad()
	}
	for _, l := range lanes {
		if name == "udp" && l.noUDP {
			continue
		}
		s, err := r.calmSample(ctx, l, name, round, o)
		if err != nil {
			return err
		}
		r.Samples = append(r.Samples, s)
		fmt.Println(s.line(r))
	}
	return nil
}

// calmSample makes one measurement when the machine is calm, as far as it
// becomes so within o.Patience, and makes a noisy one anew while that lasts.
func (r *Report) calmSample(ctx context.Context, l *lane, name string, round int, o Options) (Sample, error) {
	deadline := time.Now().Add(o.Patience)
	for {
		if err := waitForCalm(ctx, deadline); err != nil {
			return Sample{}, err
		}
		s := Sample{Round: round, Contender: l.name, Test: name}
		if err := s.take(ctx, l, o.Length, r.Load); err != nil {
			if ctx.Err() != nil {
				return Sample{}, ctx.Err()
			}
			s.Error = err.Error()
			return s, nil
		}
		if !s.Usage.Noisy() || time.Now().After(deadline) {
			return s, nil
		}
	}
}

// halfLoad is half of what the slowest contender carried in the first round of
// test http, the same for all so that their latencies compare.
func (r *Report) halfLoad() float64 {
	slowest := math.Inf(1)
	for _, s := range r.Samples {
		if s.Test == "http" && s.Error == "" {
			slowest = min(slowest, s.Value)
		}
	}
	if math.IsInf(slowest, 1) {
		return defaultLoad
	}
	return math.Round(slowest / 2)
}

// defaultLoad, in requests per second, serves where test http was left out.
const defaultLoad = 5000

// take makes the measurement and holds the witness against it.
func (s *Sample) take(ctx context.Context, l *lane, length time.Duration, load float64) error {
	if err := l.alive(); err != nil {
		return err
	}
	before, err := l.witness(ctx)
	if err != nil {
		return err
	}
	m, err := startMeter(l.processes)
	if err != nil {
		return err
	}
	got, err := tests[s.Test].run(ctx, l, length, load)
	if err != nil {
		return err
	}
	if s.Usage, err = m.stop(); err != nil {
		return err
	}
	after, err := l.witness(ctx)
	if err != nil {
		return err
	}
	moved := float64(after - before)
	if moved == 0 || l.witnessBytes && moved < got.sent {
		return fmt.Errorf("%s was bypassed: its counter moved by %.0f while at least %.0f bytes were sent through it", l.name, moved, got.sent)
	}
	s.Value, s.Packets, s.Bytes, s.Extra = got.value, got.packets, got.bytes, got.extra
	return nil
}

// line is what a terminal shows while the run goes on.
func (s *Sample) line(r *Report) string {
	head := fmt.Sprintf("round %d/%d %-8s %-16s", s.Round, r.Rounds, s.Test, s.Contender)
	if s.Error != "" {
		return head + " FAILED: " + s.Error
	}
	head += fmt.Sprintf(" %14s", formatValue(s.Value, tests[s.Test].unit))
	if s.Usage.Noisy() {
		head += fmt.Sprintf("  noisy: others %.0f%%, steal %.0f%%", s.Usage.Foreign*100, s.Usage.Steal*100)
	}
	return head
}
