package integration

// What each variant of traffic_test.go is put through, by real programs.

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
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
