package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/admin"
)

// call runs the program and returns its exit code and what it printed.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(args, &out, &errs)
	return code, out.String(), errs.String()
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodConfig = `
addresses: {fullnat_pool: [198.51.100.0/30]}
services:
  - name: web
    listen: ["203.0.113.10:80/tcp", "203.0.113.10:443/tcp"]
    mode: tun
    real_servers: [{address: 192.0.2.21}, {address: 192.0.2.22, mode: fullnat}]
`

func TestExitCodes(t *testing.T) {
	good := write(t, "good.yaml", goodConfig)
	bad := write(t, "bad.yaml", "device: {queues: 99}\nlimits: {flows: 0}\n")
	tests := []struct {
		name   string
		args   []string
		code   int
		stdout string // parts
		stderr []string
	}{
		{name: "help", args: []string{}, code: 0, stdout: "Available Commands"},
		{name: "version", args: []string{"version"}, code: 0, stdout: "uvs "},
		{name: "a good file", args: []string{"check", "-c", good}, code: 0, stdout: "good: 1 services on 2 addresses and ports, 2 real servers"},
		{name: "every fault of a bad file", args: []string{"check", "-c", bad}, code: 2, stderr: []string{"\ndevice.queues: 99 is", "\nlimits.flows: 0 is"}},
		{name: "run refuses a bad file too", args: []string{"run", "-c", bad}, code: 2, stderr: []string{"\ndevice.queues: 99 is", "\nlimits.flows: 0 is"}},
		{name: "a file mended by flags", args: []string{"check", "-c", bad, "--set", "device.queues=2", "--set", "limits.flows=5"}, code: 0, stdout: "good"},
		{name: "a file that is not there", args: []string{"check", "-c", good + "x.yaml"}, code: 2, stderr: []string{"no such file"}},
		{name: "no file", args: []string{"run"}, code: 2, stderr: []string{"-c FILE"}},
		{name: "an unknown command", args: []string{"fly"}, code: 2, stderr: []string{`unknown command "fly"`}},
		{name: "an unknown flag", args: []string{"check", "--fast"}, code: 2, stderr: []string{"--fast", "uvs check --help"}},
		{name: "an argument too many", args: []string{"version", "please"}, code: 2, stderr: []string{"please"}},
		{name: "a flow's place that is none", args: []string{"flows", "--client", "example.org"}, code: 2, stderr: []string{"--client", "NETWORK/BITS"}},
		{name: "more flows than an answer has", args: []string{"flows", "--limit", "1000000"}, code: 2, stderr: []string{"--limit"}},
		{name: "a packet without a protocol", args: []string{"explain", "198.51.100.7:1", "203.0.113.10:80"}, code: 2, stderr: []string{"none of tcp, udp, sctp"}},
		{name: "no director to ask", args: []string{"status", "--socket", good + ".sock"}, code: 1, stderr: []string{"no director runs at"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := call(t, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) {
				t.Errorf("exit code %d, want %d; printed %q, want %q in it; errors %q", code, tt.code, stdout, tt.stdout, stderr)
			}
			for _, want := range tt.stderr {
				if !strings.Contains(stderr, want) {
					t.Errorf("errors %q, want %q in them", stderr, want)
				}
			}
		})
	}
}

func TestEnvironmentSetsKeys(t *testing.T) {
	t.Setenv("UVS_LIMITS_FLOWS", "0")
	if code, _, stderr := call(t, "check", "-c", write(t, "good.yaml", goodConfig)); code != 2 || !strings.Contains(stderr, "limits.flows") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	t.Setenv("UVS_SOCKET", "/nowhere/of.env")
	if _, _, stderr := call(t, "status"); !strings.Contains(stderr, "/nowhere/of.env") {
		t.Errorf("UVS_SOCKET is not used: %q", stderr)
	}
}

// TestCommandsInDocumentsExist: every line that starts with uvs in a shell
// example names a command and flags that there are.
func TestCommandsInDocumentsExist(t *testing.T) {
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, doc := range append(docs, "../../README.md") {
		raw, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllStringSubmatch(string(raw), -1) {
			text := strings.ReplaceAll(block[1], "\\\n", " ")
			for line := range strings.Lines(text) {
				line, _, _ = strings.Cut(line, " #")
				args := strings.Fields(line)
				for len(args) > 0 && (args[0] == "sudo" || strings.Contains(args[0], "=")) {
					args = args[1:]
				}
				if len(args) == 0 || filepath.Base(args[0]) != "uvs" {
					continue
				}
				n++
				cmd, rest, err := newRoot().Find(args[1:])
				if err != nil {
					t.Errorf("%s: %s: %v", doc, line, err)
					continue
				}
				if err := cmd.ParseFlags(rest); err != nil {
					t.Errorf("%s: %s: %v", doc, line, err)
				}
			}
		}
	}
	if n < 5 {
		t.Errorf("only %d commands found; is this test still reading the documents?", n)
	}
}

func TestStatusPrintsTheState(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := admin.State{
		Node: "lb1", Version: "v1", Started: start,
		Config:   admin.ConfigState{File: "/etc/uvs.yaml", Loaded: start, LastError: "a: wrong\nb: wrong too"},
		Device:   admin.DeviceState{Name: "uvs0", Queues: 2, Offloads: "checksum tso", Egress: "auto", FastLane: "on"},
		Warnings: []string{"net.x is not 1"},
		Flows:    admin.FlowState{Now: 1, Limit: 2, Created: 3, Expired: 4, Evicted: 5, Ended: 6, Resets: 7, ResetsLost: 8, Dropped: 6, InLane: 34},
		Defence:  admin.DefenceState{DropEntry: true, DropPacket: 7, SecureTCP: true, FewFlows: true, LowMemory: true},
		Lookups:  admin.LookupState{Hit: 6, MissSYN: 7, MissNonSYN: 8},
		Packets:  admin.PacketState{Received: 9, Sent: 10, Passed: 11, Returned: 12, Dropped: 13, ByLink: 14, ByKernel: 15},
		Drops:    map[string]uint64{"truncated": 13},
		Lost:     map[string]uint64{"no_neighbour": 16},
		Total: admin.Measured{Rates: admin.Rates{
			FlowsOpened: 29, Requests: admin.Traffic{Packets: 30, Bytes: 31}, Replies: admin.Traffic{Packets: 32, Bytes: 33},
		}},
		BGP: []admin.PeerState{
			{Peer: "192.0.2.1", AS: 65000, State: "established", Since: start.Add(time.Minute), Flaps: 35, BFD: "up", Announced: 36, Refused: 37, LastError: "long ago"},
			{Peer: "eth0", AS: 65001, State: "active", Since: start, LastError: "cannot connect"},
		},
		VIPs: []admin.VIPState{{Address: "203.0.113.10", Up: true, Level: "degraded", Reason: "web: weight 1 of 3 is healthy"}, {Address: "203.0.113.11", Reason: "nobody is fit"}},
		Services: []admin.ServiceState{{
			Name: "web", Listen: []string{"203.0.113.10:80/tcp"},
			RealServers: []admin.RealServerState{{
				Address: "192.0.2.1", Mode: "nat", Weight: 1, State: "up", ActiveFlows: 17, InactiveFlows: 18, Persistent: 7, MaxFlows: 35, Overloaded: true,
				Measured: admin.Measured{
					FlowsOpened: 23, Requests: admin.Traffic{Packets: 19, Bytes: 20}, Replies: admin.Traffic{Packets: 21, Bytes: 22},
					Rates: admin.Rates{FlowsOpened: 24, Requests: admin.Traffic{Packets: 25, Bytes: 26}, Replies: admin.Traffic{Packets: 27, Bytes: 28}},
				},
				Health: &admin.HealthState{Since: start, Cause: "check succeeded"},
			}, {
				Address: "192.0.2.2", Mode: "nat", State: "down",
				Health: &admin.HealthState{Since: start.Add(30 * time.Second), Cause: "fell", LastError: "still no answer"},
			}, {
				Address: "192.0.2.3", Mode: "nat", State: "up",
				Health: &admin.HealthState{Since: start, LastError: "no answer this time"},
			}, {
				Address: "192.0.2.4", Mode: "nat", State: "down", Refused: 39, Unanswered: 40,
				Health: &admin.HealthState{Since: start.Add(85 * time.Second), Ejected: start.Add(95 * time.Second), Cause: "they failed", LastError: "bad"},
			}},
		}},
	}
	const want = `uvs v1 on lb1, up 1m30s
configuration        /etc/uvs.yaml, read 2026-01-02T03:04:05Z
last reload failed   a: wrong
                     b: wrong too
device               uvs0, 2 queues, offloads checksum tso, egress auto
flows                1 of 2; 3 created, 4 expired, 5 evicted, 6 ended with their real server
resets               7 sent to the ends of connections, 8 lost
defence              drop_entry, drop_packet 1 in 7, secure_tcp; the flow table is nearly full; memory is low; 6 flows dropped
fast lane            on; 34 flows
per second           29 flows; 30 packets and 31 bytes in, 32 and 33 out
lookups              6 hit, 7 missed and could open a flow, 8 missed otherwise
packets              9 received, 10 sent, 11 passed up, 12 returned, 13 dropped
ways out             14 by link, 15 by kernel
dropped              13 truncated
lost on the way out  16 no_neighbour
warning              net.x is not 1

BGP peer   AS     state        for    lost  BFD  prefixes  refused
192.0.2.1  65000  established  30s    35    up   36        37
eth0       65001  active       1m30s  0     -    0         0
eth0: cannot connect
VIP degraded  203.0.113.10: web: weight 1 of 3 is healthy
VIP down      203.0.113.11: nobody is fit

service web on 203.0.113.10:80/tcp
real server  mode  weight  state  active  inactive  persistent  flows  packets in  bytes in  packets out  bytes out  flows/s  packets/s in  packets/s out
192.0.2.1    nat   1       up     17      18        7           23     19          20        21           22         24       25            27
192.0.2.2    nat   0       down   0       0         0           0      0           0         0            0          0        0             0
192.0.2.3    nat   0       up     0       0         0           0      0           0         0            0          0        0             0
192.0.2.4    nat   0       down   0       0         0           0      0           0         0            0          0        0             0
192.0.2.1 gets no new flows: it has had its max_flows, 35
192.0.2.2 is down for 1m0s: still no answer
192.0.2.3 is up, but its latest check failed: no answer this time
192.0.2.4 has had 39 connections refused and 40 not answered
192.0.2.4 is down for 5s and another 5s: they failed
`
	var got bytes.Buffer
	if err := printState(&got, &s, start.Add(90*time.Second)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
}
