package metrics

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
	"github.com/uvs-project/uvs/stack"
)

// TestVerdictsAddUp: whatever comes in, every packet read has one verdict, and
// every dropped one a reason.
func TestVerdictsAddUp(t *testing.T) {
	vip, rip := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddrPort("10.0.0.1:8080")
	listens := []lb.Listen{{VIP: vip, FirstPort: 80, Proto: packet.TCP}}
	nat, err := modes.New("nat", modes.Options{Listens: listens, RealServer: rip})
	if err != nil {
		t.Fatal(err)
	}
	rr, err := sched.New("rr", sched.Options{})
	if err != nil {
		t.Fatal(err)
	}
	balancer, err := lb.New(lb.Options{Queues: 2, Flows: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer balancer.Close()
	if err := balancer.Apply(lb.Config{Services: []lb.ServiceConfig{
		{Name: "web", Listens: listens, Scheduler: rr, RealServers: []lb.RealServerConfig{{Address: rip, Weight: 1, Mode: nat}}},
		{Name: "empty", Listens: []lb.Listen{{VIP: vip, FirstPort: 81, Proto: packet.TCP}}, Scheduler: rr, OnNoServer: lb.AnswerDrop},
	}}); err != nil {
		t.Fatal(err)
	}
	tun := stack.NewMemTUN(1)
	road, err := stack.New(tun, func(queue int) stack.Handler { return balancer.Queue(queue) }, stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := road.SetVIPs([]netip.Addr{vip}); err != nil {
		t.Fatal(err)
	}

	const client = "192.0.2.1:1234"
	super := packettest.Super(packettest.TCP(client, "203.0.113.10:80", packettest.Pad(4000)), 1448)
	read := map[string][]byte{
		"send: opens a flow":         packettest.Plain(packettest.TCP(client, "203.0.113.10:80", packettest.SYN)),
		"send: a super-packet":       super,
		"send: the reply":            packettest.Plain(packettest.TCP("10.0.0.1:8080", client)),
		"pass: a port without any":   packettest.Plain(packettest.TCP(client, "203.0.113.10:99", packettest.SYN)),
		"pass: a ping":               packettest.Plain(packettest.Echo("192.0.2.1", "203.0.113.10")),
		"return: not ours":           packettest.Plain(packettest.UDP(client, "192.0.2.99:53")),
		"drop: no real server":       packettest.Plain(packettest.TCP(client, "203.0.113.10:81", packettest.SYN)),
		"drop: cut short":            packettest.Plain(packettest.TCP(client, "203.0.113.10:80")[:9]),
		"drop: nothing but a header": make([]byte, packet.VNetLen),
		"drop: a wrong checksum up":  packettest.Plain(packettest.TCP(client, "203.0.113.10:99", packettest.SYN, packettest.WrongSum)),
	}
	want := map[string]uint64{}
	order := []string{"send: opens a flow", "send: a super-packet", "send: the reply"}
	for name := range read {
		verdict, _, _ := strings.Cut(name, ":")
		want[verdict]++
		if verdict != "send" {
			order = append(order, name)
		}
	}
	for _, name := range order {
		tun.Inject(0, read[name])
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- road.Run(ctx) }()
	deadline := time.After(time.Minute)
	for s := road.Stats(); s.Total().Packets < uint64(len(read)); s = road.Stats() {
		select {
		case <-deadline:
			t.Fatalf("%d of %d packets were read in a minute", s.Total().Packets, len(read))
		case <-tun.Written(0):
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := road.Close(); err != nil {
		t.Fatal(err)
	}

	s := busy()
	s.Balancer, s.Road = balancer.Stats, road.Stats
	sum := map[string]float64{}
	for _, line := range scrape(t, s) {
		space := strings.LastIndexByte(line, ' ')
		series := line[:space]
		n, err := strconv.ParseFloat(line[space+1:], 64)
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(series, "{")
		sum[name] += n
		sum[series] += n
	}
	if sum[TUNReads] != float64(len(read)) || sum[Verdicts] != sum[TUNReads] {
		t.Errorf("%v packets read, %v verdicts, want %d of each", sum[TUNReads], sum[Verdicts], len(read))
	}
	for verdict, n := range want {
		if got := sum[Verdicts+`{verdict="`+verdict+`"}`]; got != float64(n) {
			t.Errorf("verdict %s: %v, want %d", verdict, got, n)
		}
	}
	if sum[Drops] != float64(want["drop"]) {
		t.Errorf("%v drops by reason, want %d", sum[Drops], want["drop"])
	}
	if got := sum[Packets+`{direction="in",mode="nat",service="web"}`]; got != 4 {
		t.Errorf("%v packets from clients, want 4: a super-packet is three on the wire", got)
	}
}
