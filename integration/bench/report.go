package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// A Report is one run: what was measured, where, and every sample.
type Report struct {
	Time       time.Time   `json:"time"`
	Commit     string      `json:"commit"` // with "+" where the tree had changes
	Quick      bool        `json:"quick"`
	Rounds     int         `json:"rounds"`
	Seconds    float64     `json:"seconds"` // of one measurement
	Load       float64     `json:"load"`    // requests per second of the test latency; 0 if it was not run
	Machine    Machine     `json:"machine"`
	Contenders []Contender `json:"contenders"`
	Tests      []Test      `json:"tests"`
	Micro      []Micro     `json:"micro"`
	Samples    []Sample    `json:"samples"`
}

// Machine is where the run took place.
type Machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Kernel   string            `json:"kernel"`
	IRQTime  string            `json:"irq_time"` // CONFIG_IRQ_TIME_ACCOUNTING: yes, no, unknown
	Programs map[string]string `json:"programs"` // version by name
}

// Contender and Test repeat what the tables need to be read alone.
type Contender struct {
	Name  string `json:"name"`
	Title string `json:"title"`
}

// Test is a measurement's name and unit.
type Test struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	Unit  string `json:"unit"`
	Lower bool   `json:"lower"` // lower is better
}

// A Sample is one measurement of one contender in one round.
type Sample struct {
	Round     int                `json:"round"` // from 1
	Contender string             `json:"contender"`
	Test      string             `json:"test"`
	Value     float64            `json:"value"`
	Packets   float64            `json:"packets,omitempty"` // that the director sent on
	Bytes     float64            `json:"bytes,omitempty"`   // of payload that crossed it
	Extra     map[string]float64 `json:"extra,omitempty"`
	Usage     Usage              `json:"usage"`
	Error     string             `json:"error,omitempty"` // the measurement failed; Value is nothing
}

// ReadReport reads what Encode wrote.
func ReadReport(path string) (*Report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rep := new(Report)
	if err := json.Unmarshal(text, rep); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return rep, nil
}

// Encode is the report as JSON with one line per sample.
func (r *Report) Encode() ([]byte, error) {
	head := *r
	head.Samples = []Sample{}
	text, err := json.MarshalIndent(head, "", "  ")
	if err != nil {
		return nil, err
	}
	var lines [][]byte
	for _, s := range r.Samples {
		line, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		lines = append(lines, append([]byte("\n    "), line...))
	}
	empty := []byte(`"samples": []`)
	full := slices.Concat([]byte(`"samples": [`), bytes.Join(lines, []byte(",")), []byte("\n  ]"))
	return append(bytes.Replace(text, empty, full, 1), '\n'), nil
}

// of are the good samples of a contender in a test.
func (r *Report) of(test, contender string) (found []Sample) {
	for _, s := range r.Samples {
		if s.Test == test && s.Contender == contender && s.Error == "" {
			found = append(found, s)
		}
	}
	return found
}

// A figure is a median over rounds and how far to trust it.
type figure struct {
	value    float64
	low, top float64 // the extremes
	rounds   int     // that gave a value; 0: not measured
	noisy    int     // of them, beside other work
}

// figure is the median over the rounds of what get reads from a sample; it
// skips samples for which get says false.
func (r *Report) figure(test, contender string, get func(Sample) (float64, bool)) figure {
	var f figure
	var values []float64
	for _, s := range r.of(test, contender) {
		v, ok := get(s)
		if !ok {
			continue
		}
		values = append(values, v)
		if s.Usage.Noisy() {
			f.noisy++
		}
	}
	return f.over(values)
}

// over is f with the values of the rounds.
func (f figure) over(values []float64) figure {
	if f.rounds = len(values); f.rounds > 0 {
		f.value, f.low, f.top = median(values), slices.Min(values), slices.Max(values)
	}
	return f
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// What a figure can be made of.
func value(s Sample) (float64, bool) { return s.Value, true }

func p99(s Sample) (float64, bool) { v, ok := s.Extra["p99"]; return v, ok }

// cpuPerGB is seconds of the director's processes per 10^9 bytes of payload.
func cpuPerGB(s Sample) (float64, bool) {
	return (s.Usage.User + s.Usage.System) / (s.Bytes / 1e9), s.Bytes > 0
}

// machinePerGB is the same of the whole machine, both ends included.
func machinePerGB(s Sample) (float64, bool) { return s.Usage.Machine / (s.Bytes / 1e9), s.Bytes > 0 }

// cpuPerPacket is microseconds of the director's processes per packet that it sent on.
func cpuPerPacket(s Sample) (float64, bool) {
	return (s.Usage.User + s.Usage.System) * 1e6 / s.Packets, s.Packets > 0
}

func userPerPacket(s Sample) (float64, bool) { return s.Usage.User * 1e6 / s.Packets, s.Packets > 0 }

func machinePerPacket(s Sample) (float64, bool) {
	return s.Usage.Machine * 1e6 / s.Packets, s.Packets > 0
}
