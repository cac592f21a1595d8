package lb_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// TestExplainForetellsThePacket: in every mode, what Explain says of a
// connection's first packet is what Handle does with it, and what it says then
// of the flow is what it said before.
func TestExplainForetellsThePacket(t *testing.T) {
	for _, row := range []struct {
		name string
		d    director
		in   []byte
	}{
		{"nat", natDirector, packettest.TCP(client4, web4, packettest.SYN)},
		{"nat IPv6", natDirector, packettest.UDP(client6, web6)},
		{"dr", drDirector, packettest.TCP(client4, web4, packettest.SYN)},
		{"fullnat", fullnatDirector, packettest.TCP(client4, web4, packettest.SYN)},
		{"fullnat from IPv6", fullnatDirector, packettest.UDP(client6, web6)},
		{"tun", director{mode: "tun", tunnel: modes.Tunnel{Kind: packet.GUE, Port: 6080}, realServers: []string{rip4 + ":80"}}, packettest.UDP(client4, web4)},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := row.d.start(t)
			key := tuple(t, row.in)
			before := b.Stats()
			told := b.Explain(key, time.Second)
			if diff := cmp.Diff(fmt.Sprint(before), fmt.Sprint(b.Stats())); diff != "" {
				t.Errorf("explaining left a trace (-before +after):\n%s", diff)
			}
			mine := packettest.Parsed(t, row.in)
			if why := told.Request.Apply(mine); why != packet.OK {
				t.Fatal(why)
			}
			sent := handle(t, b, row.in, time.Second)
			if sent.verdict != told.Verdict || sent.reason != told.Reason || told.Known {
				t.Fatalf("%v, %v; told %+v", sent.verdict, sent.reason, told)
			}
			if diff := cmp.Diff(withoutID(sent.bytes), withoutID(mine.Bytes())); diff != "" || sent.p.NextHop != mine.NextHop {
				t.Errorf("the rewrite that was told makes another packet (-sent +told):\n%s", diff)
			}
			is := b.Explain(key, 2*time.Second)
			if !is.Known || is.Way != lb.Request || is.Flow.Flow != told.Flow.Flow || is.Request != told.Request || is.Reply != told.Reply {
				t.Errorf("told %+v,\nis %+v", told, is)
			}
			if reply, ok := is.Flow.Server.Mode.ReplyTuple(is.Flow.Flow); ok {
				if r := b.Explain(reply, 2*time.Second); !r.Known || r.Way != lb.Reply || r.Flow.Flow != is.Flow.Flow {
					t.Errorf("the reply: %+v", r)
				}
			}
		})
	}
}

// withoutID is a packet whose outer IPv4 header is told apart from no other by
// its identification.
func withoutID(pkt []byte) []byte {
	pkt = slices.Clone(pkt)
	if pkt[0]>>4 == packet.IPv4 {
		clear(pkt[4:6])
		clear(pkt[10:12])
	}
	return pkt
}

// TestExplainFindsTheLocalPortThatIsFree: of so many flows some seventy meet
// another one at the first port that is proposed for them.
func TestExplainFindsTheLocalPortThatIsFree(t *testing.T) {
	b := fullnatDirector.start(t)
	for i := range 3000 {
		in := packettest.UDP(fmt.Sprintf("198.51.%d.%d:4000", i>>8, i&255), web4)
		told := b.Explain(tuple(t, in), 0)
		handle(t, b, in, 0)
		if is := b.Explain(tuple(t, in), 0); is.Flow.Local != told.Flow.Local || is.Flow.LocalEndpoint() != told.Request.Src {
			t.Fatalf("flow %d: local %x, told %x", i, is.Flow.Local, told.Flow.Local)
		}
	}
}

func TestExplainVerdicts(t *testing.T) {
	down := func(how lb.Removed) func(*lb.Config) {
		return func(c *lb.Config) {
			c.Services[0].RealServers[0].Weight, c.Services[0].RealServers[0].Down = 0, true
			c.Services[0].Policy.Down = how
		}
	}
	for _, row := range []struct {
		name    string
		flow    bool // there is one before
		change  func(*lb.Config)
		in      []byte
		verdict packet.Verdict
		why     packet.Reason
		known   bool
	}{
		{"no service on the port", false, nil, packettest.TCP(client4, vip4+":81"), packet.Pass, packet.NoService, false},
		{"not our address", false, nil, packettest.TCP(client4, "203.0.113.11:80"), packet.Return, packet.OK, false},
		{"a local address without a flow", false, nil, packettest.TCP(mapped4, lip4+":2000"), packet.Drop, packet.NoService, false},
		{"nobody to take it", false, down(lb.RemovedServe), packettest.TCP(client4, web4), packet.Drop, packet.NoRealServer, false},
		{"a flow whose real server is down and served on", true, down(lb.RemovedServe), packettest.TCP(client4, web4), packet.Send, packet.OK, true},
		{"a flow whose real server is down and reset", true, down(lb.RemovedReset), packettest.TCP(client4, web4), packet.Drop, packet.ServerRemoved, true},
		{"a flow whose real server is down and kept silent", true, down(lb.RemovedKeep), packettest.TCP(client4, web4), packet.Drop, packet.ServerRemoved, true},
		{"its reply", true, down(lb.RemovedKeep), packettest.TCP(mapped4, client4), packet.Send, packet.OK, true},
		{"a flow that is to be rescheduled, to nobody", true, down(lb.RemovedReschedule), packettest.TCP(client4, web4), packet.Drop, packet.NoRealServer, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := director{mode: "nat", realServers: []string{mapped4}}.config(t)
			b := startWith(t, c, lb.Options{Flows: 1000})
			if row.flow {
				handle(t, b, packettest.TCP(client4, web4, packettest.SYN), 0)
			}
			if row.change != nil {
				row.change(&c)
				if err := b.Apply(c); err != nil {
					t.Fatal(err)
				}
			}
			if x := b.Explain(tuple(t, row.in), time.Second); x.Verdict != row.verdict || x.Reason != row.why || x.Known != row.known {
				t.Errorf("%v, %v, known %v; want %v, %v, %v", x.Verdict, x.Reason, x.Known, row.verdict, row.why, row.known)
			}
		})
	}
}

func TestExplainFollowsTheTemplate(t *testing.T) {
	d := director{mode: "nat", realServers: []string{rip4 + ":80", "10.0.0.4:80"}, persistence: lb.Persistence{Timeout: time.Minute, PrefixV4: 32, PrefixV6: 128}}
	b := d.start(t)
	first := tuple(t, packettest.TCP(client4, web4))
	if x := b.Explain(first, 0); x.Template != nil || !x.Flow.Persistent {
		t.Errorf("before: %+v", x)
	}
	handle(t, b, packettest.TCP(client4, web4, packettest.SYN), 0)
	bound := b.Explain(first, 0).Flow.Server
	for range 3 { // the turns of rr go on without it
		x := b.Explain(tuple(t, packettest.TCP(cip4+":50000", web4)), time.Second)
		if x.Template == nil || x.Template.Flows != 1 || x.Flow.Server != bound || x.Known {
			t.Fatalf("not bound to %v: %+v", bound.Endpoint.AddrPort(), x)
		}
		handle(t, b, packettest.TCP("198.51.100.9:1000", web4, packettest.SYN), 0)
	}
	if x := b.Explain(tuple(t, packettest.TCP(cip4+":50000", web4)), 20*time.Minute); x.Template != nil && x.Template.Flows == 0 {
		t.Errorf("bound by a template that is over: %+v", x)
	}
}

func TestExplainAndFlowsKnowWhatTheLaneHasCarried(t *testing.T) {
	b, l, _ := startLane(t, nil)
	talk(t, b, time.Second)
	l.ago[tuple(t, packettest.TCP(laneRIP, laneClient))] = time.Minute
	due := 16*time.Minute + 2*time.Second // the deadline as uvs knows it is over
	if x := b.Explain(tuple(t, packettest.TCP(laneClient, laneVIP)), due); !x.Known || x.Flow.Left.Round(time.Second) != 14*time.Minute {
		t.Errorf("known %v with %v left, want 14 minutes", x.Known, x.Flow.Left)
	}
	n := 0
	for f := range b.Flows(due) {
		n++
		if !f.Offered || f.Left.Round(time.Second) != 14*time.Minute {
			t.Errorf("%+v", f)
		}
	}
	if n != 1 {
		t.Errorf("%d flows are listed", n)
	}
}

// TestExplainKnowsThatADatagramGoesByItself: also after a fragment, for whose
// followers a flow is kept, which the next datagram does not belong to.
func TestExplainKnowsThatADatagramGoesByItself(t *testing.T) {
	policy := lb.DefaultPolicy()
	policy.OnePacket = true
	b := director{mode: "nat", realServers: []string{rip4 + ":8081", mapped4}, policy: &policy}.start(t)
	in := packettest.UDP(client4, web4)
	for round := range 6 {
		x := b.Explain(tuple(t, in), 0)
		sent := handle(t, b, in, 0)
		mine := packettest.Parsed(t, in)
		if why := x.Request.Apply(mine); why != packet.OK || !x.OnePacket || x.Known || x.Ends != (round == 3) || sent.verdict != x.Verdict {
			t.Fatalf("round %d: %v: %+v", round, why, x)
		}
		if diff := cmp.Diff(withoutID(sent.bytes), withoutID(mine.Bytes())); diff != "" {
			t.Errorf("round %d (-sent +told):\n%s", round, diff)
		}
		if round == 2 {
			handle(t, b, packettest.Fragments(packettest.UDP(client4, web4, packettest.Pad(100)), 48)[0], 0)
		}
	}
}
