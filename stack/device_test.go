package stack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
	"github.com/uvs-project/uvs/packet"
)

// patience bounds every wait: far more than any takes on a busy machine.
const patience = time.Minute

// within bounds a test's wait for traffic.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// serve runs an HTTP server on an address of host until the test ends.
func serve(t *testing.T, host *lab.Host, addr string) {
	t.Helper()
	ln, err := host.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- lab.ServeHTTP(ctx, ln, host.Name) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// transfer sends and fetches some megabytes and says who the server saw.
func transfer(t *testing.T, client *lab.Host, addr netip.Addr) (seen lab.Echo) {
	t.Helper()
	const size = 4 << 20
	web := http.Client{Transport: &http.Transport{DialContext: client.Dial, DisableKeepAlives: true}}
	url := "http://" + netip.AddrPortFrom(addr, 80).String()
	do := func(method, path string, body io.Reader) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(within(t), method, url+path, body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		return answer
	}
	down := sha256.New()
	if n, err := io.Copy(down, do("GET", fmt.Sprintf("/bytes/%d", size), nil).Body); err != nil || n != size {
		t.Fatalf("%d bytes came down, want %d: %v", n, size, err)
	}
	up := strings.NewReader(strings.Repeat("all of it ", size/10))
	want := sha256.New()
	io.Copy(want, up)
	up.Seek(0, io.SeekStart)
	if err := json.NewDecoder(do("POST", "/", up).Body).Decode(&seen); err != nil {
		t.Fatal(err)
	}
	if seen.SHA256 != hex.EncodeToString(want.Sum(nil)) {
		t.Errorf("the server got other bytes than were sent")
	}
	return seen
}

func TestDeviceCarriesTraffic(t *testing.T) {
	tests := []struct {
		name    string
		handler handlerFunc
		egress  EgressMode
		known   bool // neighbours are known from the start
		direct  bool // the server has the VIPs
		ways    string
	}{
		{name: "nat by the kernel", handler: sceneNAT, egress: EgressKernel, ways: "kernel"},
		{name: "nat by link", handler: sceneNAT, egress: EgressAuto, known: true, ways: "link"},
		{name: "nat by auto, neighbours unknown: the kernel", handler: sceneNAT, egress: EgressAuto, ways: "kernel"},
		{name: "nat by link, neighbours to be asked first", handler: sceneNAT, egress: EgressLink, ways: "link waited"},
		{name: "dr, the neighbour to be asked first", handler: sceneDR, egress: EgressKernel, direct: true, ways: "link waited"},
	}
	for _, tt := range tests {
		for _, offload := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, offloads %v", tt.name, offload), func(t *testing.T) {
				s := newScene(t, 2, offload)
				routes := s.routes(t)
				if tt.known {
					routes.resolveAll()
				}
				if tt.direct {
					for _, vip := range sceneVIPs {
						s.server.Addr("lo", netip.PrefixFrom(vip, vip.BitLen()).String())
					}
				}
				var r *Road
				if err := s.director.Do(func() error {
					r = start(t, s.tun, tt.handler, Options{Egress: tt.egress, Routes: routes})
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				serve(t, s.server, ":80")
				for i, vip := range sceneVIPs {
					seen := transfer(t, s.client, vip)
					if from, _ := netip.ParseAddrPort(seen.Client); from.Addr() != sceneCIPs[i] {
						t.Errorf("the server saw %s, want %v", seen.Client, sceneCIPs[i])
					}
					want := sceneRIPs[i]
					if tt.direct {
						want = vip
					}
					if to, _ := netip.ParseAddrPort(seen.Local); to.Addr() != want {
						t.Errorf("the server was asked at %s, want %v", seen.Local, want)
					}
				}
				var sum QueueStats
				for _, q := range r.Stats().Queues {
					sum.Sent += q.Sent
					sum.ByLink += q.ByLink
					sum.ByKernel += q.ByKernel
					sum.Waited += q.Waited
				}
				if got := ways(sum); got != tt.ways {
					t.Errorf("packets left by %s, want %s: %+v", got, tt.ways, sum)
				}
			})
		}
	}
}

// ways names how packets left.
func ways(s QueueStats) string {
	var w []string
	for _, x := range []struct {
		name string
		n    uint64
	}{{"link", s.ByLink}, {"kernel", s.ByKernel}, {"waited", s.Waited}} {
		if x.n > 0 {
			w = append(w, x.name)
		}
	}
	return strings.Join(w, " ")
}

func TestDeviceNetstackAnswersPing(t *testing.T) {
	if _, err := exec.LookPath("ping"); err != nil {
		t.Skip("no ping on this machine")
	}
	s := newScene(t, 1, true)
	var r *Road
	if err := s.director.Do(func() error {
		r = start(t, s.tun, verdict(packet.Pass), Options{})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := r.SetVIPs(sceneVIPs); err != nil {
		t.Fatal(err)
	}
	for _, vip := range sceneVIPs {
		for _, size := range []string{"56", "4000"} { // the second in fragments
			if out, err := s.client.Run(within(t), "ping", "-n", "-c", "2", "-i", "0.2", "-W", "30", "-s", size, vip.String()); err != nil {
				t.Errorf("ping %v with %s bytes: %v\n%s", vip, size, err, out)
			}
		}
		conn, err := s.client.Dial(within(t), "tcp", netip.AddrPortFrom(vip, 99).String())
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("connect to a closed port of %v: %v %v, want it refused", vip, conn, err)
		}
	}
}

func TestRoadEndsWhenTheDeviceIsRemoved(t *testing.T) {
	s := newScene(t, 2, true)
	r, err := New(s.tun, func(int) Handler { return verdict(packet.Drop) }, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	done := make(chan error)
	go func() { done <- r.Run(within(t)) }()
	waitStats(t, r, func(s QueueStats) bool { return s.Waits > 0 })
	link, err := s.director.Netlink().LinkByName(s.tun.Name())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.director.Netlink().LinkDel(link); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "TUN device uvs0: read a packet: the device was removed by another program") {
		t.Errorf("Run: %v, want an error that names the device", err)
	}
}

func TestOpenTUNErrors(t *testing.T) {
	s := newScene(t, 1, true)
	tests := []struct {
		name string
		o    TUNOptions
		want string // part of the error
	}{
		{name: "the name of another kind of device", o: TUNOptions{Name: "client"}, want: "the name client is in use by a veth device: set device.name"},
		{name: "a TUN device that is there already", o: TUNOptions{}, want: "TUN device uvs0 exists already: is another uvs running? Otherwise: ip link del uvs0"},
		{name: "a name that is too long", o: TUNOptions{Name: "a-name-of-16-abc"}, want: "at most 15 characters"},
		{name: "a name that is none", o: TUNOptions{Name: "a/b"}, want: `"a/b" is no name for a device`},
		{name: "too many queues", o: TUNOptions{Name: "uvs1", Queues: 257}, want: "a device has 1 to 256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := s.director.Do(func() error {
				tun, err := OpenTUN(tt.o)
				if err == nil {
					tun.Close()
				}
				return err
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestMissingCapabilitiesAreNamed(t *testing.T) {
	needRoot(t)
	type result struct{ tun, link error }
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, without its capabilities
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&hdr, &none[0]); err != nil {
			done <- result{err, err}
			return
		}
		_, tun := OpenTUN(TUNOptions{Name: "uvstest0"})
		_, link := openLinkSocket()
		done <- result{tun, link}
	}()
	r := <-done
	if r.tun == nil || !strings.Contains(r.tun.Error(), "NET_ADMIN") || !errors.Is(r.tun, unix.EPERM) {
		t.Errorf("TUN device: %v, want NET_ADMIN named", r.tun)
	}
	if r.link == nil || !strings.Contains(r.link.Error(), "NET_RAW") || !errors.Is(r.link, unix.EPERM) {
		t.Errorf("packet socket: %v, want NET_RAW named", r.link)
	}
}

func TestOpenErrorTellsWhatMendsIt(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{unix.ENOENT, "mkdir -p /dev/net && mknod /dev/net/tun c 10 200"},
		{unix.EPERM, "--device /dev/net/tun"},
		{unix.ENODEV, "modprobe tun"},
	} {
		if err := openError(tt.err); !strings.Contains(err.Error(), tt.want) || !errors.Is(err, tt.err) {
			t.Errorf("%v: %v, want %q in it", tt.err, err, tt.want)
		}
	}
}
