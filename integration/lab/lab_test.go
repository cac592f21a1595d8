package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
)

// newLab is a lab that ends with the test.
func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	l, err := lab.New("labtest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// pair is client 192.0.2.2 - router - server 198.51.100.2, and the same in IPv6.
func pair(t *testing.T, l *lab.Lab) (client, router, server *lab.Host) {
	t.Helper()
	client, router, server = l.Host("client"), l.Host("router"), l.Host("server")
	client.Link(router, "192.0.2.2/24 2001:db8:1::2/64", "192.0.2.1/24 2001:db8:1::1/64")
	router.Link(server, "198.51.100.1/24 2001:db8:2::1/64", "198.51.100.2/24 2001:db8:2::2/64")
	router.Forward()
	client.Route("default", "192.0.2.1").Route("default", "2001:db8:1::1")
	server.Route("default", "198.51.100.1").Route("default", "2001:db8:2::1")
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	return client, router, server
}

func TestTrafficCrossesARouter(t *testing.T) {
	l := newLab(t)
	client, router, server := pair(t, l)
	for _, addr := range []string{"198.51.100.2:80", "[2001:db8:2::2]:80"} {
		ln, err := server.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		go lab.ServeHTTP(t.Context(), ln, "server")
	}
	capture, err := router.Capture("server", nil)
	if err != nil {
		t.Fatal(err)
	}

	web := http.Client{Transport: &http.Transport{DialContext: client.Dial, DisableKeepAlives: true}}
	for url, want := range map[string]string{
		"http://198.51.100.2/":    "192.0.2.2",
		"http://[2001:db8:2::2]/": "2001:db8:1::2",
	} {
		answer, err := web.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		var echo lab.Echo
		err = json.NewDecoder(answer.Body).Decode(&echo)
		answer.Body.Close()
		if from, _ := netip.ParseAddrPort(echo.Client); err != nil || from.Addr().String() != want {
			t.Errorf("%s: server saw %q, want %s (%v)", url, echo.Client, want, err)
		}
	}

	syn, err := capture.Wait(within(t), "a SYN on the router", func(f *lab.Frame) bool {
		tcp, ok := f.Packet(false).TransportLayer().(*layers.TCP)
		return ok && tcp.SYN && !tcp.ACK
	})
	if err != nil {
		t.Fatal(err)
	}
	if !syn.Out {
		t.Error("the router's SYN to the server counts as received")
	}
	eth := syn.Packet(false).LinkLayer().(*layers.Ethernet)
	if eth.DstMAC.String() != server.MAC("router").String() {
		t.Errorf("SYN went to %v, want the server's %v", eth.DstMAC, server.MAC("router"))
	}
	file := filepath.Join(t.TempDir(), "router.pcap")
	if err := capture.WriteFile(file, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Size() <= 24 {
		t.Errorf("capture file holds no packet: %v", err)
	}
}

func TestProcessRunsInsideItsHost(t *testing.T) {
	l := newLab(t)
	a, b := l.Host("a"), l.Host("b")
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	of := func(h *lab.Host) string {
		t.Helper()
		ns, err := h.Run(within(t), "readlink", "/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(ns)
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if na, nb := of(a), of(b); na == nb || na == ours || nb == ours {
		t.Errorf("namespaces: ours %s, a %s, b %s; want three different", ours, na, nb)
	}
	named, err := exec.Command("ip", "netns", "exec", a.Namespace, "readlink", "/proc/self/ns/net").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return // a machine without iproute2 needs no names
	}
	if got := strings.TrimSpace(string(named)); got != of(a) {
		t.Errorf("ip netns exec %s runs in %s, want %s (%v)", a.Namespace, got, of(a), err)
	}
}

func TestOffloadsOffMakesPacketsOfTheMTU(t *testing.T) {
	for _, on := range []bool{true, false} {
		t.Run(map[bool]string{true: "on", false: "off"}[on], func(t *testing.T) {
			l := newLab(t)
			client, _, server := pair(t, l)
			client.Offload("router", on)
			if err := l.Err(); err != nil {
				t.Fatal(err)
			}
			capture, err := client.Capture("router", func(f *lab.Frame) bool { return f.Out })
			if err != nil {
				t.Fatal(err)
			}
			ln, err := server.Listen("tcp", "198.51.100.2:80")
			if err != nil {
				t.Fatal(err)
			}
			go lab.ServeHTTP(t.Context(), ln, "server")
			web := http.Client{Transport: &http.Transport{DialContext: client.Dial, DisableKeepAlives: true}}
			answer, err := web.Post("http://198.51.100.2/", "application/octet-stream", io.LimitReader(zeros{}, 1<<20))
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			super := false
			for _, f := range capture.Stop() {
				super = super || f.GSOSize > 0 || f.PartialChecksum || len(f.Data) > 1514
			}
			if super != on {
				t.Errorf("super-packets or partial checksums: %v, want %v", super, on)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestBridgeJoinsHosts(t *testing.T) {
	l := newLab(t)
	lan := l.Host("lan").Bridge("br0", "")
	a, b := l.Host("a"), l.Host("b")
	a.Link(lan, "192.0.2.1/24", "")
	b.Link(lan, "192.0.2.2/24", "")
	a.MTU("lan", 1400)
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	ln, err := b.Listen("tcp", "192.0.2.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := a.Dial(within(t), "tcp", "192.0.2.2:80")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestFirstFaultIsTold(t *testing.T) {
	l := newLab(t)
	l.Host("a").Route("203.0.113.0/24", "192.0.2.1").Sysctl("net.no.such", "1")
	if err := l.Err(); err == nil || !strings.Contains(err.Error(), "a: route 203.0.113.0/24 via 192.0.2.1") {
		t.Errorf("error %v does not name the first fault", err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	l := newLab(t)
	a := l.Host("a")
	b := l.Host("b")
	a.Link(b, "192.0.2.1/24", "192.0.2.2/24")
	p, err := a.Start(exec.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Capture("b", nil); err != nil {
		t.Fatal(err)
	}
	l.Close()
	l.Close()
	if err := unix.Kill(p.PID(), 0); err != unix.ESRCH {
		t.Errorf("process still there: %v", err)
	}
	if _, err := os.Lstat("/run/netns/" + a.Namespace); err == nil {
		t.Error("name of the namespace still there")
	}
	if _, err := a.Start(exec.Command("sleep", "1000")); err == nil {
		t.Error("a closed lab started a process")
	}
}

// TestNothingSurvivesAKill runs TestBody in another process, kills that and looks
// for what it started.
func TestNothingSurvivesAKill(t *testing.T) {
	newLab(t)
	body := exec.Command(os.Args[0], "-test.run=^TestBody$", "-test.v")
	body.Env = append(os.Environ(), "LAB_BODY=1")
	out, err := body.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := body.Start(); err != nil {
		t.Fatal(err)
	}
	var told struct {
		Namespace string
		PID       int
	}
	err = json.NewDecoder(skipTo(out, '{')).Decode(&told)
	body.Process.Kill()
	body.Wait()
	if err != nil {
		t.Fatal(err)
	}
	err = lab.Wait(within(t), "the end of the lab's process", func() error {
		if running(told.PID) {
			return errors.New("still there")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/run/netns/" + told.Namespace); err == nil {
		t.Error("the namespace is still there")
	}
	newLab(t) // sweeps
	if _, err := os.Lstat("/run/netns/" + told.Namespace); err == nil {
		t.Error("the dead name was not swept away")
	}
}

// running says whether a process is there and not one that ended, which only
// its parent, whoever that is by now, can remove.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

// skipTo drops what comes before the first c.
func skipTo(r io.Reader, c byte) io.Reader {
	var b [1]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return r
		}
		if b[0] == c {
			return io.MultiReader(strings.NewReader(string(b[:])), r)
		}
	}
}

func TestBody(t *testing.T) {
	if os.Getenv("LAB_BODY") == "" {
		t.Skip("runs as a process of TestNothingSurvivesAKill")
	}
	l := newLab(t)
	a := l.Host("a")
	p, err := a.Start(exec.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{"Namespace": a.Namespace, "PID": p.PID()})
	<-p.Exited()
}

func TestRunTellsWhatTheProgramSaid(t *testing.T) {
	l := newLab(t)
	a := l.Host("a")
	_, err := a.Run(within(t), "sh", "-c", "echo no such thing >&2; exit 3")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("error %v, want exit code 3 and what was said", err)
	}
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	l := newLab(t)
	a := l.Host("a")
	p, err := a.Start(exec.Command("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"))
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Wait(within(t), "the trap", func() error {
		if !strings.Contains(p.Output(), "ready") {
			return errors.New("not set")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	p.Stop()
	if s := p.Cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != unix.SIGKILL {
		t.Errorf("ended by %v, want a kill", s.Signal())
	}
}
