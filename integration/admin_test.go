package integration

// What the director tells about itself: /metrics and /healthz by curl, the
// status command, in the topology of bed_test.go.

import (
	"bufio"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

// metrics asks the director by curl, as a scraper does, and returns the series.
func metrics(t *testing.T, b *bed) map[string]float64 {
	t.Helper()
	series := map[string]float64{}
	lines := bufio.NewScanner(strings.NewReader(run(t, b.director, "curl", "-sS", "--fail", "http://"+adminAddr+"/metrics")))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if strings.HasPrefix(lines.Text(), "#") || !ok {
			continue
		}
		if i := strings.LastIndex(lines.Text(), "} "); i > 0 { // a label may hold a space
			name, value = lines.Text()[:i+1], lines.Text()[i+2:]
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("series %q: %v", lines.Text(), err)
		}
		series[name] = n
	}
	return series
}

// total sums the series of a metric whose labels contain all of with.
func total(series map[string]float64, metric string, with ...string) float64 {
	var n float64
next:
	for name, value := range series {
		if name != metric && !strings.HasPrefix(name, metric+"{") {
			continue
		}
		for _, w := range with {
			if !strings.Contains(name, w) {
				continue next
			}
		}
		n += value
	}
	return n
}

func TestMetricsMove(t *testing.T) {
	need(t, programs...)
	list := some("dr IPv4", "nat IPv6")
	b := readyBed(t, list)
	d := startDirector(t, b.director, settings+services(list))
	if out := run(t, b.director, "curl", "-sS", "--fail", "http://"+adminAddr+"/healthz"); out == "" {
		t.Error("/healthz says nothing")
	}
	before := metrics(t, b)
	const requests = 6
	for range requests {
		serving(t, b, list)
	}
	refusedTCP(t, &target{b, list[0]})
	after := metrics(t, b)
	moved := func(metric string, with ...string) float64 {
		return total(after, metric, with...) - total(before, metric, with...)
	}
	for _, v := range list {
		name := `service="` + strings.ReplaceAll(v.name, " ", "-") + `"`
		if got := moved("uvs_packets_total", name, `direction="in"`, `mode="`+v.mode+`"`); got < requests*4 {
			t.Errorf("%s: %v packets in, want at least %d", v.name, got, requests*4) // SYN, ACK, request, FIN
		}
		if in, out := moved("uvs_bytes_total", name, `direction="in"`), moved("uvs_bytes_total", name, `direction="out"`); in == 0 || (out > 0) != (v.mode == "nat") {
			t.Errorf("%s: %v bytes in, %v out", v.name, in, out)
		}
		for n := range 2 {
			rs := `real_server="` + v.rip(n+1).String()
			if got := moved("uvs_real_server_packets_total", name, rs, `direction="in"`); got == 0 {
				t.Errorf("%s: real server %d got nothing", v.name, n+1)
			}
		}
	}
	if got := moved("uvs_flows_created_total"); got != 2*requests {
		t.Errorf("%v flows created, want %d", got, 2*requests)
	}
	if got := moved("uvs_verdicts_total", `verdict="pass"`); got < 1 {
		t.Error("the segment to a closed port did not go up")
	}
	if hit, miss := moved("uvs_flow_lookups_total", `result="hit"`), moved("uvs_flow_lookups_total", `result="miss_syn"`); hit == 0 || miss < 2*requests {
		t.Errorf("lookups: %v hits, %v misses by SYN", hit, miss)
	}
	if read, verdicts := total(after, "uvs_tun_queue_reads_total"), total(after, "uvs_verdicts_total"); read == 0 || verdicts == 0 {
		t.Errorf("%v packets read, %v verdicts", read, verdicts)
	}

	out := run(t, b.director, uvsProgram(t), "status", "--socket", d.socket)
	for _, v := range list {
		for n := range 2 {
			if !strings.Contains(out, v.rip(n+1).String()) || !strings.Contains(out, v.vip.String()) {
				t.Errorf("status lacks %v on %v:\n%s", v.rip(n+1), v.vip, out)
			}
		}
	}
	var state struct {
		Services []struct {
			Name string `json:"name"`
		} `json:"services"`
	}
	if err := json.Unmarshal([]byte(run(t, b.director, uvsProgram(t), "status", "--json", "--socket", d.socket)), &state); err != nil {
		t.Fatal(err)
	}
	if len(state.Services) != strings.Count(services(list), "- name:") {
		t.Errorf("status has %d services", len(state.Services))
	}
}
