package integration

// Every mode in every family carries what real programs send, each mode on a
// VIP of its own in the topology of bed_test.go, all at the same time in one
// director.

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
)

// A target is a variant in a bed.
type target struct {
	*bed
	variant
}

// url of the variant's VIP.
func (x *target) url(path string) string { return "http://" + literal(x.vip) + path }

// cases are what each variant is put through.
var cases = []struct {
	name string
	run  func(*testing.T, *target)
}{
	{"a file comes down whole", download},
	{"a file goes up whole", upload},
	{"requests are spread over both real servers, which see the client as the mode says", spread},
	{"a port is mapped", mapped},
	{"four streams go up", func(t *testing.T, x *target) { iperf3(t, x, "-P", "4") }},
	{"a stream comes down", func(t *testing.T, x *target) { iperf3(t, x, "-R") }},
	{"DNS over UDP", func(t *testing.T, x *target) { dig(t, x, "who.test", "+notcp", x.group(), "(UDP)") }},
	{"DNS over TCP", func(t *testing.T, x *target) { dig(t, x, "who.test", "+tcp", x.group(), "(TCP)") }},
	{"DNS answer over UDP that is fragmented", func(t *testing.T, x *target) {
		dig(t, x, "big.test", "+notcp", strings.Repeat("l", 250), "(UDP)")
	}},
	{"socat over TCP", func(t *testing.T, x *target) { socat(t, x, "TCP") }},
	{"socat over UDP", func(t *testing.T, x *target) { socat(t, x, "UDP") }},
	{"datagrams that are fragmented both ways", fragments},
	{"ping to the VIP", ping},
	{"a TCP port without a service is refused", refusedTCP},
	{"a UDP port without a service is unreachable", refusedUDP},
}

// programs are what the cases need.
var programs = []string{"nginx", "named", "iperf3", "socat", "curl", "dig", "ping", "ip"}

// The beds that several tests share, each with a director in all variants:
// one as the machine makes it, where the kernel also unpacks tunnels at the
// real servers' ingress; one whose director lets every packet cross the TUN
// device; and one likewise with all offloads off, so that each packet on
// the wire is one of at most 1500 bytes with a complete checksum.
var (
	sharedBed = sync.OnceValues(func() (*bed, error) { return shareBed("shared", true, "", atIngress...) })
	onlyRoad  = sync.OnceValues(func() (*bed, error) { return shareBed("road", true, noLane) })
	plainWire = sync.OnceValues(func() (*bed, error) { return shareBed("plain", false, noLane) })

	sharedLabs []*lab.Lab
)

func closeShared() {
	for _, l := range sharedLabs {
		l.Close()
	}
}

// noLane is the part of a configuration that keeps packets off the fast lane.
const noLane = "device: {offload: off}\n"

// atIngress has a real server's kernel unpack what the director of a bed sends.
var atIngress = []string{"--decap", "bpf", "--director", "192.0.2.11", "--director", "2001:db8:1::11"}

func shareBed(name string, offloads bool, device string, unpack ...string) (*bed, error) {
	l, err := lab.New("uvstest")
	if err != nil {
		return nil, err
	}
	sharedLabs = append(sharedLabs, l)
	bin, err := buildOnce()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(scratch, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	b := newBed(l, variants)
	b.unpack = unpack
	if !offloads {
		b.offloadsOff()
	}
	if err := l.Err(); err != nil {
		return nil, err
	}
	if err := b.ownVIPs(bin, variants); err != nil {
		return nil, err
	}
	if err := b.serve(variants); err != nil {
		return nil, err
	}
	b.uvs, err = newDirector(bin, dir, b.director, device+settings+services(variants))
	return b, err
}

// services is the part of the configuration that lists them.
func services(list []variant) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range list {
		b.WriteString(list[i].service())
	}
	return b.String()
}

func TestTraffic(t *testing.T) {
	need(t, programs...)
	b, err := sharedBed()
	if err != nil {
		t.Fatal(err)
	}
	everyCase(t, b, variants)
}

// TestTrafficOnTheTUNRoad is TestTraffic where the fast lane is not allowed.
func TestTrafficOnTheTUNRoad(t *testing.T) {
	need(t, programs...)
	b, err := onlyRoad()
	if err != nil {
		t.Fatal(err)
	}
	everyCase(t, b, variants)
}

// TestTrafficWithoutOffloads is TestTraffic as on the plainest of network cards.
func TestTrafficWithoutOffloads(t *testing.T) {
	need(t, programs...)
	b, err := plainWire()
	if err != nil {
		t.Fatal(err)
	}
	everyCase(t, b, variants)
}

func everyCase(t *testing.T, b *bed, list []variant) {
	for i := range list {
		t.Run(list[i].name, func(t *testing.T) {
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) { c.run(t, &target{b, list[i]}) })
			}
			if t.Failed() && b.uvs != nil {
				t.Logf("uvs said:\n%s", b.uvs.process.Output())
			}
		})
	}
}

// TestControl puts nftables in the director's place: what it passes is sound
// as a test of uvs.
func TestControl(t *testing.T) {
	need(t, append(programs, "nft")...)
	var nat []variant
	var rules strings.Builder
	rules.WriteString("table inet control { chain prerouting { type nat hook prerouting priority dstnat;\n")
	for _, v := range variants {
		if v.mode != "nat" {
			continue
		}
		nat = append(nat, v)
		family := "ip"
		if v.rs6 {
			family = "ip6"
		}
		match := fmt.Sprintf("%s daddr %s", family, v.vip)
		fmt.Fprintf(&rules, "%s tcp dport 8080 dnat to %s:80\n", match, literal(v.rip(1)))
		fmt.Fprintf(&rules, "%s meta l4proto { icmp, icmpv6 } dnat to %s\n", match, v.rip(1))
		fmt.Fprintf(&rules, "%s tcp dport 5201 dnat to %s\n", match, v.rip(1))
		fmt.Fprintf(&rules, "%s dnat to numgen inc mod 2 map { 0: %s, 1: %s }\n", match, v.rip(1), v.rip(2))
	}
	rules.WriteString("}\n}\n")
	b := newBed(newLab(t), nat)
	drawn(t, b.lab)
	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, []byte(rules.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, b.director, "nft", "-f", file)
	if err := b.serve(nat); err != nil {
		t.Fatal(err)
	}
	everyCase(t, b, nat)
}

func download(t *testing.T, x *target) {
	want, err := big()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "down")
	run(t, x.client, "curl", "-sS", "--fail", "-o", file, x.url("/big"))
	if got := checksum(t, file); got != want.sum {
		t.Errorf("checksum %s, want %s", got, want.sum)
	}
}

func upload(t *testing.T, x *target) {
	want, err := big()
	if err != nil {
		t.Fatal(err)
	}
	name := "/upload/" + strings.ReplaceAll(x.variant.name, " ", "-")
	file := filepath.Join(scratch, "www", name)
	defer os.Remove(file)
	run(t, x.client, "curl", "-sS", "--fail", "-T", want.path, x.url(name))
	if got := checksum(t, file); got != want.sum {
		t.Errorf("checksum %s, want %s", got, want.sum)
	}
}

// spread looks at who answers and at which addresses the real servers see.
func spread(t *testing.T, x *target) {
	const each = 4
	got := map[string]int{}
	for range 2 * each {
		fields := strings.Fields(run(t, x.client, "curl", "-sS", "--fail", x.url("/who")))
		if len(fields) != 3 {
			t.Fatalf("answer %q, want name, client and server", fields)
		}
		name, client, server := fields[0], netip.MustParseAddr(fields[1]), netip.MustParseAddr(fields[2])
		got[name]++
		if x.mode == "fullnat" {
			if !slices.ContainsFunc(strings.Fields(lips), func(p string) bool { return netip.MustParsePrefix(p).Contains(client) }) {
				t.Errorf("%s sees the client as %v, want a local address of the director", name, client)
			}
		} else if client != x.clientAddr() {
			t.Errorf("%s sees the client as %v, want %v", name, client, x.clientAddr())
		}
		n, _ := strconv.Atoi(strings.TrimPrefix(name, x.group()))
		if want := x.served(n); server != want {
			t.Errorf("%s sees itself as %v, want %v", name, server, want)
		}
	}
	if got[x.group()+"1"] != each || got[x.group()+"2"] != each {
		t.Errorf("requests per real server: %v, want %d each", got, each)
	}
}

func mapped(t *testing.T, x *target) {
	if x.mode != "nat" && x.mode != "fullnat" {
		return // these modes keep the port, which configuration checks
	}
	if out := run(t, x.client, "curl", "-sS", "--fail", "http://"+literal(x.vip)+":8080/who"); !strings.HasPrefix(out, "rs") {
		t.Errorf("answer %q", out)
	}
}

type iperf3Report struct {
	Error string
	End   struct {
		Streams  []struct{ Receiver struct{ Bytes int64 } }
		Received struct {
			Bytes int64
			Rate  float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Sent struct{ Retransmits int } `json:"sum_sent"`
	}
}

func iperf3(t *testing.T, x *target, how ...string) {
	const bytes = 100 << 20
	args := append([]string{"-c", x.vip.String(), "-J", "-n", strconv.Itoa(bytes)}, how...)
	report := iperf3Once(t, x, args)
	// One stream of several may not have begun when the others are done with
	// all there is to send; not so each time.
	for range 4 {
		if report.idle() < 0 {
			break
		}
		report = iperf3Once(t, x, args)
	}
	if n := report.idle(); n >= 0 {
		t.Errorf("stream %d received nothing", n)
	}
	// iperf3 stops counting when the sender is done, with megabytes still under way.
	if report.End.Received.Bytes < bytes/4 {
		t.Errorf("received %d bytes of %d", report.End.Received.Bytes, bytes)
	}
	t.Logf("%.2f Gbit/s, %d retransmits", report.End.Received.Rate/1e9, report.End.Sent.Retransmits)
}

// iperf3Once makes one test with a server of its own: one that serves several
// resets whoever comes while it gets ready for the next.
func iperf3Once(t *testing.T, x *target, args []string) (report iperf3Report) {
	t.Helper()
	server, err := startServer(x.groups[x.group()][0], []string{"tcp/5201"}, "iperf3", "-s", "-1", "-p", "5201")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	if err := json.Unmarshal([]byte(run(t, x.client, "iperf3", args...)), &report); err != nil {
		t.Fatal(err)
	}
	if report.Error != "" {
		t.Fatalf("%s; the server said:\n%s", report.Error, server.Output())
	}
	return report
}

// idle is the first stream that received nothing, -1 where there is none.
func (r *iperf3Report) idle() int {
	for i, s := range r.End.Streams {
		if s.Receiver.Bytes == 0 {
			return i
		}
	}
	return -1
}

// dig looks for a text and the transport in the answer. It may not fall back
// to TCP by itself.
func dig(t *testing.T, x *target, name, how, text, transport string) {
	out := run(t, x.client, "dig", "@"+x.vip.String(), name, "TXT", how, "+ignore", "+bufsize=4096", "+tries=1", "+timeout=60")
	if !strings.Contains(out, text) || !strings.Contains(out, transport) {
		t.Errorf("no %q or not by %s:\n%s", text, transport, out)
	}
	if name == "big.test" {
		size := regexp.MustCompile(`MSG SIZE  rcvd: (\d+)`).FindStringSubmatch(out)
		if n, _ := strconv.Atoi(append(size, "", "")[1]); n < bigAnswer {
			t.Errorf("answer of %d bytes, want more than %d", n, bigAnswer)
		}
	}
}

func socat(t *testing.T, x *target, transport string) {
	family := "4"
	if x.vip.Is6() {
		family = "6"
	}
	const words = "round and back"
	// sh gives socat its input; readbytes ends it without a wait.
	script := fmt.Sprintf("printf %%s %q | socat -t 60 - %s%s:%s:%d,readbytes=%d", words, transport, family, literal(x.vip), echoPort, len(words))
	if out := run(t, x.client, "sh", "-c", script); out != words {
		t.Errorf("echo %q, want %q", out, words)
	}
}

func fragments(t *testing.T, x *target) { datagrams(t, x, 1) }

// datagrams sends datagrams of several sizes from one socket, so that all
// belong to one flow, and compares what comes back. The first on a path with a
// narrow link may be lost: it is sent so many times.
func datagrams(t *testing.T, x *target, tries int) {
	conn, err := x.client.Dial(within(t), "udp", netip.AddrPortFrom(x.vip, echoPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, size := range []int{100, 2000, 4000, 9000, 30000} {
		sent := make([]byte, size)
		for i := range sent {
			sent[i] = byte(i * size)
		}
		if err := echoed(conn, sent, tries); err != nil {
			t.Errorf("datagram of %d bytes: %v", size, err)
		}
	}
}

// echoed sends a datagram until it comes back, at most so many times.
func echoed(conn net.Conn, sent []byte, tries int) error {
	var err error
	for try := range tries {
		if _, err = conn.Write(sent); err != nil && !errors.Is(err, unix.EMSGSIZE) {
			return err
		}
		limit := patience
		if try < tries-1 {
			limit = 2 * time.Second // it may be lost
		}
		// A narrow link shows as silence, or as a socket that has learned of it.
		if err = awaitEcho(conn, sent, limit); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, unix.EMSGSIZE) {
			return err
		}
	}
	return err
}

// awaitEcho reads past late echoes of other sizes.
func awaitEcho(conn net.Conn, sent []byte, limit time.Duration) error {
	conn.SetReadDeadline(time.Now().Add(limit))
	got := make([]byte, 65536)
	for {
		n, err := conn.Read(got)
		switch {
		case err != nil:
			return err
		case slices.Equal(got[:n], sent):
			return nil
		case n == len(sent):
			return errors.New("came back changed")
		}
	}
}

// ping asks one by one: of several questions ping waits for the last answer
// hardly longer than for the ones before it.
func ping(t *testing.T, x *target) {
	for range 3 {
		run(t, x.client, "ping", "-n", "-c", "1", "-W", "60", x.vip.String())
	}
}

// closedPort has no service on any VIP and no server on any real server.
const closedPort = 4242

func refusedTCP(t *testing.T, x *target) {
	conn, err := x.client.Dial(within(t), "tcp", netip.AddrPortFrom(x.vip, closedPort).String())
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connect: %v, want %v", err, unix.ECONNREFUSED)
	}
}

func refusedUDP(t *testing.T, x *target) {
	conn, err := x.client.Dial(within(t), "udp", netip.AddrPortFrom(x.vip, closedPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("anyone?")); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("read: %v, want %v", err, unix.ECONNREFUSED)
	}
}
