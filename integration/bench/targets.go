package main

import (
	"fmt"
	"slices"
)

// A target is one line of what uvs promises on a machine with two cores.
type target struct {
	text   string // "nat: bulk TCP, 1 stream / kernel forwarding"
	limit  float64
	unit   string // "×" for ratios
	atMost bool   // the limit is an upper one
	got    figure
}

// verdict is pass or fail, or why there is neither.
func (t target) verdict(quick bool) string {
	if t.got.rounds == 0 {
		return "not measured"
	}
	v := "pass"
	if t.atMost && t.got.value > t.limit || !t.atMost && t.got.value < t.limit {
		v = "FAIL"
	}
	switch {
	case quick:
		v += " (quick run: proves nothing)"
	case t.got.noisy > 0:
		v += fmt.Sprintf(" (%d of %d rounds noisy)", t.got.noisy, t.got.rounds)
	}
	return v
}

// A promise is a ratio that modes must reach in a test against some peers.
type promise struct {
	test  string
	modes []string
	peers []peer
}

type peer struct {
	name  string
	ratio float64
}

// The modes whose promises are the same, with the fast lane and without.
var (
	laneModes = []string{"nat", "dr", "fullnat"}
	roadModes = []string{"nat/road", "dr/road", "fullnat/road"}
)

var promises = []promise{
	{"bulk1", laneModes, []peer{{"kernel", 0.95}, {"haproxy", 1.9}}},
	{"bulk1", []string{"tun"}, []peer{{"kernel", 0.85}}},
	{"http", laneModes, []peer{{"nftables", 1}, {"haproxy", 1.7}}},
	{"connect", laneModes, []peer{{"nftables", 1.1}}},
	{"udp", laneModes, []peer{{"nftables", 1.1}}},

	{"bulk1", roadModes, []peer{{"kernel", 0.65}, {"haproxy", 1.25}, {"nginx", 1.25}}},
	{"http", roadModes, []peer{{"nftables", 0.65}, {"haproxy", 1.05}}},
	{"connect", roadModes, []peer{{"nftables", 1.2}, {"haproxy", 1.2}}},
	{"udp", []string{"nat/road", "dr/road"}, []peer{{"nftables", 1}}},
}

// slowest is how much longer than forwarded by the kernel the slowest requests
// of a hundred may take in the fast lane.
const slowest = 1.15

// costs are the limits for what the uvs process may use.
var costs = []struct {
	text  string
	test  string
	limit float64
	unit  string
	get   func(Sample) (float64, bool)
}{
	{"CPU of uvs, bulk TCP, 1 stream", "bulk1", 0.55, "s/GB", cpuPerGB},
	{"CPU of uvs, small UDP packets", "udp", 1.25, "µs/packet", cpuPerPacket},
	{"of it in user mode", "udp", 0.15, "µs/packet", userPerPacket},
}

// micros are the limits for Go benchmarks.
var micros = []struct {
	text      string
	pkg, name string
	unit      string // that the benchmark reports
	limit     float64
}{
	{"known flow of nat: parse, lookup, rewrite; 1 M flows, batches of 64", "lb", "Handle/nat/ipv4/million_flows", "ns/op", 150},
	{"the same, allocations", "lb", "Handle/nat/ipv4/million_flows", "allocs/op", 0},
	{"known flow of dr", "lb", "Handle/dr/ipv4/million_flows", "ns/op", 150},
	{"the same, allocations", "lb", "Handle/dr/ipv4/million_flows", "allocs/op", 0},
	{"flow table: memory, 10 M flows", "lb", "Grow", "B/flow", 128},
	{"flow table: insert, mean of 10 M flows of nat", "lb", "Insert/nat/flows=10000000", "ns/flow", 400},
	{"flow table: longest stop of its own on the way to 10 M flows", "lb", "Grow", "longest-ns", 1e6},
}

// targets holds the report against all promises.
func (r *Report) targets() (all []target) {
	for _, p := range promises {
		for _, mode := range p.modes {
			for _, peer := range p.peers {
				all = append(all, target{
					text:  fmt.Sprintf("%s, %s / %s", tests[p.test].title, r.title(mode), r.title(peer.name)),
					limit: peer.ratio, unit: "×", got: r.ratio(p.test, mode, peer.name),
				})
			}
		}
	}
	for _, mode := range laneModes {
		all = append(all, target{
			text:  fmt.Sprintf("latency at half load, 99 %% within, %s / %s", r.title(mode), r.title("kernel")),
			limit: slowest, unit: "×", atMost: true, got: r.ratioOf("latency", mode, "kernel", p99),
		})
	}
	for _, c := range costs {
		for _, mode := range slices.Concat(laneModes, roadModes) {
			all = append(all, target{
				text:  fmt.Sprintf("%s: %s", r.title(mode), c.text),
				limit: c.limit, unit: c.unit, atMost: true, got: r.figure(c.test, mode, c.get),
			})
		}
	}
	for _, m := range micros {
		all = append(all, target{text: m.text, limit: m.limit, unit: m.unit, atMost: true, got: r.micro(m.pkg, m.name, m.unit)})
	}
	return all
}

// ratio is the median over the rounds of what a contender did in a round by what
// its peer did in the same: a machine that is slower for some minutes is so for
// both. A round is noisy where either measurement was.
func (r *Report) ratio(test, of, by string) figure { return r.ratioOf(test, of, by, value) }

func (r *Report) ratioOf(test, of, by string, get func(Sample) (float64, bool)) figure {
	peers := map[int]Sample{} // by round
	for _, s := range r.of(test, by) {
		peers[s.Round] = s
	}
	var f figure
	var ratios []float64
	for _, s := range r.of(test, of) {
		peer, ran := peers[s.Round]
		mine, ok := get(s)
		its, too := get(peer)
		if !ran || !ok || !too || its == 0 {
			continue
		}
		ratios = append(ratios, mine/its)
		if s.Usage.Noisy() || peer.Usage.Noisy() {
			f.noisy++
		}
	}
	return f.over(ratios)
}

func (r *Report) micro(pkg, name, unit string) figure {
	for _, m := range r.Micro {
		if v, ok := m.Values[unit]; ok && m.Package == pkg && m.Name == name {
			return figure{}.over([]float64{v})
		}
	}
	return figure{}
}

// title is a contender's name for readers, also where the run left it out.
func (r *Report) title(name string) string {
	if i := slices.IndexFunc(r.Contenders, func(c Contender) bool { return c.Name == name }); i >= 0 {
		return r.Contenders[i].Title
	}
	if c, err := contenderByName(name); err == nil {
		return c.title
	}
	return name
}
