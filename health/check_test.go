package health

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// answering is a server that reads until it has seen want, answers, and
// hangs up. It still takes what comes, so that the client sees the end of the
// answer in whatever order the two run, and no reset.
func answering(t *testing.T, want, answer string) netip.AddrPort {
	t.Helper()
	l, at := listen(t, "127.0.0.1:0")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				if err := await(c, []byte(want)); err == nil {
					_, _ = io.WriteString(c, answer)
				}
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	return at
}

// What checks say of an answer that does not come in time, the second over
// HTTP/2.
const timedOut, overdue = "i/o timeout", "deadline exceeded"

// A checkTest is one check of one address.
type checkTest struct {
	name    string
	options Options
	at      netip.AddrPort
	want    string // part of the error; empty: the check is good
}

func (tt *checkTest) run(t *testing.T) {
	t.Helper()
	limit := patience
	if tt.want == timedOut || tt.want == overdue {
		limit = inVain
	}
	tt.within(t, limit)
}

// inVain is how long the tests wait for what never comes.
const inVain = 2 * time.Second

func (tt *checkTest) within(t *testing.T, limit time.Duration) {
	t.Helper()
	t.Run(tt.name, func(t *testing.T) {
		c, err := New(tt.options)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Check(limited(t, limit), Target{Addr: tt.at})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("bad: %v", err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("error %v, want %q in it", err, tt.want)
		}
	})
}

func TestTCP(t *testing.T) {
	_, open := listen(t, "127.0.0.1:0")
	closed := closedPort(t, "127.0.0.1:0")
	greeter, echo := answering(t, "", "220 hello\r\n"), answering(t, "ping", "pong")
	for _, tt := range []checkTest{
		{"an open port", Options{Type: "tcp"}, open, ""},
		{"a closed port", Options{Type: "tcp"}, closed, "connection refused"},
		{"a greeting", Options{Type: "tcp", Receive: "220 "}, greeter, ""},
		{"another greeting", Options{Type: "tcp", Receive: "250 "}, greeter, `no "250 " in the answer "220 hello\r\n": EOF`},
		{"no greeting", Options{Type: "tcp", Receive: "220 "}, open, timedOut},
		{"an answer to what was sent", Options{Type: "tcp", Send: "ping", Receive: "pong"}, echo, ""},
		{"no answer to what was sent", Options{Type: "tcp", Send: "pin", Receive: "pong"}, echo, timedOut},
	} {
		tt.run(t)
	}
}

func TestHTTP(t *testing.T) {
	seen := make(chan *http.Request, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/", http.StatusMovedPermanently)
		case "/broken":
			http.Error(w, "out of order", http.StatusServiceUnavailable)
		case "/long":
			_, _ = io.WriteString(w, strings.Repeat("x", maxAnswer)+"ready")
		default:
			_, _ = io.WriteString(w, "ready")
		}
	}))
	defer s.Close()
	at := netip.MustParseAddrPort(s.Listener.Addr().String())
	closed, notHTTP, silence := closedPort(t, "127.0.0.1:0"), answering(t, "GET ", "220 hello\r\n"), answering(t, "never", "")
	for _, tt := range []checkTest{
		{"a page", Options{Type: "http"}, at, ""},
		{"a redirect is good by default", Options{Type: "http", Path: "/moved"}, at, ""},
		{"a redirect is bad where 200 is wanted", Options{Type: "http", Path: "/moved", Expect: []Codes{{200, 299}}}, at, "status 301 Moved Permanently"},
		{"an error", Options{Type: "http", Path: "/broken"}, at, "status 503 Service Unavailable"},
		{"an error that is wanted", Options{Type: "http", Path: "/broken", Expect: []Codes{{200, 299}, {503, 503}}}, at, ""},
		{"a page with the text", Options{Type: "http", Body: "ready"}, at, ""},
		{"a page without the text", Options{Type: "http", Body: "steady"}, at, `no "steady" in the page "ready"`},
		{"a text too far down", Options{Type: "http", Path: "/long", Body: "ready"}, at, `no "ready" in the page "xxx`},
		{"HEAD", Options{Type: "http", Method: "HEAD", Host: "www.example.com", Path: "/a?b=c"}, at, ""},
		{"a closed port", Options{Type: "http"}, closed, "connection refused"},
		{"something that is not HTTP", Options{Type: "http"}, notHTTP, "no HTTP answer: malformed HTTP"},
		{"silence", Options{Type: "http"}, silence, timedOut},
	} {
		tt.run(t)
	}
	var last *http.Request
	for len(seen) > 0 {
		last = <-seen
	}
	if last.Method != "HEAD" || last.Host != "www.example.com" || last.URL.RequestURI() != "/a?b=c" || last.UserAgent() != userAgent || !last.Close {
		t.Errorf("HEAD was asked by %s %s %s, %s, close %v", last.Method, last.Host, last.URL.RequestURI(), last.UserAgent(), last.Close)
	}
}

// pemFile writes a certificate into a file.
func pemFile(t *testing.T, c *x509.Certificate) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cert.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHTTPS(t *testing.T) {
	names := make(chan string, 100)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { names <- r.TLS.ServerName }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{}
	s.StartTLS()
	defer s.Close()
	at := netip.MustParseAddrPort(s.Listener.Addr().String())
	ca := pemFile(t, s.Certificate()) // signed by itself, for example.com
	plain := answering(t, "", "220 hello\r\n")
	for _, tt := range []checkTest{
		{"a certificate that nobody looks at", Options{Type: "https"}, at, ""},
		{"a certificate of the CA", Options{Type: "https", TLS: TLS{CA: ca, ServerName: "example.com"}}, at, ""},
		{"a certificate for another name", Options{Type: "https", TLS: TLS{CA: ca, ServerName: "example.org"}}, at, "TLS: tls: failed to verify certificate: x509: certificate is valid for"},
		{"a certificate that the host does not trust", Options{Type: "https", TLS: TLS{CA: SystemCA, ServerName: "example.com"}}, at, "x509"},
		{"something that is not TLS", Options{Type: "https"}, plain, "TLS: tls: first record does not look like a TLS handshake"},
	} {
		tt.run(t)
	}
	if name := []string{<-names, <-names}; name[0] != "" || name[1] != "example.com" {
		t.Errorf("SNI %q, want none and example.com", name)
	}
}

func TestNewRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		options Options
		want    string
	}{
		{"an unknown type", Options{Type: "guess"}, `check "guess": none of dns, grpc, grpcs, http, https, icmp, none, redis, script, smtp, tcp, tls, udp`},
		{"a method that is none", Options{Type: "http", Method: "a b"}, "invalid method"},
		{"a path that is none", Options{Type: "http", Path: "x"}, `path "x"`},
		{"a path with a line break", Options{Type: "http", Path: "/a\r\nX: y"}, `path "/a\r\nX: y"`},
		{"a CA that is not there", Options{Type: "https", TLS: TLS{CA: "/nowhere"}}, "CA: open /nowhere"},
		{"a CA without a certificate", Options{Type: "https", TLS: TLS{CA: empty}}, "no certificate in it"},
		{"a CA without a name", Options{Type: "https", TLS: TLS{CA: SystemCA}}, "without a name"},
		{"a name that is none", Options{Type: "dns", Name: strings.Repeat("x", 64)}, "name "},
		{"a record that is not known", Options{Type: "dns", Name: "a.", Record: "HINFO"}, `record "HINFO" is not known`},
		{"no command", Options{Type: "script"}, "no command"},
		{"a command that is not there", Options{Type: "script", Command: []string{"/nowhere"}}, "command: "},
		{"a command that is no program", Options{Type: "script", Command: []string{empty}}, "permission denied"},
		{"a certificate without a key", Options{Type: "https", TLS: TLS{Cert: empty}}, "client certificate: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if c, err := New(tt.options); c != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, %v; want an error with %q", c, err, tt.want)
			}
		})
	}
	if c, err := New(Options{Type: None}); c != nil || err != nil {
		t.Errorf("none: %v, %v", c, err)
	}
}

// TestConnectionsArePreparedAndLetGo: whoever wants a check to take another
// road gets each socket before it connects, and is told when it is closed.
func TestConnectionsArePreparedAndLetGo(t *testing.T) {
	at := answering(t, "GET ", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	c, err := New(Options{Type: "http"})
	if err != nil {
		t.Fatal(err)
	}
	prepared, done := 0, 0
	to := Target{Addr: at, Prepare: func(fd int, proto uint8) (func(), error) {
		if fd <= 0 || proto != 6 {
			return nil, fmt.Errorf("socket %d, protocol %d", fd, proto)
		}
		prepared++
		return func() { done++ }, nil
	}}
	if err := c.Check(limited(t, patience), to); err != nil || prepared != 1 || done != 1 {
		t.Errorf("%v; prepared %d, let go %d, want 1 and 1", err, prepared, done)
	}
	to.Addr = closedPort(t, "127.0.0.1:0")
	if err := c.Check(limited(t, patience), to); err == nil || prepared != 2 || done != 2 {
		t.Errorf("%v; prepared %d, let go %d, want 2 and 2", err, prepared, done)
	}
	to.Prepare = func(int, uint8) (func(), error) { return nil, net.ErrClosed }
	if err := c.Check(limited(t, patience), to); err == nil || !strings.Contains(err.Error(), net.ErrClosed.Error()) {
		t.Errorf("not prepared: %v", err)
	}
}

func target(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
