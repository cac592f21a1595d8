package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// smallReport has two contenders and two rounds of one test.
func smallReport() *Report {
	return &Report{
		Rounds: 3, Seconds: 4, Commit: "abc",
		Machine:    Machine{CPU: "a <CPU> & more", Cores: 2},
		Contenders: []Contender{{"nftables", "nftables DNAT"}, {"nat", "uvs nat"}},
		Tests:      []Test{{Name: "udp", Title: "small UDP packets delivered", Unit: "packets/s"}},
		Samples: []Sample{
			{Round: 1, Contender: "nftables", Test: "udp", Value: 100, Packets: 100},
			{Round: 2, Contender: "nftables", Test: "udp", Value: 300, Packets: 100},
			{Round: 3, Contender: "nftables", Test: "udp", Value: 200, Packets: 100},
			{Round: 1, Contender: "nat", Test: "udp", Value: 260, Packets: 1e6, Usage: Usage{User: 0.125, System: 0.5}},
			{Round: 2, Contender: "nat", Test: "udp", Value: 220, Packets: 1e6, Usage: Usage{User: 0.125, System: 0.5, Foreign: 0.5}},
			{Round: 3, Contender: "nat", Test: "udp", Error: "uvs has ended"},
		},
	}
}

func TestTargets(t *testing.T) {
	verdicts := func(r *Report) map[string]string {
		found := map[string]string{}
		for _, g := range r.targets() {
			found[g.text] = g.verdict(r.Quick)
		}
		return found
	}
	tests := []struct {
		name, text, want string
		change           func(*Report)
	}{
		{name: "a ratio above its limit passes and says how noisy it was",
			text: "small UDP packets delivered, uvs nat / nftables DNAT", want: "pass (1 of 2 rounds noisy)"},
		{name: "a ratio below its limit fails", text: "small UDP packets delivered, uvs nat / nftables DNAT", want: "FAIL",
			change: func(r *Report) { r.Samples[3].Value, r.Samples[4].Value, r.Samples[4].Usage.Foreign = 109, 199, 0 }},
		{name: "a slow round falls on both alike", text: "small UDP packets delivered, uvs nat / nftables DNAT", want: "pass",
			change: func(r *Report) {
				r.Samples[2].Value, r.Samples[3].Value, r.Samples[4].Value, r.Samples[4].Usage.Foreign = 300, 115, 345, 0
			}},
		{name: "a contender that was not measured does not pass", text: "small UDP packets delivered, uvs dr / nftables DNAT", want: "not measured"},
		{name: "a peer whose measurements all failed gives no ratio", text: "small UDP packets delivered, uvs nat / nftables DNAT", want: "not measured",
			change: func(r *Report) { r.Samples[0].Error, r.Samples[1].Error, r.Samples[2].Error = "x", "x", "x" }},
		{name: "CPU below its limit passes", text: "uvs nat: CPU of uvs, small UDP packets", want: "pass (1 of 2 rounds noisy)"},
		{name: "CPU above its limit fails", text: "uvs nat: CPU of uvs, small UDP packets", want: "FAIL (1 of 2 rounds noisy)",
			change: func(r *Report) { r.Samples[3].Usage.System = 3 }},
		{name: "CPU per byte without a bulk test is not zero", text: "uvs nat: CPU of uvs, bulk TCP, 1 stream", want: "not measured"},
		{name: "a Go benchmark that did not run does not pass", text: "flow table: memory, 10 M flows", want: "not measured"},
		{name: "a quick run proves nothing", text: "small UDP packets delivered, uvs nat / nftables DNAT", want: "pass (quick run: proves nothing)",
			change: func(r *Report) { r.Quick = true }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := smallReport()
			if tt.change != nil {
				tt.change(r)
			}
			if got := verdicts(r)[tt.text]; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestReportSurvivesItsFile(t *testing.T) {
	want := smallReport()
	text, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bench.json")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := ReadReport(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		in   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := median(tt.in); got != tt.want {
			t.Errorf("median of %v is %v, want %v", tt.in, got, tt.want)
		}
	}
}

func TestPictureIsWellFormed(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(Picture(smallReport())))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryTestAndContenderOfTheDefaultsExists(t *testing.T) {
	for _, name := range defaultTests {
		if _, ok := tests[name]; !ok {
			t.Errorf("no test %q", name)
		}
	}
	for _, name := range append([]string{"nat/link", "fullnat/kernel", "dr/before"}, defaultContenders...) {
		if _, err := contenderByName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"kernel/link", "nat/", "nat/tun", ""} {
		if c, err := contenderByName(name); err == nil {
			t.Errorf("%q is %v", name, c.title)
		}
	}
}

// TestThePublishedPageIsOfThePublishedRun holds docs/performance.md and its
// picture against docs/performance.json.
func TestThePublishedPageIsOfThePublishedRun(t *testing.T) {
	const docs = "../../docs"
	r, err := ReadReport(filepath.Join(docs, "performance.json"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(docs, "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := insertTables(string(page), r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(page)); diff != "" {
		t.Errorf("run `go run ./integration/bench -render docs/performance.json` (-want +got):\n%s", diff)
	}
	picture, err := os.ReadFile(filepath.Join(docs, "performance.svg"))
	if err != nil {
		t.Fatal(err)
	}
	if string(picture) != Picture(r) {
		t.Error("docs/performance.svg is not the picture of docs/performance.json")
	}
}
