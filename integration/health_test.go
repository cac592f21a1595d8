package integration

// Real servers that fail and come back, as the checks see them. The director
// is the router between the client and the real servers:
//
//	  client              director                lan
//	198.18.0.2 ─────── 198.18.0.1  10.0.0.1 ───── bridge ──── rs1 10.0.0.11
//	                                                    ├──── rs2 10.0.0.12 …
//
// VIP 203.0.113.10, behind the director.

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

const healthVIP = "203.0.113.10"

// A ward is the topology above with n real servers.
type ward struct {
	client, director *lab.Host
	servers          []*lab.Host
}

func newWard(t *testing.T, n int) *ward {
	t.Helper()
	l := newLab(t)
	w := &ward{client: l.Host("client"), director: l.Host("director").Forward()}
	lan := l.Host("lan").Bridge("br0", "")
	w.client.Link(w.director, "198.18.0.2/24", "198.18.0.1/24")
	w.client.Route("default", "198.18.0.1")
	w.director.Link(lan, "10.0.0.1/24", "")
	for i := range n {
		rs := l.Host(fmt.Sprintf("rs%d", i+1))
		rs.Link(lan, fmt.Sprintf("10.0.0.%d/24", 11+i), "").Route("default", "10.0.0.1")
		w.servers = append(w.servers, rs)
	}
	drawn(t, l)
	return w
}

// address is real server n, from 1, as the configuration has it.
func (w *ward) address(n int) string { return fmt.Sprintf("10.0.0.%d", 10+n) }

// service is a configuration with one service over all real servers.
func (w *ward) service(mode, health string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "services:\n  - name: web\n    listen: [%q]\n    mode: %s\n    scheduler: rr\n    health: %s\n    real_servers:\n",
		healthVIP+":80/tcp", mode, health)
	for i := range w.servers {
		fmt.Fprintf(&b, "      - {address: %s}\n", w.address(i+1))
	}
	return b.String()
}

// awaitState waits until the director says that real server n is in a state.
func (w *ward) awaitState(t *testing.T, d *director, n int, state string) {
	t.Helper()
	err := lab.Wait(within(t), fmt.Sprintf("rs%d to be %s", n, state), func() error { return w.inState(t, d, n, state) })
	if err != nil {
		t.Fatal(err)
	}
}

// inState is an error unless the director says that real server n is in a state.
func (w *ward) inState(t *testing.T, d *director, n int, state string) error {
	series := fmt.Sprintf(`uvs_real_server_state{real_server=%q,service="web",state=%q} 1`, w.address(n), state)
	metrics, err := d.get(t.Context(), "/metrics")
	if err == nil && !strings.Contains(metrics, series) {
		err = errors.New("it is not")
	}
	return err
}

// answered is how many of so many requests each real server answers.
func (w *ward) answered(t *testing.T, requests int) map[string]int {
	t.Helper()
	by := map[string]int{}
	for range requests {
		out := run(t, w.client, "curl", "-sS", "--fail", "--max-time", "60", "http://"+healthVIP+"/who")
		by[strings.Fields(out)[0]]++
	}
	return by
}

func TestARealServerThatFailsGetsNoFlowsUntilItIsBack(t *testing.T) {
	for check, health := range map[string]string{
		"tcp":  "{type: tcp, interval: 2s, fast_interval: 100ms, timeout: 2s}",
		"http": "{type: http, path: /who, expect: 200, expect_body: rs, interval: 2s, fast_interval: 100ms, timeout: 2s}",
	} {
		t.Run(check, func(t *testing.T) {
			need(t, "nginx", "curl")
			w := newWard(t, 3)
			var stop func()
			for _, rs := range w.servers {
				p, err := nginxIn(rs)
				if err != nil {
					t.Fatal(err)
				}
				stop = p.Stop
			}
			d := startDirector(t, w.director, w.service("nat", health))
			if by := w.answered(t, 9); by["rs1"] != 3 || by["rs2"] != 3 || by["rs3"] != 3 {
				t.Errorf("all work: %v", by)
			}
			stop()
			w.awaitState(t, d, 3, "down")
			if by := w.answered(t, 10); by["rs1"] != 5 || by["rs2"] != 5 {
				t.Errorf("rs3 is down: %v", by)
			}
			if status := run(t, w.director, d.bin, "status", "--socket", d.socket); !strings.Contains(status, "10.0.0.13 is down for ") || !strings.Contains(status, "connection refused") {
				t.Errorf("status does not say why:\n%s", status)
			}
			if _, err := nginxIn(w.servers[2]); err != nil {
				t.Fatal(err)
			}
			w.awaitState(t, d, 3, "up")
			if by := w.answered(t, 9); by["rs1"] != 3 || by["rs2"] != 3 || by["rs3"] != 3 {
				t.Errorf("rs3 is back: %v", by)
			}
		})
	}
}
