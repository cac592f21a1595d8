package main

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// peersOfTables are the columns of the ratio tables, where they were measured.
var peersOfTables = []string{"kernel", "nftables", "haproxy", "nginx"}

// Tables is everything a run found, as Markdown that also reads well in a terminal.
func Tables(r *Report) string {
	var b strings.Builder
	b.WriteString(about(r))
	b.WriteString("\n## What uvs must reach\n\n")
	t := table{head: []string{"what", "limit", "measured", "lowest–highest", "verdict"}}
	for _, g := range r.targets() {
		sign := "≥"
		if g.atMost {
			sign = "≤"
		}
		got, spread := "–", ""
		if g.got.rounds > 0 {
			got = formatValue(g.got.value, g.unit)
		}
		if g.got.rounds > 1 {
			spread = formatValue(g.got.low, g.unit) + "–" + formatValue(g.got.top, g.unit)
		}
		t.add(g.text, sign+" "+formatValue(g.limit, g.unit), got, spread, g.verdict(r.Quick))
	}
	b.WriteString(t.String())
	for _, test := range r.Tests {
		fmt.Fprintf(&b, "\n## %s\n\n%s", upper(test.Title), r.testTable(test))
	}
	fmt.Fprintf(&b, "\n## CPU time\n\n%s", r.cpuTable())
	if len(r.Micro) > 0 {
		fmt.Fprintf(&b, "\n## Go benchmarks\n\n%s", r.microTable())
	}
	return b.String()
}

func about(r *Report) string {
	m := r.Machine
	var programs []string
	for _, name := range slices.Sorted(maps.Keys(m.Programs)) {
		programs = append(programs, name+" "+m.Programs[name])
	}
	kind := ""
	if r.Quick {
		kind = " (quick: proves nothing)"
	}
	return fmt.Sprintf("Run of %s%s at commit %s: %d rounds of %v s on %d cores of %s, Linux %s, %s.\n\n%s\n",
		r.Time.Format("2006-01-02 15:04 MST"), kind, r.Commit, r.Rounds, r.Seconds, m.Cores, m.CPU, m.Kernel, strings.Join(programs, ", "), r.noise())
}

// noise says how busy the machine was with other things.
func (r *Report) noise() string {
	var noisy, failed int
	var foreign, steal, load []float64
	for _, s := range r.Samples {
		if s.Error != "" {
			failed++
			continue
		}
		if s.Usage.Noisy() {
			noisy++
		}
		foreign, steal, load = append(foreign, s.Usage.Foreign), append(steal, s.Usage.Steal), append(load, s.Usage.Load)
	}
	if len(foreign) == 0 {
		return "Nothing was measured."
	}
	text := fmt.Sprintf("Other processes took %.1f %% of the machine in the median measurement and %.1f %% in the worst, the hypervisor %.1f %% and %.1f %%; the load average, the bench included, was between %.1f and %.1f. %d of %d measurements were noisy (others had more than %.0f %%).",
		100*median(foreign), 100*slices.Max(foreign), 100*median(steal), 100*slices.Max(steal), slices.Min(load), slices.Max(load), noisy, len(foreign), 100*noisyShare)
	if failed > 0 {
		text += fmt.Sprintf(" %d measurements FAILED and count for nothing.", failed)
	}
	return text
}

// testTable has a line for every contender that was measured in a test.
func (r *Report) testTable(test Test) string {
	var peers []string
	for _, p := range peersOfTables {
		if len(r.of(test.Name, p)) > 0 {
			peers = append(peers, p)
		}
	}
	t := table{head: []string{"", test.Unit, "lowest–highest"}}
	if test.Name == "latency" {
		t.head = append(t.head, "99 % within")
	}
	for _, p := range peers {
		t.head = append(t.head, "× "+r.title(p))
	}
	t.head = append(t.head, "noisy rounds")
	for _, c := range r.Contenders {
		f := r.figure(test.Name, c.Name, value)
		if f.rounds == 0 {
			continue
		}
		row := []string{c.Title, formatValue(f.value, test.Unit), formatValue(f.low, test.Unit) + "–" + formatValue(f.top, test.Unit)}
		if test.Name == "latency" {
			row = append(row, formatValue(r.figure(test.Name, c.Name, p99).value, test.Unit))
		}
		for _, p := range peers {
			row = append(row, fmt.Sprintf("%.2f", r.ratio(test.Name, c.Name, p).value))
		}
		t.add(append(row, fmt.Sprintf("%d of %d", f.noisy, f.rounds))...)
	}
	text := t.String()
	if test.Name == "latency" {
		text = fmt.Sprintf("At %.0f requests/s, half of what the slowest contender carried.\n\n", r.Load) + text
	}
	return text
}

// cpuTable tells the cost of bulk data and of small packets.
func (r *Report) cpuTable() string {
	t := table{head: []string{"", "director, s/GB", "machine, s/GB", "director, µs/packet", "user mode of it", "machine, µs/packet"}}
	for _, c := range r.Contenders {
		row := []string{c.Title}
		for _, f := range []struct {
			test string
			get  func(Sample) (float64, bool)
			own  bool // of the director's processes, which the kernel's contenders have not
		}{
			{"bulk1", cpuPerGB, true}, {"bulk1", machinePerGB, false},
			{"udp", cpuPerPacket, true}, {"udp", userPerPacket, true}, {"udp", machinePerPacket, false},
		} {
			got := r.figure(f.test, c.Name, f.get)
			if got.rounds == 0 || f.own && got.value == 0 {
				row = append(row, "–")
				continue
			}
			row = append(row, fmt.Sprintf("%.2f", got.value))
		}
		t.add(row...)
	}
	return t.String()
}

func (r *Report) microTable() string {
	t := table{head: []string{"benchmark", "ns/op", "further"}}
	for _, m := range r.Micro {
		var further []string
		for _, unit := range m.units() {
			further = append(further, fmt.Sprintf("%.4g %s", m.Values[unit], unit))
		}
		t.add(m.Package+" "+m.Name, fmt.Sprintf("%.4g", m.Values["ns/op"]), strings.Join(further, ", "))
	}
	return t.String()
}

// units are the further units of a benchmark, in order.
func (m Micro) units() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(m.Values)), func(u string) bool { return u == "ns/op" || u == "B/op" })
}

// formatValue writes v with three figures that matter and its unit, unless the unit stands in the head of the column.
func formatValue(v float64, unit string) string {
	switch unit {
	case "×":
		return fmt.Sprintf("%.2f ×", v)
	case "Gbit/s":
		return fmt.Sprintf("%.2f", v)
	case "requests/s", "packets/s", "µs":
		return fmt.Sprintf("%.0f", v)
	}
	return strconv.FormatFloat(math.Round(v*1000)/1000, 'f', -1, 64) + " " + unit
}

func upper(s string) string {
	return strings.ToUpper(s[:1]) + s[1:]
}

// A table is a Markdown table with columns padded for a terminal.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, c := range row {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	var b strings.Builder
	line := func(cells []string) {
		for i, c := range cells {
			fmt.Fprintf(&b, "| %-*s ", width[i], c)
		}
		b.WriteString("|\n")
	}
	line(t.head)
	for _, w := range width {
		b.WriteString("|" + strings.Repeat("-", w+2))
	}
	b.WriteString("|\n")
	for _, row := range t.rows {
		line(row)
	}
	return b.String()
}

// The tables of docs/performance.md stand between these lines.
const (
	beginTables = "<!-- tables: made by make bench -->\n"
	endTables   = "<!-- end of tables -->\n"
)

// insertTables puts the tables of a report into the page.
func insertTables(page string, r *Report) (string, error) {
	head, rest, ok := strings.Cut(page, beginTables)
	_, tail, ended := strings.Cut(rest, endTables)
	if !ok || !ended {
		return "", fmt.Errorf("the page has no lines %q and %q", beginTables, endTables)
	}
	return head + beginTables + Tables(r) + endTables + tail, nil
}

// write puts the results of a run into dir.
func write(r *Report, dir string) error {
	text, err := r.Encode()
	if err != nil {
		return err
	}
	for name, content := range map[string]string{"bench.json": string(text), "bench.svg": Picture(r), "bench.md": Tables(r)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// publish makes a report the one that docs/performance.md shows.
func publish(r *Report, docs string) error {
	path := filepath.Join(docs, "performance.md")
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	full, err := insertTables(string(page), r)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	text, err := r.Encode()
	if err != nil {
		return err
	}
	for name, content := range map[string]string{"performance.json": string(text), "performance.svg": Picture(r), "performance.md": full} {
		if err := os.WriteFile(filepath.Join(docs, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
