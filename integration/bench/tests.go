package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// A test is one measurement of a lane.
type test struct {
	title string
	unit  string
	lower bool // lower is better
	run   func(ctx context.Context, l *lane, length time.Duration, load float64) (reading, error)
}

// A reading is what a test found, before the accounts are added.
type reading struct {
	value   float64            // in the test's unit
	packets float64            // that the director sent on to the real server; 0 where not counted
	bytes   float64            // of payload that crossed the director
	sent    float64            // bytes that certainly went from the client through the director
	extra   map[string]float64 // further figures, by name
}

// tests lists all there are; test "latency" runs at a load found by "http".
var tests = map[string]test{
	"bulk1":   {title: "bulk TCP, 1 stream", unit: "Gbit/s", run: bulk("-P", "1")},
	"bulk4":   {title: "bulk TCP, 4 streams", unit: "Gbit/s", run: bulk("-P", "4")},
	"bulk1r":  {title: "bulk TCP to the client, 1 stream", unit: "Gbit/s", run: bulk("-P", "1", "-R")},
	"bulk4r":  {title: "bulk TCP to the client, 4 streams", unit: "Gbit/s", run: bulk("-P", "4", "-R")},
	"http":    {title: "HTTP requests, keep-alive", unit: "requests/s", run: requests()},
	"connect": {title: "HTTP requests, each a new connection", unit: "requests/s", run: requests("-H", "Connection: close")},
	"udp":     {title: "small UDP packets delivered", unit: "packets/s", run: smallPackets},
	"latency": {title: "latency of a request, median", unit: "µs", lower: true, run: latency},
}

var defaultTests = []string{"bulk1", "bulk4", "http", "connect", "udp", "latency"}

func furtherTests() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for name := range maps.Keys(tests) {
			if !slices.Contains(defaultTests, name) && !yield(name) {
				return
			}
		}
	})
}

// bulk is iperf3 from the client to the real server (with -R the other way).
func bulk(args ...string) func(context.Context, *lane, time.Duration, float64) (reading, error) {
	return func(ctx context.Context, l *lane, length time.Duration, _ float64) (reading, error) {
		seconds := strconv.Itoa(int(length.Seconds()))
		out, err := l.client.Run(ctx, "iperf3", append([]string{"-J", "-c", l.target, "-p", iperfPort, "-t", seconds}, args...)...)
		if err != nil {
			return reading{}, err
		}
		r, err := parseIperf(out)
		if slices.Contains(args, "-R") {
			r.sent = 0 // only acknowledgements go that way
		}
		return r, err
	}
}

func parseIperf(out string) (reading, error) {
	var doc struct {
		Error string
		End   struct {
			Sent struct {
				Retransmits float64
			} `json:"sum_sent"`
			Received struct {
				Bytes float64
				Bits  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		return reading{}, fmt.Errorf("iperf3: %w", err)
	}
	got := doc.End.Received
	if doc.Error != "" || got.Bytes == 0 {
		return reading{}, fmt.Errorf("iperf3 received nothing: %s", doc.Error)
	}
	return reading{
		value: got.Bits / 1e9, bytes: got.Bytes, sent: got.Bytes,
		extra: map[string]float64{"retransmits": doc.End.Sent.Retransmits},
	}, nil
}

// wrkConns is how many connections wrk holds, over both of its threads.
const wrkConns = "64"

// requests is wrk from the client.
func requests(args ...string) func(context.Context, *lane, time.Duration, float64) (reading, error) {
	return func(ctx context.Context, l *lane, length time.Duration, _ float64) (reading, error) {
		all := append([]string{"-t", "2", "-c", wrkConns, "-d", length.String()}, args...)
		out, err := l.client.Run(ctx, "wrk", append(all, "http://"+l.target+":"+httpPort+"/")...)
		if err != nil {
			return reading{}, err
		}
		return parseWrk(out)
	}
}

var (
	wrkTotal  = regexp.MustCompile(`(\d+) requests in `)
	wrkRate   = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkErrors = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	wrkStatus = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
)

// minRequest is less than any request of wrk has, in bytes.
const minRequest = 32

func parseWrk(out string) (reading, error) {
	total, rate := wrkTotal.FindStringSubmatch(out), wrkRate.FindStringSubmatch(out)
	if total == nil || rate == nil {
		return reading{}, fmt.Errorf("wrk printed %q", out)
	}
	if bad := wrkStatus.FindStringSubmatch(out); bad != nil {
		return reading{}, fmt.Errorf("wrk got %s answers that were not 200", bad[1])
	}
	n, err := strconv.ParseFloat(total[1], 64)
	if err != nil {
		return reading{}, err
	}
	r := reading{sent: n * minRequest, extra: map[string]float64{"errors": 0}}
	if r.value, err = strconv.ParseFloat(rate[1], 64); err != nil {
		return reading{}, err
	}
	if errs := wrkErrors.FindStringSubmatch(out); errs != nil {
		for _, e := range errs[1:] {
			count, err := strconv.ParseFloat(e, 64)
			if err != nil {
				return reading{}, err
			}
			r.extra["errors"] += count
		}
	}
	return r, nil
}

// smallPackets sends UDP packets as fast as the client can and counts those that reach the real server.
func smallPackets(ctx context.Context, l *lane, length time.Duration, _ float64) (reading, error) {
	before, _, err := l.counters("server")
	if err != nil {
		return reading{}, err
	}
	collect, err := l.startSink(ctx)
	if err != nil {
		return reading{}, err
	}
	out, sendErr := l.client.Run(ctx, self(), workerSend, "-for", length.String(), l.target+":"+udpPort)
	got, err := collect()
	if sendErr != nil {
		err = sendErr
	}
	if err != nil {
		return reading{}, err
	}
	var sent udpSent
	if err := json.Unmarshal([]byte(out), &sent); err != nil {
		return reading{}, fmt.Errorf("%s: %w", workerSend, err)
	}
	after, _, err := l.counters("server")
	if err != nil {
		return reading{}, err
	}
	const header = 28 // IPv4 and UDP
	return reading{
		value:   float64(got.Packets) / sent.Seconds,
		packets: float64(after - before),
		sent:    float64(got.Packets) * header,
		extra: map[string]float64{
			"offered":      float64(sent.Packets) / sent.Seconds,
			"sink_dropped": float64(got.Dropped) / sent.Seconds,
		},
	}, nil
}

// startSink starts the counter on the real server; collect ends it.
func (l *lane) startSink(ctx context.Context) (collect func() (udpReceived, error), err error) {
	p, err := l.server.Start(exec.Command(self(), workerSink, "-port", udpPort))
	if err != nil {
		return nil, err
	}
	if err := l.server.WaitListen(ctx, "udp/"+udpPort); err != nil {
		p.Stop()
		return nil, err
	}
	return func() (got udpReceived, err error) {
		p.Stop()
		if err := p.Wait(ctx); err != nil {
			return got, fmt.Errorf("%s: %w: %s", workerSink, err, p.Output())
		}
		if err := json.Unmarshal([]byte(p.Output()), &got); err != nil {
			return got, fmt.Errorf("%s printed %q: %w", workerSink, p.Output(), err)
		}
		if got.Packets == 0 {
			return got, errors.New("no UDP packet reached the real server")
		}
		return got, nil
	}, nil
}

// latency sends load requests per second.
func latency(ctx context.Context, l *lane, length time.Duration, load float64) (reading, error) {
	rate := strconv.FormatFloat(load, 'f', 0, 64)
	out, err := l.client.Run(ctx, self(), workerPace, "-rate", rate, "-for", length.String(), l.target+":"+httpPort)
	if err != nil {
		return reading{}, err
	}
	var p paced
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		return reading{}, fmt.Errorf("%s: %w", workerPace, err)
	}
	return reading{
		value: p.P50,
		sent:  float64(p.Requests * len(paceRequest)),
		extra: map[string]float64{"p99": p.P99, "max": p.Max, "rate": p.Rate},
	}, nil
}
