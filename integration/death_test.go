package integration

// One of ten real servers dies under load, in the topology of health_test.go.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uvs-project/uvs/integration/lab"
)

// A regular is a client that asks ten times a second on one connection, and on
// another one when that breaks.
type regular struct {
	ward *ward
	now  func() time.Duration

	mu       sync.Mutex
	requests int
	breaks   []breakage // guarded by mu
	asked    time.Duration
	server   string // of the connection; guarded by mu
}

// A breakage is the end of a connection.
type breakage struct {
	server  string
	asked   time.Duration // when the request was sent that had no answer
	after   time.Duration // so long it took until the client knew
	problem error
}

const regularPace = 100 * time.Millisecond

func (r *regular) run(ctx context.Context) {
	tick := time.NewTicker(regularPace)
	defer tick.Stop()
	for ctx.Err() == nil {
		r.connection(ctx, tick)
	}
}

// connection asks on one connection until it breaks or ctx ends.
func (r *regular) connection(ctx context.Context, tick *time.Ticker) {
	r.asks()
	conn, err := r.ward.client.Dial(ctx, "tcp", healthVIP+":80")
	if err != nil {
		r.note("", err, ctx)
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	in := bufio.NewReader(conn)
	server := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.asks()
		name, err := askWho(conn, in)
		if err != nil {
			r.note(server, err, ctx)
			return
		}
		server = name
		r.mu.Lock()
		r.requests++
		r.server = server
		r.mu.Unlock()
	}
}

// asks notes the time of a request, or of the connection that is opened for one.
func (r *regular) asks() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = r.now()
}

// with is the real server of the client's connection, empty before the first answer.
func (r *regular) with() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.server
}

func (r *regular) note(server string, err error, ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.breaks = append(r.breaks, breakage{server, r.asked, r.now() - r.asked, err})
}

// askWho asks who answers.
func askWho(conn net.Conn, in *bufio.Reader) (server string, err error) {
	if _, err := io.WriteString(conn, "GET /who HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	return strings.Fields(string(body))[0], nil
}

func TestOneOfTenRealServersDiesUnderLoad(t *testing.T) {
	const regulars, dead = 50, "rs5"
	deaths := map[string]func(t *testing.T, w *ward, stop func()){
		"its program ends": func(_ *testing.T, _ *ward, stop func()) { stop() },
		"it is cut off": func(t *testing.T, w *ward, _ func()) {
			run(t, w.servers[4], "ip", "link", "set", "lan", "down")
		},
	}
	for _, mode := range []string{"nat", "dr"} {
		for how, die := range deaths {
			t.Run(mode+": "+how, func(t *testing.T) {
				need(t, "nginx", "ip")
				w := newWard(t, 10)
				var stop func()
				for _, rs := range w.servers {
					if mode == "dr" {
						run(t, rs, "ip", "address", "add", healthVIP+"/32", "dev", "lo")
					}
					p, err := nginxIn(rs)
					if err != nil {
						t.Fatal(err)
					}
					if rs.Name == dead {
						stop = p.Stop
					}
				}
				d := startDirector(t, w.director, w.service(mode, "{type: http, path: /who, interval: 1s, fast_interval: 100ms, timeout: 1s}"))

				begin := time.Now()
				now := func() time.Duration { return time.Since(begin) }
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var running sync.WaitGroup
				var all []*regular
				for range regulars {
					r := &regular{ward: w, now: now}
					all = append(all, r)
					running.Go(func() { r.run(ctx) })
				}
				t.Cleanup(running.Wait)
				requests := func() (n int) {
					for _, r := range all {
						r.mu.Lock()
						n += r.requests
						r.mu.Unlock()
					}
					return n
				}
				await := func(what string, cond func() error) {
					t.Helper()
					if err := lab.Wait(within(t), what, cond); err != nil {
						t.Fatal(err)
					}
				}
				// gone waits until no client is with a server, empty for none yet.
				gone := func(server string) {
					t.Helper()
					await("each client to have another server than "+server, func() error {
						for i, r := range all {
							if r.with() == server {
								return fmt.Errorf("client %d has not", i)
							}
						}
						return nil
					})
				}
				awaitRequests := func(n int) {
					t.Helper()
					await("requests", func() error {
						if got := requests(); got < n {
							return fmt.Errorf("%d, want %d", got, n)
						}
						return nil
					})
				}
				awaitRequests(500)
				gone("")
				before := map[string]int{}
				for _, r := range all {
					before[r.with()]++
				}
				if before[dead] == 0 || len(before) != 10 {
					t.Fatalf("clients by real server: %v", before)
				}
				died := now()
				die(t, w, stop)
				w.awaitState(t, d, 5, "down")
				decided := now()
				// Each is told by a reset at its next try, which comes after at
				// most twice the time that it has waited; otherwise it would go
				// on for a quarter of an hour.
				gone(dead)
				awaitRequests(requests() + 1000)
				cancel()
				running.Wait()

				broken := 0
				worst := time.Duration(0) // after the decision, or after the request where that came later
				for i, r := range all {
					for _, b := range r.breaks {
						switch {
						case b.server == dead:
							broken++
							worst = max(worst, b.asked+b.after-max(decided, b.asked))
						case b.server == "" && b.asked < decided && !errors.Is(b.problem, io.EOF):
							// A new connection that was given to the dead one before the decision.
						default:
							t.Errorf("client %d lost its connection to %q, %v after the death: %v", i, b.server, b.asked+b.after-died, b.problem)
						}
					}
				}
				if broken < before[dead] {
					t.Errorf("%d connections of %s ended, want those of all its %d clients", broken, dead, before[dead])
				}
				t.Logf("%.0f requests/s; %d clients of %s; decided after %v; the last client knew %v later",
					float64(requests())/now().Seconds(), before[dead], dead, (decided - died).Round(time.Millisecond), worst.Round(time.Millisecond))
			})
		}
	}
}
