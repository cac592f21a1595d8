package integration

// Real servers that do not take connections while their checks succeed, in the
// topology of health_test.go.

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func TestConnectionsThatFailEjectARealServer(t *testing.T) {
	need(t, "nginx", "curl", "ip")
	for mode, seenAs := range map[string]string{"nat": "198.18.0.0/24", "fullnat": "198.51.100.0/29"} {
		t.Run(mode, func(t *testing.T) {
			w := newWard(t, 3)
			var stop func()
			for _, rs := range w.servers {
				p, err := nginxIn(rs)
				if err != nil {
					t.Fatal(err)
				}
				stop = p.Stop
			}
			d := startDirector(t, w.director, "addresses: {fullnat_pool: [198.51.100.0/29]}\n"+
				w.service(mode, "{type: icmp, interval: 2s, timeout: 2s, passive: {failures: 3, ejection: 10s}}"))
			all := func(when string) {
				t.Helper()
				if by := w.answered(t, 9); by["rs1"] != 3 || by["rs2"] != 3 || by["rs3"] != 3 {
					t.Errorf("%s: %v", when, by)
				}
			}
			status := func(want string) string {
				t.Helper()
				got := run(t, w.director, d.bin, "status", "--socket", d.socket)
				if !strings.Contains(got, want) {
					t.Errorf("status does not say %q:\n%s", want, got)
				}
				return got
			}
			all("all work")

			stop() // the program; the host answers pings
			asked, refused := 0, 0
			for within := within(t); within.Err() == nil && w.inState(t, d, 3, "down") != nil; asked++ {
				if _, err := w.client.Run(within, "curl", "-sS", "--fail", "--max-time", "60", "http://"+healthVIP+"/who"); err != nil {
					refused++
				}
			}
			w.awaitState(t, d, 3, "down")
			t.Logf("%d of %d requests were refused until somebody looked", refused, asked)
			said := status("10.0.0.13 is down for ")
			counts := regexp.MustCompile(`(\d+) connections of clients failed in a row, (\d+) refused and 0 not answered; ejected for 10s`).FindStringSubmatch(said)
			if len(counts) != 3 || counts[1] != counts[2] {
				t.Fatalf("status does not say why:\n%s", said)
			}
			if n, err := strconv.Atoi(counts[1]); err != nil || n < 3 || n > refused {
				t.Errorf("status says that %s were refused, want 3 to %d", counts[1], refused)
			}
			if _, err := nginxIn(w.servers[2]); err != nil {
				t.Fatal(err)
			}
			w.awaitState(t, d, 3, "up")
			all("rs3 is back")

			// It gets SYNs and cannot answer them. The requests that it had are
			// sent elsewhere when the clients ask again.
			run(t, w.servers[1], "ip", "route", "add", "blackhole", seenAs)
			var clients sync.WaitGroup
			errs := make([]error, 9)
			for i := range errs {
				clients.Go(func() {
					_, errs[i] = w.client.Run(t.Context(), "curl", "-sS", "--fail", "--max-time", "60", fmt.Sprintf("http://%s/who?%d", healthVIP, i))
				})
			}
			w.awaitState(t, d, 2, "down")
			status("3 connections of clients failed in a row, 0 refused and 3 not answered; ejected for 10s")
			clients.Wait()
			for _, err := range errs {
				if err != nil {
					t.Error(err)
				}
			}
			run(t, w.servers[1], "ip", "route", "del", "blackhole", seenAs)
			w.awaitState(t, d, 2, "up")
			all("rs2 is back")
		})
	}
}
