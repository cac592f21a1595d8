package health

// The checks against servers that we did not write, on loopback. Each server
// is a process that the test starts and ends.

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// peer starts a program and waits until it accepts connections at the address.
func peer(t *testing.T, at netip.AddrPort, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		cannot(t, name+" is not installed")
	}
	cmd := exec.Command(path, args...)
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, out.String())
		}
	})
	deadline := time.After(patience)
	for {
		c, err := net.Dial("tcp", at.String())
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s does not listen on %v: %v\n%s", name, at, err, out.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// lockedBuffer collects what a process says.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// cannot ends the test because the machine lacks something: skipped, or
// failed where CI says that the machine has everything.
func cannot(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// awaitGood waits until a server that has started is ready.
func awaitGood(t *testing.T, o Options, at netip.AddrPort) {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(patience)
	for {
		err := c.Check(limited(t, 5*time.Second), Target{Addr: at})
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%v is never ready: %v", at, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func file(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// An authority signs certificates and writes them as PEM files.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	path string // of its own certificate
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.path, _, a.cert, a.key = a.sign(t, template)
	return a
}

// issue is a certificate and its key for a name.
func (a *authority) issue(t *testing.T, name string) (cert, key string) {
	t.Helper()
	cert, key, _, _ = a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return cert, key
}

func (a *authority) sign(t *testing.T, template *x509.Certificate) (certFile, keyFile string, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	name := template.Subject.CommonName
	certFile = file(t, a.dir, name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	keyFile = file(t, a.dir, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	return certFile, keyFile, cert, key
}

func TestNginx(t *testing.T) {
	plain, secure, mutual := closedPort(t, "127.0.0.1:0"), closedPort(t, "127.0.0.1:0"), closedPort(t, "[::1]:0")
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	cert, key := ours.issue(t, "www.example.com")
	clientCert, clientKey := ours.issue(t, "director")
	strangerCert, strangerKey := theirs.issue(t, "stranger")
	dir := t.TempDir()
	conf := file(t, dir, "nginx.conf", fmt.Sprintf(`
daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	ssl_certificate %[5]s;
	ssl_certificate_key %[6]s;
	server { listen %[2]s default_server; return 404; }
	server { listen %[2]s; server_name www.example.com; location = /healthz { return 200 "ready\n"; } }
	server { listen %[3]s ssl default_server; return 404; }
	server { listen %[3]s ssl; server_name www.example.com; location = /healthz { return 200 "ready\n"; } }
	server { listen %[4]s ssl; ssl_client_certificate %[7]s; ssl_verify_client on; return 200 "$ssl_client_s_dn"; }
}
`, dir, plain, secure, mutual, cert, key, ours.path))
	peer(t, plain, "nginx", "-p", dir, "-e", "stderr", "-c", conf)

	web := Options{Type: "http", Path: "/healthz", Host: "www.example.com", Body: "ready"}
	other := web
	other.Host = "other.example.com"
	https := func(t TLS) Options { o := web; o.Type, o.TLS = "https", t; return o }
	asked := func(t TLS) Options {
		return Options{Type: "https", Host: "www.example.com", TLS: t, Body: "CN=director"}
	}
	for _, tt := range []checkTest{
		{"http", web, plain, ""},
		{"http for another host", other, plain, "status 404 Not Found"},
		{"http where https is spoken", web, secure, "status 400 Bad Request"},
		{"https", https(TLS{}), secure, ""},
		{"https, verified by the CA and the name of the host", https(TLS{CA: ours.path}), secure, ""},
		{"https, verified by another name", https(TLS{CA: ours.path, ServerName: "other.example.com"}), secure, "certificate is valid for www.example.com"},
		{"https, verified by another CA", https(TLS{CA: theirs.path}), secure, "certificate signed by unknown authority"},
		{"https where http is spoken", https(TLS{}), plain, "first record does not look like a TLS handshake"},
		{"a client certificate", asked(TLS{CA: ours.path, Cert: clientCert, Key: clientKey}), mutual, ""},
		{"no client certificate", asked(TLS{CA: ours.path}), mutual, "status 400 Bad Request"},
		{"a client certificate of a stranger", asked(TLS{CA: ours.path, Cert: strangerCert, Key: strangerKey}), mutual, "status 400 Bad Request"},
		{"tls", Options{Type: "tls", TLS: TLS{CA: ours.path, ServerName: "www.example.com"}}, secure, ""},
		{"tls where none is spoken", Options{Type: "tls"}, plain, "first record does not look like a TLS handshake"},
		{"tcp", Options{Type: "tcp"}, mutual, ""},
	} {
		tt.run(t)
	}
}

func TestBind(t *testing.T) {
	at := closedPort(t, "127.0.0.1:0")
	dir := t.TempDir()
	zone := file(t, dir, "zone", `
$TTL 60
@    IN SOA ns.test. root.test. 1 60 60 60 60
@    IN NS  ns.test.
@    IN MX  10 mail.test.
ns   IN A   192.0.2.53
www  IN A   192.0.2.1
www  IN A   192.0.2.2
www  IN AAAA 2001:db8::1
www  IN TXT "two " "parts"
alias IN CNAME www.test.
`)
	conf := file(t, dir, "named.conf", fmt.Sprintf(`
options { directory %q; pid-file none; listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; allow-query { any; }; session-keyfile "%[1]s/session"; };
controls { };
zone "test" { type primary; file %[3]q; };
`, dir, at.Port(), zone))
	peer(t, at, "named", "-g", "-c", conf)
	awaitGood(t, Options{Type: "dns", Name: "www.test"}, at)
	silent := closedPort(t, "127.0.0.1:0")
	for _, tt := range []checkTest{
		{"a record", Options{Type: "dns", Name: "www.test"}, at, ""},
		{"one of several records", Options{Type: "dns", Name: "www.test.", Record: "A", Receive: "192.0.2.2"}, at, ""},
		{"none of several records", Options{Type: "dns", Name: "www.test.", Receive: "192.0.2.3"}, at, "no 192.0.2.3 among the answers 192.0.2."},
		{"AAAA", Options{Type: "dns", Name: "www.test.", Record: "AAAA", Receive: "2001:db8::1"}, at, ""},
		{"MX", Options{Type: "dns", Name: "test.", Record: "MX", Receive: "10 mail.test."}, at, ""},
		{"NS", Options{Type: "dns", Name: "test.", Record: "NS", Receive: "ns.test."}, at, ""},
		{"SOA", Options{Type: "dns", Name: "test.", Record: "SOA", Receive: "ns.test."}, at, ""},
		{"CNAME", Options{Type: "dns", Name: "alias.test.", Record: "CNAME", Receive: "www.test."}, at, ""},
		{"an alias and what it stands for", Options{Type: "dns", Name: "alias.test.", Receive: "192.0.2.1"}, at, ""},
		{"TXT", Options{Type: "dns", Name: "www.test.", Record: "TXT", Receive: "two parts"}, at, ""},
		{"no record of the type", Options{Type: "dns", Name: "ns.test.", Record: "AAAA"}, at, "no such record in the answer"},
		{"no such name", Options{Type: "dns", Name: "nobody.test."}, at, "answer NameError"},
		{"a name of others", Options{Type: "dns", Name: "example.com."}, at, "answer Refused"},
		{"nobody there", Options{Type: "dns", Name: "www.test."}, silent, "connection refused"},
	} {
		tt.run(t)
	}
}

func TestRedis(t *testing.T) {
	at, locked := closedPort(t, "127.0.0.1:0"), closedPort(t, "127.0.0.1:0")
	start := func(at netip.AddrPort, more ...string) {
		args := []string{"--port", strconv.Itoa(int(at.Port())), "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir()}
		peer(t, at, "redis-server", append(args, more...)...)
	}
	start(at)
	start(locked, "--requirepass", "secret")
	other := answering(t, "PING", "-ERR unknown command\r\n")
	for _, tt := range []checkTest{
		{"redis", Options{Type: "redis"}, at, ""},
		{"a password is sent by tcp", Options{Type: "tcp", Send: "AUTH secret\r\nPING\r\n", Receive: "+PONG"}, locked, ""},
		{"something else", Options{Type: "redis"}, other, `"-ERR unknown command\r\n"`},
	} {
		tt.run(t)
	}
	// It says so and goes on to listen.
	(&checkTest{"redis with a password", Options{Type: "redis"}, locked, `"-NOAUTH Authentication required.\r\n"`}).within(t, inVain)
}

func TestSMTP(t *testing.T) {
	full := answering(t, "", "554 no\r\n")
	deaf := answering(t, "", "220 hello\r\n")
	for _, tt := range []checkTest{
		{"a server that refuses", Options{Type: "smtp"}, full, `554 "no"`},
		{"a server that hangs up", Options{Type: "smtp"}, deaf, "EOF"},
	} {
		tt.run(t)
	}
	if os.Geteuid() != 0 {
		cannot(t, "OpenSMTPD needs root")
	}
	at := closedPort(t, "127.0.0.1:0")
	dir := t.TempDir()
	conf := file(t, dir, "smtpd.conf", fmt.Sprintf("listen on 127.0.0.1 port %d\naction \"drop\" mda \"true\"\nmatch for local action \"drop\"\n", at.Port()))
	peer(t, at, "smtpd", "-d", "-f", conf)
	(&checkTest{"OpenSMTPD", Options{Type: "smtp", Host: "director.example.com"}, at, ""}).run(t)
}

func TestEtcd(t *testing.T) {
	at, peers, metrics := closedPort(t, "127.0.0.1:0"), closedPort(t, "127.0.0.1:0"), closedPort(t, "127.0.0.1:0")
	url := func(at netip.AddrPort) string { return "http://" + at.String() }
	peer(t, at, "etcd", "--data-dir", t.TempDir(), "--listen-client-urls", url(at), "--advertise-client-urls", url(at),
		"--listen-peer-urls", url(peers), "--initial-advertise-peer-urls", url(peers), "--initial-cluster", "default="+url(peers),
		"--listen-metrics-urls", url(metrics))
	awaitGood(t, Options{Type: "grpc"}, at)
	silence := answering(t, "never", "")
	for _, tt := range []checkTest{
		{"the whole server", Options{Type: "grpc"}, at, ""},
		{"a service that it does not have", Options{Type: "grpc", Service: "shop.Cart"}, at, "gRPC status NOT_FOUND: unknown service"},
		{"a port of it that speaks HTTP/1.1 only", Options{Type: "grpc"}, metrics, "no HTTP/2 answer: "},
		{"silence", Options{Type: "grpc"}, silence, overdue},
	} {
		tt.run(t)
	}
}

func TestSocatUDP(t *testing.T) {
	tcp := closedPort(t, "127.0.0.1:0")
	// The TCP port is only there to tell when it has started.
	peer(t, tcp, "socat", fmt.Sprintf("TCP4-LISTEN:%d,bind=127.0.0.1,fork,reuseaddr", tcp.Port()), "EXEC:true")
	udp := netip.AddrPortFrom(tcp.Addr(), tcp.Port())
	cmd := exec.Command("socat", fmt.Sprintf("UDP4-RECVFROM:%d,bind=127.0.0.1,fork", udp.Port()), "EXEC:tr a-z A-Z")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	awaitGood(t, Options{Type: "udp", Send: "hello"}, udp)
	closed := closedPort(t, "127.0.0.1:0")
	for _, tt := range []checkTest{
		{"any answer", Options{Type: "udp", Send: "hello"}, udp, ""},
		{"the answer", Options{Type: "udp", Send: "hello", Receive: "HELLO"}, udp, ""},
		{"another answer", Options{Type: "udp", Send: "hello", Receive: "hello"}, udp, `no "hello" in the answer "HELLO"`},
		{"a port that nobody has", Options{Type: "udp", Send: "hello"}, closed, "connection refused"},
	} {
		tt.run(t)
	}
}

func TestKernelsEcho(t *testing.T) {
	if fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP); err != nil {
		cannot(t, "raw sockets need CAP_NET_RAW")
	} else {
		syscall.Close(fd)
	}
	for _, tt := range []checkTest{
		{"IPv4", Options{Type: "icmp"}, netip.MustParseAddrPort("127.0.0.1:0"), ""},
		{"IPv6", Options{Type: "icmp"}, netip.MustParseAddrPort("[::1]:0"), ""},
	} {
		if tt.name == "IPv6" {
			if _, err := os.Stat("/proc/net/if_inet6"); err != nil || !strings.Contains(read(t, "/proc/net/if_inet6"), " lo") {
				continue
			}
		}
		tt.run(t)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
