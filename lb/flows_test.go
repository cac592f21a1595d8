package lb_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

func TestFlowsShowsWhatAListingNeeds(t *testing.T) {
	b := natDirector.start(t)
	handle(t, b, packettest.TCP(client4, web4, packettest.SYN), time.Second)
	handle(t, b, packettest.TCP(mapped4, client4, packettest.SYNACK), 2*time.Second)
	handle(t, b, packettest.UDP(client6, web6), 3*time.Second)
	want := map[string]string{
		client4: "syn_recv, 10.0.0.3:8080, 58s left",
		client6: "udp, [2001:db8:b::3]:8080, 299s left",
	}
	got := map[string]string{}
	for f := range b.Flows(4 * time.Second) {
		client := packet.Endpoint{Addr: f.Tuple.Src, Port: f.Tuple.SrcPort, Family: f.Tuple.Family}.AddrPort().String()
		got[client] = fmt.Sprintf("%v, %v, %.0fs left", f.State, f.Server.Endpoint.AddrPort(), f.Left.Seconds())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for f := range b.Flows(304 * time.Second) {
		t.Errorf("after its end: %+v", f)
	}
}

// TestFlowsMeetsEveryFlowOnce lists a table that changes all the time: what is
// there from the first to the last moment is met exactly once.
func TestFlowsMeetsEveryFlowOnce(t *testing.T) {
	b := startWith(t, drDirector.config(t), lb.Options{Flows: 100_000})
	open := func(i int, proto string, now time.Duration) {
		client := fmt.Sprintf("198.51.%d.%d:%d", i>>8&255, i&255, 1024+i)
		in := packettest.TCP(client, web4, packettest.SYN)
		if proto == "udp" {
			in = packettest.UDP(client, web4)
		}
		if got := handle(t, b, in, now); got.verdict != packet.Send {
			t.Fatalf("flow %d: %v, %v", i, got.verdict, got.reason)
		}
	}
	const stay = 5000
	for i := range stay {
		open(i, "udp", 100*time.Second)
	}
	seen := map[packet.Tuple]int{}
	coming := 0
	for f := range b.Flows(100 * time.Second) {
		if coming < 10_000 {
			// Those of a moment ago end, others take their entries and make
			// the indexes grow.
			now := time.Duration(100+coming/100) * time.Second
			open(coming, "tcp", now)
			b.Tick(now)
			coming++
		}
		if f.Tuple.Proto == packet.UDP {
			seen[f.Tuple]++
		}
	}
	if len(seen) != stay {
		t.Errorf("met %d of %d flows", len(seen), stay)
	}
	for tuple, n := range seen {
		if n != 1 {
			t.Errorf("%v: met %d times", tuple, n)
		}
	}
}

func TestFlowsStopsWhenAsked(t *testing.T) {
	b := natDirector.start(t)
	handle(t, b, packettest.UDP(client4, web4), 0)
	handle(t, b, packettest.UDP(client6, web6), 0)
	n := 0
	for range b.Flows(0) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d flows after the first", n)
	}
}
