package integration

// Calls by SIPp through a service with SIP persistence, in the topology of
// health_test.go: what one real server answers must not reach another in the
// middle of a call, or the call fails.

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

const sipService = `services:
  - name: sip
    listen: ["203.0.113.10:5060/udp"]
    mode: nat
    scheduler: rr
    persistence: {timeout: 60s, engine: sip}
    policy: {one_packet: true}
    real_servers: [{address: 10.0.0.11}, {address: 10.0.0.12}]
`

// sippServer answers calls to an address of a host.
func sippServer(t *testing.T, h *lab.Host, addr, port string) *lab.Process {
	t.Helper()
	cmd := exec.Command("sipp", "-sn", "uas", "-i", addr, "-p", port, "-nostdin")
	cmd.Dir = t.TempDir()
	p, err := h.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.WaitListen(within(t), "udp/"+addr+":"+port); err != nil {
		t.Fatalf("%v\n%s", err, p.Output())
	}
	return p
}

// call makes so many calls, which overlap, from one socket.
func call(t *testing.T, h *lab.Host, addr, port, to string, calls int) {
	t.Helper()
	out := run(t, h, "sipp", "-sn", "uac", "-i", addr, "-p", port, to, "-m", fmt.Sprint(calls), "-r", "50", "-d", "200",
		"-nostdin", "-timeout", "90s", "-timeout_error", "-trace_stat", "-stf", "/dev/null")
	if want := fmt.Sprintf("Successful call        |        0                  |%9d", calls); !strings.Contains(out, want) {
		t.Errorf("not all of %d calls went well:\n%s", calls, out)
	}
}

func TestCallsOfOneSocketStayTogether(t *testing.T) {
	need(t, "sipp", "nft")
	w := newWard(t, 2)
	// SIPp does not mind who answers; the client shall know the VIP only.
	run(t, w.client, "nft", "add table ip t; add chain ip t in { type filter hook input priority 0; }; add rule ip t in ip saddr 10.0.0.0/24 drop")
	servers := []*lab.Process{
		sippServer(t, w.servers[0], "10.0.0.11", "5060"),
		sippServer(t, w.servers[1], "10.0.0.12", "5060"),
	}
	d := startDirector(t, w.director, sipService)
	call(t, w.client, "198.18.0.2", "5061", healthVIP+":5060", 20)
	metrics, err := d.get(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, rs := range []string{"10.0.0.11", "10.0.0.12"} {
		if series := fmt.Sprintf("uvs_real_server_persistent_clients{real_server=%q,service=\"sip\"} 10\n", rs); !strings.Contains(metrics, series) {
			t.Errorf("%s has not half of the calls", rs)
		}
	}

	// A real server calls the client, who sees the VIP and answers it.
	servers[0].Stop()
	sippServer(t, w.client, "198.18.0.2", "5070")
	call(t, w.servers[0], "10.0.0.11", "5060", "198.18.0.2:5070", 5)
}
