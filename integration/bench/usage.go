package main

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/uvs-project/uvs/integration/lab"
)

// Usage says what a measurement cost and how quiet the machine was meanwhile.
// Times are in seconds, shares are of all cores.
type Usage struct {
	Seconds float64 `json:"seconds"`
	User    float64 `json:"user"`    // of the director's processes
	System  float64 `json:"system"`  // the same
	Machine float64 `json:"machine"` // of the whole machine, soft interrupts included
	SoftIRQ float64 `json:"softirq"` // of it, in soft interrupts

	Foreign float64 `json:"foreign"` // share: processes that are not the bench's
	Steal   float64 `json:"steal"`   // share: taken by the hypervisor
	Load    float64 `json:"load"`    // 1-minute load average at the end; the bench itself is in it
}

// noisyShare of the machine taken by others makes a measurement noisy.
const noisyShare = 0.03

// Noisy says whether others had so much of the machine that the figure is in doubt.
func (u Usage) Noisy() bool { return u.Foreign+u.Steal > noisyShare }

// A meter reads the clocks at the start of a measurement.
type meter struct {
	at        time.Time
	machine   machineTime
	foreign   time.Duration
	director  cpuTime
	directors []*lab.Process
}

func startMeter(directors []*lab.Process) (*meter, error) {
	m := &meter{directors: directors}
	return m, m.read()
}

func (m *meter) read() error {
	all, err := processes()
	if err != nil {
		return err
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return err
	}
	if m.machine, err = parseMachine(string(stat)); err != nil {
		return err
	}
	m.foreign = foreign(all, os.Getpid())
	m.director = cpuTime{}
	for _, p := range m.directors {
		t := tree(all, p.PID())
		m.director.User += t.User
		m.director.System += t.System
	}
	m.at = time.Now()
	return nil
}

// stop reads the clocks again.
func (m *meter) stop() (Usage, error) {
	end := &meter{directors: m.directors}
	if err := end.read(); err != nil {
		return Usage{}, err
	}
	load, err := loadAverage()
	if err != nil {
		return Usage{}, err
	}
	elapsed := end.at.Sub(m.at)
	cores := elapsed.Seconds() * float64(runtime.NumCPU())
	machine := (end.machine.busy() - m.machine.busy()).Seconds()
	// A process that ends while /proc is read may be counted twice, with its
	// parent too; then others still had no more than was used at all.
	others := min(machine, max(0, (end.foreign-m.foreign).Seconds()))
	return Usage{
		Seconds: elapsed.Seconds(),
		User:    (end.director.User - m.director.User).Seconds(),
		System:  (end.director.System - m.director.System).Seconds(),
		Machine: machine,
		SoftIRQ: (end.machine.SoftIRQ - m.machine.SoftIRQ).Seconds(),
		Foreign: others / cores,
		Steal:   (end.machine.Steal - m.machine.Steal).Seconds() / cores,
		Load:    load,
	}, nil
}

func loadAverage() (float64, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), " ")
	return strconv.ParseFloat(first, 64)
}

// calmWindow is over how long others are watched before a measurement.
const calmWindow = 200 * time.Millisecond

// waitForCalm waits until others leave the machine alone, at the latest until deadline.
func waitForCalm(ctx context.Context, deadline time.Time) error {
	for time.Now().Before(deadline) {
		m, err := startMeter(nil)
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(calmWindow):
		}
		if u, err := m.stop(); err != nil || !u.Noisy() {
			return err
		}
	}
	return nil
}
