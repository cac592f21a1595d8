package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// aVector is a file with one SYN through nat, as the kernel's IPVS carried it;
// %OUT% is what left.
const aVector = `{"schema": 1, "group": "T", "description": "", "topology": {
 "legs": [
  {"name": "cli", "mtu": 1500, "addrs": ["10.1.0.1/24"], "roles": {}, "neigh": {"10.1.0.254": "router"}},
  {"name": "srv", "mtu": 1500, "addrs": ["10.2.0.1/24"], "roles": {}, "neigh": {"10.2.0.11": "rs1"}}],
 "local_addrs": ["192.0.2.10/32"], "routes": ["default via 10.1.0.254 dev cli"], "sysctl": ["net.ipv4.ip_forward=1"]},
 "flow_sets": {}, "vectors": [{"name": "a_syn", "group": "T", "stable": true, "stable_masked": true,
 "rules": ["-A -t 192.0.2.10:80 -s rr", "-a -t 192.0.2.10:80 -r 10.2.0.11:80 -m"],
 "steps": [{"op": "inject", "leg": "cli", "from": "router", "t_ms": 6,
  "pkt": "4500003c4242400040060c35c6336407c000020a9c4000500100000000000000a002faf0b3390000020405b40402080a000010000000000001030307",
  "out": [{"leg": "srv", "to": "rs1", "pkt": "%OUT%"}]}]}]}`

// replayedNowhere has a service for what left of aVector, which drops it.
const replayedNowhere = `
services:
  - name: web
    listen: ["10.2.0.11:80/tcp"]
    mode: nat
    on_no_server: drop
    real_servers: [{address: 10.2.0.12, weight: 0}]
`

const carriedSYN = "4500003c424240003f06c532c63364070a02000b9c4000500100000000000000a002faf06b370000020405b40402080a000010000000000001030307"

func TestReplay(t *testing.T) {
	good := write(t, "good.json", strings.ReplaceAll(aVector, "%OUT%", carriedSYN))
	wrong := write(t, "wrong.json", strings.ReplaceAll(aVector, "%OUT%", strings.Replace(carriedSYN, "3f06", "4006", 1)))
	capture := filepath.Join(t.TempDir(), "left.pcapng")
	tests := []struct {
		name   string
		args   []string
		code   int
		stdout []string
		stderr string
	}{
		{"what is expected leaves", []string{good, "-w", capture}, 0, []string{"met         a_syn", "1 vectors met, 0 different on purpose, 0 not met, 0 skipped"}, ""},
		{"another TTL is expected", []string{wrong}, 1, []string{
			"NOT MET     a_syn",
			"-   IPv4 198.51.100.7 > 10.2.0.11 proto 6 ttl 64",
			"+   IPv4 198.51.100.7 > 10.2.0.11 proto 6 ttl 63",
		}, "1 vectors were not met"},
		{"every packet is told", []string{good, "-v"}, 0, []string{"0: 0.006 s, from cli", "leaves by srv to rs1"}, ""},
		{"none is chosen", []string{good, "--run", "^b"}, 2, nil, "there is no vector to play"},
		{"none is there", []string{write(t, "none.json", `{"schema": 1, "vectors": []}`)}, 2, nil, "there is no vector to play"},
		{"a capture needs services", []string{capture}, 2, nil, "name a configuration with -c FILE"},
		{"a capture is played to the services", []string{capture, "-c", write(t, "u.yaml", goodConfig)}, 0, []string{"proto 6 ttl 63", "leaves by wire to 10.2.0.11"}, ""},
		{"why nothing leaves is told", []string{capture, "-c", write(t, "none.yaml", replayedNowhere)}, 0,
			[]string{"  drop, no_real_server\n  nothing leaves"}, ""},
		{"a packet that is not for uvs", []string{capture, "-c", write(t, "other.yaml", "node: lb1")}, 0, []string{"leaves by wire"}, ""},
		{"a vector with a step that is none", []string{write(t, "step.json", strings.NewReplacer("%OUT%", "", `"inject"`, `"eject"`).Replace(aVector))}, 2, nil, `step.json: a_syn: step 0: the step "eject" is not known`},
		{"a vector whose time is out of range", []string{write(t, "time.json", strings.NewReplacer("%OUT%", "", `"t_ms": 6`, `"t_ms": 9000000000000`).Replace(aVector))}, 2, nil, "step 0: t_ms, ms or pad is out of range"},
		{"a vector that cannot be played keeps no other from it", []string{write(t, "step.json", strings.NewReplacer("%OUT%", "", `"inject"`, `"eject"`).Replace(aVector)), good}, 2,
			[]string{"not played  a_syn: step 0", "met         a_syn", "1 vectors met, 0 different on purpose, 0 not met, 0 skipped"}, `the step "eject" is not known`},
		{"a file that is none", []string{write(t, "x.json", "{")}, 2, nil, "not a file of vectors"},
		{"a file of another schema", []string{write(t, "x.json", `{"schema": 2}`)}, 2, nil, "schema 2: this program knows schema 1"},
		{"no file", nil, 2, nil, "requires at least 1 arg"},
		{"a bad expression", []string{good, "--run", "("}, 2, nil, "--run: error parsing regexp"},
		{"a bad name to write to", []string{good, "-w", "x.txt"}, 2, nil, "the name must end in .json or .pcapng"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := call(t, append([]string{"replay"}, tt.args...)...)
			if code != tt.code || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit code %d, want %d; stderr: %s", code, tt.code, stderr)
			}
			for _, s := range tt.stdout {
				if !strings.Contains(stdout, s) {
					t.Errorf("stdout does not have %q:\n%s", s, stdout)
				}
			}
		})
	}
}

// TestReplayWritesVectors plays what was written once more: it is its own
// expectation.
func TestReplayWritesVectors(t *testing.T) {
	good := write(t, "good.json", strings.ReplaceAll(aVector, "%OUT%", ""))
	out := filepath.Join(t.TempDir(), "played.json")
	if code, _, _ := call(t, "replay", good, "-w", out); code != 1 {
		t.Errorf("exit code %d for a vector without the packet that leaves, want 1", code)
	}
	if code, stdout, stderr := call(t, "replay", out); code != 0 {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), carriedSYN) {
		t.Errorf("what was played does not have the packet that left:\n%s", b)
	}
}
