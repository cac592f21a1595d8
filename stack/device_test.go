package stack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
	"github.com/uvs-project/uvs/packet"
)

// needRoot skips where the kernel will not let the test work; not in CI,
// where that would be a hole.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("network namespaces and TUN devices need root")
	}
	t.Skip("network namespaces and TUN devices need root")
}

// A scene is a director with a TUN device between a client and a server. All
// that the client sends to a VIP, and all that the server's address sends back,
// goes through the device.
//
//	client ──192.0.2.0/24──── director ──198.51.100.0/24──── server
//	.2       2001:db8:1::/64  .1  │ .1   2001:db8:2::/64     .2
//	                             uvs0: 203.0.113.10, 2001:db8:a::10
type scene struct {
	client, director, server *lab.Host
	tun                      *DeviceTUN
}

var (
	sceneVIPs = []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:a::10")}
	sceneRIPs = []netip.Addr{netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:2::2")}
	sceneCIPs = []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8:1::2")}
)

func newScene(t *testing.T, queues int, offload bool) *scene {
	t.Helper()
	needRoot(t)
	l, err := lab.New("stacktest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	s := &scene{client: l.Host("client"), director: l.Host("director").Forward(), server: l.Host("server")}
	s.client.Link(s.director, "192.0.2.2/24 2001:db8:1::2/64", "192.0.2.1/24 2001:db8:1::1/64").Route("default", "192.0.2.1").Route("default", "2001:db8:1::1")
	s.director.Link(s.server, "198.51.100.1/24 2001:db8:2::1/64", "198.51.100.2/24 2001:db8:2::2/64")
	s.server.Route("default", "198.51.100.1").Route("default", "2001:db8:2::1")
	if !offload {
		s.client.Offload("director", false)
		s.server.Offload("director", false)
		s.director.Offload("client", false).Offload("server", false)
	}
	s.director.Sysctl("net.ipv4.conf.all.rp_filter", "0").Sysctl("net.ipv4.conf.default.rp_filter", "0")
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.director.Do(func() (err error) {
		s.tun, err = OpenTUN(TUNOptions{Queues: queues})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.tun.Close(); err != nil {
			t.Error(err)
		}
	})
	s.steer(t)
	return s
}

// steer routes the VIPs, and what the server's addresses send back, into the
// TUN device; what comes out of it takes the main table.
func (s *scene) steer(t *testing.T) {
	t.Helper()
	nl := s.director.Netlink()
	link, err := nl.LinkByName(s.tun.Name())
	if err != nil {
		t.Fatal(err)
	}
	steps := []error{nl.LinkSetMTU(link, 65535), nl.LinkSetUp(link)}
	for i, vip := range sceneVIPs {
		bits := vip.BitLen()
		family := []int{netlink.FAMILY_V4, netlink.FAMILY_V6}[i]
		mask := net.CIDRMask(bits, bits)
		all := &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
		replies := netlink.NewRule()
		replies.Family, replies.Priority, replies.Table = family, 101, 100
		replies.Src = &net.IPNet{IP: sceneRIPs[i].AsSlice(), Mask: mask}
		out := netlink.NewRule()
		out.Family, out.Priority, out.Table, out.IifName = family, 100, unix.RT_TABLE_MAIN, s.tun.Name()
		steps = append(steps,
			nl.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: vip.AsSlice(), Mask: mask}}),
			nl.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: all, Table: 100}),
			nl.RuleAdd(out), nl.RuleAdd(replies))
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
}

// routes knows the way to the client and the server. Their neighbours are
// unknown until Resolve is called.
func (s *scene) routes(t *testing.T) *sceneRoutes {
	t.Helper()
	r := &sceneRoutes{hops: map[packet.Addr]*Hop{}, macs: map[*Neighbour]MAC{}}
	for _, to := range []struct {
		host  *lab.Host
		addrs []netip.Addr
	}{{s.client, sceneCIPs}, {s.server, sceneRIPs}} {
		dev, err := s.director.Netlink().LinkByName(to.host.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range to.addrs {
			n := NewNeighbour(a)
			r.macs[n] = MAC(to.host.MAC("director"))
			addr, _ := packet.AddrFrom(a)
			r.hops[addr] = &Hop{Device: to.host.Name, IfIndex: dev.Attrs().Index, MTU: dev.Attrs().MTU, Source: MAC(dev.Attrs().HardwareAddr), Neighbour: n}
		}
	}
	return r
}

type sceneRoutes struct {
	hops map[packet.Addr]*Hop
	macs map[*Neighbour]MAC
}

func (r *sceneRoutes) Lookup(dst packet.Endpoint, _ uint32) *Hop { return r.hops[dst.Addr] }
func (r *sceneRoutes) Resolve(h *Hop)                            { go h.Neighbour.Set(r.macs[h.Neighbour]) }

func (r *sceneRoutes) resolveAll() {
	for n, mac := range r.macs {
		n.Set(mac)
	}
}

// sceneNAT translates between the VIPs and the server.
func sceneNAT(p *packet.Packet, _ time.Duration) (packet.Verdict, packet.Reason) {
	var rw packet.Rewrite
	for i := range sceneVIPs {
		vip, family := packet.AddrFrom(sceneVIPs[i])
		rip, _ := packet.AddrFrom(sceneRIPs[i])
		switch {
		case p.Tuple.Dst == vip:
			rw.Dst = packet.Endpoint{Addr: rip, Port: p.Tuple.DstPort, Family: family}
		case p.Tuple.Src == rip:
			rw.Src = packet.Endpoint{Addr: vip, Port: p.Tuple.SrcPort, Family: family}
		}
	}
	if rw == (packet.Rewrite{}) {
		return packet.Return, packet.OK
	}
	if why := rw.Apply(p); why != packet.OK {
		return packet.Drop, why
	}
	return packet.Send, packet.OK
}

// sceneDR hands what is for a VIP to the server as it is.
func sceneDR(p *packet.Packet, _ time.Duration) (packet.Verdict, packet.Reason) {
	for i := range sceneVIPs {
		if vip, family := packet.AddrFrom(sceneVIPs[i]); p.Tuple.Dst == vip {
			rip, _ := packet.AddrFrom(sceneRIPs[i])
			rw := packet.Rewrite{NextHop: packet.Endpoint{Addr: rip, Family: family}}
			return packet.Send, rw.Apply(p)
		}
	}
	return packet.Return, packet.OK
}

// within bounds a test's wait for traffic.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
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
	const size = 8 << 20
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
			if out, err := s.client.Run(within(t), "ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", "-s", size, vip.String()); err != nil {
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
	if err := <-done; err == nil || !strings.Contains(err.Error(), "TUN device uvs0: read a packet") {
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
