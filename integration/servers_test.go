package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

// bigSize is the size in bytes of the file that is moved in both directions:
// more than every buffer on the road together.
const bigSize = 64 << 20

// A blob is a file of random bytes and its checksum.
type blob struct{ path, sum string }

// big is the file that nginx serves as /big and that curl uploads.
var big = sync.OnceValues(func() (blob, error) {
	if err := os.MkdirAll(filepath.Join(scratch, "www", "upload"), 0o755); err != nil {
		return blob{}, err
	}
	path := filepath.Join(scratch, "www", "big")
	f, err := os.Create(path)
	if err != nil {
		return blob{}, err
	}
	defer f.Close()
	sum := sha256.New()
	random := rand.NewChaCha8([32]byte{'u', 'v', 's'})
	if _, err := io.CopyN(io.MultiWriter(f, sum), random, bigSize); err != nil {
		return blob{}, err
	}
	return blob{path, hex.EncodeToString(sum.Sum(nil))}, nil
})

// checksum is the SHA-256 of a file.
func checksum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// startDaemon starts a server in a host and waits until its ports are open.
func startDaemon(h *lab.Host, ports []string, name string, args ...string) error {
	_, err := startServer(h, ports, name, args...)
	return err
}

// startServer is startDaemon for a server that the test ends itself.
func startServer(h *lab.Host, ports []string, name string, args ...string) (*lab.Process, error) {
	p, err := h.Start(exec.Command(name, args...))
	if err != nil {
		return nil, err
	}
	ctx, cancel := timeout()
	defer cancel()
	if err := h.WaitListen(ctx, ports...); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, p.Output())
	}
	return p, nil
}

// slowRate is how many bytes a second nginx sends of what is asked for under
// /slow.
const slowRate = 64 << 10

// nginx serves /big, also slowly as /slow/big, takes uploads by PUT, and tells
// at /who its name and the addresses that it sees.
func nginx(h *lab.Host) error {
	_, err := nginxIn(h)
	return err
}

// nginxIn is nginx for a test that ends it itself.
func nginxIn(h *lab.Host) (*lab.Process, error) {
	if _, err := big(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(scratch, "nginx-"+h.Name+"-")
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`
user root;
daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid %[1]s/pid;
error_log stderr;
events { worker_connections 4096; }
http {
	access_log off;
	sendfile on;
	client_max_body_size 0;
	client_header_timeout 10m;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen 80 reuseport;
		listen [::]:80 ipv6only=on reuseport;
		root %[2]s/www;
		location /upload/ { dav_methods PUT; }
		location /slow/ { alias %[2]s/www/; limit_rate %[4]d; }
		location /who { return 200 "%[3]s $remote_addr $server_addr\n"; }
	}
}
`, dir, scratch, h.Name, slowRate)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return startServer(h, []string{"tcp/80"}, "nginx", "-p", dir, "-e", "stderr", "-c", conf)
}

// bigAnswer is how many bytes of text big.test. has: more than one packet, less than the 4096
// that the client says it takes over UDP.
const bigAnswer = 3000

// bind serves the zone test. by the real name server.
func bind(h *lab.Host) error {
	dir, err := os.MkdirTemp(scratch, "named-"+h.Name+"-")
	if err != nil {
		return err
	}
	var text strings.Builder
	for n := range bigAnswer / 250 {
		fmt.Fprintf(&text, " \"%s\"", strings.Repeat(string(rune('a'+n)), 250))
	}
	zone := filepath.Join(dir, "zone")
	if err := os.WriteFile(zone, []byte(fmt.Sprintf(`$TTL 60
@	SOA ns.test. root.test. 1 60 60 60 60
	NS ns.test.
ns	A 192.0.2.1
who	TXT %s
big	TXT (%s )
`, h.Name, text.String())), 0o644); err != nil {
		return err
	}
	conf := filepath.Join(dir, "named.conf")
	if err := os.WriteFile(conf, []byte(fmt.Sprintf(`
options {
	directory "%[1]s";
	pid-file none;
	session-keyfile none;
	listen-on { any; };
	listen-on-v6 { any; };
	recursion no;
	dnssec-validation no;
	empty-zones-enable no;
	edns-udp-size 4096;
	max-udp-size 4096;
	minimal-any yes;
};
controls { };
zone "test" { type primary; file "%[2]s"; };
`, dir, zone)), 0o644); err != nil {
		return err
	}
	return startDaemon(h, []string{"udp/53", "tcp/53"}, "named", "-g", "-n", "1", "-c", conf)
}

// iperf is a server of iperf3.
func iperf(h *lab.Host) error {
	return startDaemon(h, []string{"tcp/5201"}, "iperf3", "-s", "-p", "5201")
}

// socatTCP echoes for both families.
func socatTCP(h *lab.Host) error {
	return startDaemon(h, []string{fmt.Sprintf("tcp/%d", echoPort)},
		"socat", fmt.Sprintf("TCP6-LISTEN:%d,ipv6only=0,fork,reuseaddr", echoPort), "PIPE")
}

// socatUDP echoes on one address: a server of datagrams on every address
// would answer from the wrong one, whatever balances it.
func socatUDP(h *lab.Host, addr netip.Addr) error {
	family := "UDP4"
	if addr.Is6() {
		family = "UDP6"
	}
	return startDaemon(h, []string{"udp/" + netip.AddrPortFrom(addr, echoPort).String()},
		"socat", "-b65536", fmt.Sprintf("%s-LISTEN:%d,bind=%s,fork,reuseaddr", family, echoPort, literal(addr)), "PIPE")
}

// literal is an address as it stands in a URL and in socat's and the
// configuration's addresses: IPv6 in brackets.
func literal(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}
