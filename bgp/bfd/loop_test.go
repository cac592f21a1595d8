package bfd

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// freePorts are two UDP ports of this host, none of those that the kernel
// hands out to other programs meanwhile.
func freePorts(t *testing.T) (ports [2]int) {
	t.Helper()
	for range 100 {
		first := 20_000 + 2*rand.IntN(5_000)
		if free(first) && free(first+1) {
			return [2]int{first, first + 1}
		}
	}
	t.Fatal("no free ports")
	return ports
}

func free(port int) bool {
	c, err := net.ListenPacket("udp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// A safeBuffer is a log that several goroutines write.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// await waits until a monitor's first session is as cond wants it.
func await(t *testing.T, m *Monitor, what string, cond func(PeerStats) bool) PeerStats {
	t.Helper()
	patience := time.After(time.Minute)
	for {
		s := m.Stats()[0]
		if cond(s) {
			return s
		}
		select {
		case <-m.Changed():
		case <-time.After(10 * time.Millisecond): // what is no change of state
		case <-patience:
			t.Fatalf("waited for %s, got %+v", what, s)
		}
	}
}

// The two ends of a session on one host.
var (
	left  = netip.MustParseAddr("127.0.0.1")
	right = netip.MustParseAddr("127.0.0.2")
)

// pair runs two monitors, each on its own address of one port.
func pair(t *testing.T, peer Peer) (a, b *Monitor, logs [2]*safeBuffer, stops [2]func()) {
	t.Helper()
	pa, pb := peer, peer
	pa.Name, pa.Address, pa.Local = "right", right, left
	pb.Name, pb.Address, pb.Local = "left", left, right
	ports := freePorts(t)
	a, logs[0], stops[0] = runMonitor(t, left, ports, pa)
	b, logs[1], stops[1] = runMonitor(t, right, ports, pb)
	return a, b, logs, stops
}

// runMonitor runs a monitor with a peer until the test or stop ends it.
func runMonitor(t *testing.T, addr netip.Addr, ports [2]int, peer Peer) (m *Monitor, log *safeBuffer, stop func()) {
	t.Helper()
	log = &safeBuffer{}
	m = New(slog.New(slog.NewTextHandler(log, nil)))
	m.ports, m.listenOn = ports, addr
	if err := m.Set([]Peer{peer}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return m, log, stop
}

// fast finds its peer soon, and gives it up only after ten seconds: so long may
// a busy machine keep either from running.
var fast = Peer{Interval: 50 * time.Millisecond, Multiplier: 200}

func up(s PeerStats) bool { return s.State == Up }

func TestMonitorsFindEachOther(t *testing.T) {
	for _, tt := range []struct {
		name string
		peer Peer
	}{
		{"on one link", fast},
		{"over hops", Peer{Interval: 50 * time.Millisecond, Multiplier: 200, Multihop: true, MinTTL: 253}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b, logs, stops := pair(t, tt.peer)
			await(t, a, "a up", up)
			await(t, b, "b up", up)
			s := await(t, a, "the agreed speed", func(s PeerStats) bool { return s.Detection == 10*time.Second })
			if s.Ups != 1 || s.Downs != 0 || s.Sent == 0 || s.Received == 0 {
				t.Errorf("%+v", s)
			}
			stops[1]() // says farewell
			s = await(t, a, "a down", func(s PeerStats) bool { return s.State != Up })
			if s.Remote != AdminDown || s.Lost != 0 || s.Downs != 1 {
				t.Errorf("a peer that was stopped counts as lost: %+v", s)
			}
			stops[0]()
			for _, want := range []string{"BFD session up", "BFD session down", "neighbor signaled session down"} {
				if !strings.Contains(logs[0].String(), want) {
					t.Errorf("the log lacks %q:\n%s", want, logs[0])
				}
			}
		})
	}
}

func TestSetReplacesSessions(t *testing.T) {
	a, b, _, _ := pair(t, fast)
	await(t, b, "up", up)
	if err := a.Set(nil); err != nil {
		t.Fatal(err)
	}
	await(t, b, "the farewell", func(s PeerStats) bool { return s.Remote == AdminDown })
	again := fast
	again.Name, again.Address, again.Local = "right", right, left
	if err := a.Set([]Peer{again}); err != nil {
		t.Fatal(err)
	}
	await(t, b, "up again", up)
}

// TestStrangersAreNotHeard: packets that break a rule, or come from elsewhere,
// neither bring a session up nor down.
func TestStrangersAreNotHeard(t *testing.T) {
	ports := freePorts(t)
	peer := fast
	peer.Name, peer.Address, peer.Local = "right", right, left
	m, _, _ := runMonitor(t, left, ports, peer)
	await(t, m, "the sockets", func(s PeerStats) bool { return s.Sent > 0 })
	say := func(from string, ttl int, p packet) {
		t.Helper()
		fd, err := openSocket(unix.AF_INET, [][3]int{{unix.IPPROTO_IP, unix.IP_TTL, ttl}})
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, sockaddr(netip.MustParseAddr(from), 0, 0, false)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendto(fd, p.append(nil), 0, sockaddr(left, 0, ports[0], false)); err != nil {
			t.Fatal(err)
		}
	}
	hello := packet{state: Down, multiplier: 3, mine: 9, desiredMinTx: time.Second, requiredMinRx: time.Second}
	guess := packet{state: Up, multiplier: 3, mine: 9, yours: 1234, desiredMinTx: time.Second, requiredMinRx: time.Second}
	broken := hello
	broken.multiplier = 0
	for i, s := range []struct {
		from string
		ttl  int
		p    packet
	}{
		{"127.0.0.3", 255, hello},  // no peer
		{"127.0.0.2", 254, hello},  // from beyond the link
		{"127.0.0.2", 255, guess},  // another session's discriminator
		{"127.0.0.2", 255, broken}, // against the protocol
	} {
		say(s.from, s.ttl, s.p)
		await(t, m, "the packet to be counted", func(PeerStats) bool { return m.Invalid() == uint64(i+1) })
	}
	if s := m.Stats()[0]; s.State != Down || s.Received != 0 {
		t.Errorf("%+v", s)
	}
	say("127.0.0.2", 255, hello)
	await(t, m, "the peer's own word", func(s PeerStats) bool { return s.State == Init })
}

// TestSessionsHoldWhileProcessorsAreTaken: a director's packet loops may use
// every processor that they get. The sessions stay up all the same. They get so
// long a detection time, and the loops still longer, because other programs may
// use the processors too.
func TestSessionsHoldWhileProcessorsAreTaken(t *testing.T) {
	if testing.Short() {
		t.Skip("takes five seconds of all processors")
	}
	normal := Peer{Interval: 300 * time.Millisecond, Multiplier: 10}
	a, b, _, _ := pair(t, normal)
	await(t, a, "up", up)
	await(t, b, "up", up)
	// As cmd/uvs has it: one more than there are loops.
	loops := runtime.NumCPU()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(loops + 1))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var busy sync.WaitGroup
	for range loops {
		busy.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var sum [64]byte
			for ctx.Err() == nil {
				for range 1000 {
					for i := range sum {
						sum[i] = sum[i]*31 + byte(i)
					}
				}
			}
		})
	}
	busy.Wait()
	for _, m := range []*Monitor{a, b} {
		if s := m.Stats()[0]; s.State != Up || s.Downs != 0 {
			t.Errorf("%+v", s)
		}
	}
}

func TestPortInUseIsSaidAndTriedAgain(t *testing.T) {
	ports := freePorts(t)
	other, err := net.ListenPacket("udp4", netip.AddrPortFrom(left, uint16(ports[0])).String())
	if err != nil {
		t.Fatal(err)
	}
	peer := fast
	peer.Name, peer.Address, peer.Local = "right", right, left
	m, log, _ := runMonitor(t, left, ports, peer)
	await(t, m, "the fault in the log", func(PeerStats) bool { return strings.Contains(log.String(), "another program") })
	other.Close()
	peer.Name, peer.Address, peer.Local = "left", left, right
	runMonitor(t, right, ports, peer)
	await(t, m, "up", up)
}
