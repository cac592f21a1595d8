package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseWrk(t *testing.T) {
	const good = "Running 1s test\n  2000 requests in 1.10s, 0.3MB read\nRequests/sec:   1818.18\n"
	tests := []struct {
		name       string
		in         string
		rate, errs float64
		fails      bool
	}{
		{name: "a clean run", in: good, rate: 1818.18},
		{name: "socket errors are summed", in: good + "  Socket errors: connect 1, read 2, write 0, timeout 4\n", rate: 1818.18, errs: 7},
		{name: "an answer that is not 200 fails the measurement", in: good + "  Non-2xx or 3xx responses: 3\n", fails: true},
		{name: "no result is not a result of zero", in: "unable to connect\n", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseWrk(tt.in)
			if (err != nil) != tt.fails || err == nil && (got.value != tt.rate || got.extra["errors"] != tt.errs) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestParseIperf(t *testing.T) {
	got, err := parseIperf(`{"end": {"sum_sent": {"bytes": 1010, "retransmits": 3}, "sum_received": {"bytes": 1000, "bits_per_second": 8e9}}}`)
	want := reading{value: 8, bytes: 1000, sent: 1000, extra: map[string]float64{"retransmits": 3}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(reading{})); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := parseIperf(`{"error": "unable to connect", "end": {}}`); err == nil {
		t.Errorf("a failed run gives %+v", got)
	}
}

func TestParseProc(t *testing.T) {
	pid, p, err := parseProc("42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 20 10 20 0 1 0 9")
	want := proc{parent: 7, cpuTime: cpuTime{User: 1500 * time.Millisecond, System: 500 * time.Millisecond}, children: 300 * time.Millisecond}
	if err != nil || pid != 42 || p != want {
		t.Errorf("got %d %+v, %v; want 42 %+v", pid, p, err, want)
	}
}

func TestTimeOfOthers(t *testing.T) {
	second := cpuTime{User: time.Second}
	all := map[int]proc{
		1:  {parent: 0, cpuTime: second, children: 4 * time.Second}, // init
		2:  {parent: 0},                                             // kthreadd
		3:  {parent: 2, cpuTime: second},                            // a kernel thread
		10: {parent: 1, cpuTime: second},                            // the bench
		11: {parent: 10, cpuTime: second},                           // what it started
		12: {parent: 11, cpuTime: second},                           // a worker of that
		20: {parent: 1, cpuTime: second, children: time.Second},     // somebody else
	}
	if got, want := foreign(all, 10), 7*time.Second; got != want {
		t.Errorf("others used %v, want %v: init, somebody else and the children of both that have ended", got, want)
	}
	if got, want := tree(all, 11).User, 2*time.Second; got != want {
		t.Errorf("a program with its worker used %v, want %v", got, want)
	}
}

func TestParseMachine(t *testing.T) {
	got, err := parseMachine("cpu  100 50 200 4000 50 10 30 7 0 0\ncpu0 1 2 3\n")
	want := machineTime{
		User: 1500 * time.Millisecond, System: 2 * time.Second, Idle: 40500 * time.Millisecond,
		IRQ: 100 * time.Millisecond, SoftIRQ: 300 * time.Millisecond, Steal: 70 * time.Millisecond,
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestSNMPCounter(t *testing.T) {
	const text = "Tcp: RtoAlgorithm ActiveOpens PassiveOpens\nTcp: 1 2 3\nUdp: InDatagrams RcvbufErrors\nUdp: 8 9\n"
	if got, err := snmpCounter(text, "Tcp", "PassiveOpens"); err != nil || got != 3 {
		t.Errorf("PassiveOpens %d, %v", got, err)
	}
	if got, err := snmpCounter(text, "Udp", "RcvbufErrors"); err != nil || got != 9 {
		t.Errorf("RcvbufErrors %d, %v", got, err)
	}
	if got, err := snmpCounter(text, "Udp", "Missing"); err == nil {
		t.Errorf("a counter that is not there reads %d", got)
	}
}

func TestNFTCounter(t *testing.T) {
	got, err := nftPackets(`{"nftables": [{"metainfo": {"version": "1"}}, {"counter": {"name": "connections", "packets": 12, "bytes": 720}}]}`)
	if err != nil || got != 12 {
		t.Errorf("got %d, %v", got, err)
	}
	if got, err := nftPackets(`{"nftables": []}`); err == nil {
		t.Errorf("a counter that is not there reads %d", got)
	}
}

func TestParseMicro(t *testing.T) {
	got := parseMicro(`goos: linux
pkg: github.com/uvs-project/uvs/lb
BenchmarkLookup/hit 	 100 	 30 ns/op 	 0 B/op 	 0 allocs/op
BenchmarkLookup/hit 	 100 	 10 ns/op 	 0 B/op 	 0 allocs/op
BenchmarkLookup/hit 	 100 	 20 ns/op 	 0 B/op 	 0 allocs/op
BenchmarkGrow 	 1 	 5000 ns/op 	 96.5 B/flow
ok  	github.com/uvs-project/uvs/lb	1.2s
`)
	want := []Micro{
		{Package: "lb", Name: "Lookup/hit", Values: map[string]float64{"ns/op": 20, "B/op": 0, "allocs/op": 0}},
		{Package: "lb", Name: "Grow", Values: map[string]float64{"ns/op": 5000, "B/flow": 96.5}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
