package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var localhost = netip.MustParseAddrPort("127.0.0.1:0")

// handlers are those of a director that is sick when sick is not nil.
func handlers(sick error) Handlers {
	return Handlers{
		State:   func() State { return State{Node: "lb1", Flows: FlowState{Now: 7}} },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "uvs_flows 7") }),
		Healthy: func() error { return sick },
	}
}

// serve runs s until the test ends.
func serve(t *testing.T, s *Server, h Handlers) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// get asks over the given network and returns status and body.
func get(t *testing.T, network, address, method, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://uvs"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

func TestAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uvs.sock")
	s, err := Listen(path, localhost)
	if err != nil {
		t.Fatal(err)
	}
	tcp := s.tcp.Addr().String()
	serve(t, s, handlers(nil))
	tests := []struct {
		name             string
		network, address string
		method, path     string
		code             int
		body             string // the beginning
	}{
		{"the socket tells the state", "unix", path, "GET", "/v1/state", 200, `{"node":"lb1"`},
		{"the socket tells health", "unix", path, "GET", "/healthz", 200, "ok"},
		{"the socket tells metrics", "unix", path, "GET", "/metrics", 200, "uvs_flows 7"},
		{"TCP tells health", "tcp", tcp, "GET", "/healthz", 200, "ok"},
		{"TCP tells metrics", "tcp", tcp, "GET", "/metrics", 200, "uvs_flows 7"},
		{"TCP does not tell the state", "tcp", tcp, "GET", "/v1/state", 404, ""},
		{"nothing is changed by a question", "unix", path, "POST", "/v1/state", 405, ""},
		{"nothing else is there", "unix", path, "GET", "/", 404, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, body := get(t, tt.network, tt.address, tt.method, tt.path)
			if code != tt.code || !strings.HasPrefix(body, tt.body) {
				t.Errorf("%d %q, want %d %q", code, body, tt.code, tt.body)
			}
		})
	}
}

func TestSickDirectorSaysWhy(t *testing.T) {
	s, err := Listen("", localhost)
	if err != nil {
		t.Fatal(err)
	}
	tcp := s.tcp.Addr().String()
	serve(t, s, handlers(errors.New("not carrying packets")))
	if code, body := get(t, "tcp", tcp, "GET", "/healthz"); code != 503 || body != "not carrying packets" {
		t.Errorf("%d %q", code, body)
	}
}

func TestSocketIsForUserAndGroup(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	path := filepath.Join(dir, "uvs.sock")
	s, err := Listen(path, netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	if s.tcp != nil {
		t.Error("a TCP port was opened that nobody asked for")
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, want 0660", fi.Mode().Perm())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory that was made is left: %v", err)
	}
}

func TestSecondDirectorIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uvs.sock")
	first, err := Listen(path, netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, first, handlers(nil))
	if _, err := Listen(path, netip.AddrPort{}); !errors.Is(err, errInUse) {
		t.Errorf("the second got %v", err)
	}
	if code, _ := get(t, "unix", path, "GET", "/healthz"); code != 200 {
		t.Errorf("the first does not answer any more: %d", code)
	}
}

func TestSocketOfACrashIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uvs.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(path, netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, handlers(nil))
	if code, _ := get(t, "unix", path, "GET", "/healthz"); code != 200 {
		t.Errorf("status %d", code)
	}
}

func TestFileInThePlaceOfTheSocketIsKept(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, netip.AddrPort{}); err == nil || !strings.Contains(err.Error(), path+" is there and is no socket") {
		t.Errorf("error %v", err)
	}
	if got, err := os.ReadFile(path); string(got) != "data" {
		t.Errorf("the file holds %q now, %v", got, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("beside it: %v, %v", left, err)
	}
}

func TestAPlaceThatCannotBeWrittenIsTold(t *testing.T) {
	for _, tt := range []struct{ name, path, want string }{
		{"a directory that is missing", filepath.Join(t.TempDir(), "a", "b", "uvs.sock"), "make the directory"},
		{"a place that takes no file", "/proc/uvs.sock", "set admin.socket to a place that can be written"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Listen(tt.path, netip.AddrPort{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
	if got := unwritable(fs.ErrPermission).Error(); !strings.Contains(got, "run uvs as root") {
		t.Errorf("got %q, want it to say who may", got)
	}
}

func TestPortInUseLeavesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	_, err = Listen(filepath.Join(dir, "uvs.sock"), netip.MustParseAddrPort(l.Addr().String()))
	if err == nil || !strings.Contains(err.Error(), "admin.listen") {
		t.Errorf("error %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestSlowClientsAreCutOff: who sends half a request does not keep the
// director from stopping.
func TestSlowClientsAreCutOff(t *testing.T) {
	s, err := Listen("", localhost)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost:"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx, handlers(nil)) }()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("still running after a minute")
	}
}

// TestConnectionsAreBounded: one more than there may be is answered once
// another one has ended.
func TestConnectionsAreBounded(t *testing.T) {
	s, err := Listen("", localhost)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, handlers(nil))
	var conns []net.Conn
	ask := func() net.Conn {
		c, err := net.Dial("tcp", s.tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: uvs\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	answered := func(c net.Conn, within time.Duration) error {
		if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Read(make([]byte, 1))
		return err
	}
	for range maxConns {
		c := ask()
		if err := answered(c, time.Minute); err != nil {
			t.Fatalf("connection %d: %v", len(conns)+1, err)
		}
		conns = append(conns, c)
	}
	more := ask()
	if err := answered(more, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one more than %d: %v, want no answer", maxConns, err)
	}
	conns[0].Close()
	if err := answered(more, time.Minute); err != nil {
		t.Errorf("after another one has ended: %v", err)
	}
}

func TestFetch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uvs.sock")
	if err := Fetch(t.Context(), path, "/v1/state", new(State)); err == nil || !strings.Contains(err.Error(), "no director runs at") {
		t.Errorf("without a director: %v", err)
	}
	s, err := Listen(path, netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, handlers(nil))
	var got State
	if err := Fetch(t.Context(), path, "/v1/state", &got); err != nil || got.Node != "lb1" || got.Flows.Now != 7 {
		t.Errorf("got %+v, %v", got, err)
	}
	var raw json.RawMessage
	if err := Fetch(t.Context(), path, "/v1/state", &raw); err != nil || !strings.HasPrefix(string(raw), `{"node":"lb1"`) {
		t.Errorf("got %s, %v", raw, err)
	}
	if err := Fetch(t.Context(), path, "/v2/nonsense", &raw); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("an unknown path: %v", err)
	}
	if err := Fetch(t.Context(), path, "/healthz", new(State)); err == nil {
		t.Error("an answer that is not JSON was taken")
	}
}
