package lb_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

func TestRemovedRealServer(t *testing.T) {
	const s = time.Second
	policy := func(r lb.Removed) lb.Policy { return lb.Policy{Reuse: lb.ReuseClosed, Removed: r} }
	tests := []struct {
		name   string
		mode   string
		policy lb.Policy
		steps  []step
	}{
		{"serve: its flows go on, new ones go elsewhere", "nat", policy(lb.RemovedServe), []step{
			{note: "data", at: 10 * s, edit: remove(rs2), in: fromClient(1, ack1, psh1), want: toServer(rs2, 1, ack1, psh1)},
			{note: "reply", at: 11 * s, in: fromServer(rs2, 1), want: toClient(1), flows: "1>10.0.0.2 established 900"},
			{note: "new", at: 11 * s, in: fromClient(2, syn1), want: toServer(rs1, 2, syn1)},
		}},
		{"keep: requests vanish and do not prolong the flow, replies go on", "nat", policy(lb.RemovedKeep), []step{
			{note: "data", at: 10 * s, edit: remove(rs2), in: fromClient(1, ack1, psh1), why: packet.ServerRemoved, flows: "1>10.0.0.2 established 890"},
			{note: "SYN", at: 20 * s, in: fromClient(1, syn1), why: packet.ServerRemoved, flows: "1>10.0.0.2 established 880"},
			{note: "reply", at: 30 * s, in: fromServer(rs2, 1), want: toClient(1), flows: "1>10.0.0.2 established 900"},
		}},
		{"keep: the flow goes on when the real server comes back, even later", "nat", policy(lb.RemovedKeep), []step{
			{note: "data", at: 10 * s, edit: remove(rs2), in: fromClient(1, ack1), why: packet.ServerRemoved},
			{note: "data", at: 500 * s, edit: func(c *lb.Config) { *c = lifeDirector("nat", policy(lb.RemovedKeep)).config(t) },
				in: fromClient(1, ack1), want: toServer(rs2, 1, ack1), flows: "1>10.0.0.2 established 900"},
		}},
		{"keep: what is closed gives way to a new connection", "nat", policy(lb.RemovedKeep), []step{
			{note: "RST", in: fromServer(rs2, 1, packettest.RST), want: toClient(1, packettest.RST)},
			{note: "SYN", edit: remove(rs2), in: fromClient(1, syn1), want: toServer(rs1, 1, syn1)},
		}},
		{"keep: an ICMP error about the flow is no request", "nat", policy(lb.RemovedKeep), []step{
			{note: "error", edit: remove(rs2),
				in:   packettest.Error("198.51.100.1", vip4, unreachable4, port4, 0, toClient(1)[:28]),
				want: packettest.Error("198.51.100.1", rs2, unreachable4, port4, 0, fromServer(rs2, 1)[:28])},
		}},
		{"reschedule: flows end at once", "nat", policy(lb.RemovedReschedule), []step{
			{note: "removal", edit: remove(rs2), flows: "none"},
			{note: "data", in: fromClient(1, ack1), what: packet.Pass, why: packet.NotSYN},
			{note: "reply", in: fromServer(rs2, 1), what: packet.Return},
			{note: "SYN", in: fromClient(1, syn1), want: toServer(rs1, 1, syn1)},
		}},
		{"reset: whoever sends is reset", "nat", policy(lb.RemovedReset), []step{
			{note: "data", edit: remove(rs2), in: fromClient(1, ack1), want: rstOf(toClient, 1), why: packet.ServerRemoved},
			{note: "reply", in: fromServer(rs2, 1, ack1), why: packet.ServerRemoved,
				want: packettest.TCP(fmt.Sprint(cip4, ":", 1), rs2+":8080", packettest.Flags(packet.RST), packettest.Seq(7), packettest.Window(0))},
			{note: "RST", in: fromServer(rs2, 1, packettest.RST), why: packet.ServerRemoved},
			{note: "SYN", in: fromClient(1, syn1), want: toServer(rs1, 1, syn1)},
		}},
		{"the service's policy of today counts", "nat", policy(lb.RemovedServe), []step{
			{note: "data", edit: remove(rs2), in: fromClient(1, ack1), want: toServer(rs2, 1, ack1)},
			{note: "data", edit: func(c *lb.Config) { c.Services[0].Policy.Removed = lb.RemovedKeep },
				in: fromClient(1, ack1), why: packet.ServerRemoved},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := lifeDirector(tt.mode, tt.policy)
			play(t, d, append(established(d), tt.steps...))
		})
	}
}

func TestRemovedService(t *testing.T) {
	const s = time.Second
	policy := func(r lb.Removed) lb.Policy { return lb.Policy{Reuse: lb.ReuseClosed, Removed: r} }
	none := func(c *lb.Config) { c.Services = nil }
	// other is a service of the same family, on another VIP.
	other := func(c *lb.Config) {
		s := c.Services[0]
		s.Name = "other"
		s.Listens = []lb.Listen{{VIP: netip.MustParseAddr("203.0.113.99"), FirstPort: 80, Proto: packet.TCP}}
		c.Services = []lb.ServiceConfig{s}
	}
	back := func(d director) func(*lb.Config) { return func(c *lb.Config) { *c = d.config(t) } }
	nat, dr := lifeDirector("nat", policy(lb.RemovedKeep)), lifeDirector("dr", policy(lb.RemovedKeep))
	serve, forget := lifeDirector("nat", policy(lb.RemovedServe)), lifeDirector("nat", policy(lb.RemovedReschedule))
	tests := []struct {
		name  string
		d     director
		steps []step
	}{
		{"keep: the last service of a family leaves everything to the kernel, and finds its flows when it comes back", nat, []step{
			{note: "data", at: 10 * s, edit: none, in: fromClient(1, ack1), what: packet.Return, flows: "1>10.0.0.2 established 890"},
			{note: "reply", at: 20 * s, in: fromServer(rs2, 1), what: packet.Return, flows: "1>10.0.0.2 established 880"},
			{note: "data", at: 30 * s, edit: back(nat), in: fromClient(1, ack1), want: toServer(rs2, 1, ack1), flows: "1>10.0.0.2 established 900"},
		}},
		{"keep: the same with dr", dr, []step{
			{note: "data", at: 10 * s, edit: none, in: fromClient(1, ack1), what: packet.Return, flows: "1>10.0.0.2 established 890"},
			{note: "data", at: 30 * s, edit: back(dr), in: fromClient(1, ack1), want: fromClient(1, ack1), via: rs2},
		}},
		{"keep: beside another service its flows are those of a removed real server", nat, []step{
			{note: "data", at: 10 * s, edit: other, in: fromClient(1, ack1), why: packet.ServerRemoved},
			{note: "reply", at: 20 * s, in: fromServer(rs2, 1), want: toClient(1), flows: "1>10.0.0.2 established 900"},
		}},
		{"what holds for all that are gone counts for its flows, also later", nat, []step{
			{note: "data", at: 10 * s, edit: other, in: fromClient(1, ack1), why: packet.ServerRemoved, flows: "1>10.0.0.2 established 890"},
			{note: "the end", at: 20 * s, edit: func(c *lb.Config) { c.Gone = &lb.Policy{Removed: lb.RemovedReschedule} }, flows: "none"},
		}},
		{"reschedule: its flows end", forget, []step{
			{note: "data", edit: none, in: fromClient(1, ack1), what: packet.Return, flows: "none"},
			{note: "data", edit: back(forget), in: fromClient(1, ack1), what: packet.Pass, why: packet.NotSYN},
		}},
		{"serve: its flows go on as long as packets come", serve, []step{
			{note: "data", at: 10 * s, edit: none, in: fromClient(1, ack1), want: toServer(rs2, 1, ack1), flows: "1>10.0.0.2 established 900"},
			{note: "reply", at: 10 * s, in: fromServer(rs2, 1), want: toClient(1)},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			play(t, tt.d, append(established(tt.d), tt.steps...))
		})
	}
}

func TestDrain(t *testing.T) {
	const s = time.Second
	nothing := func(*lb.Config) {}
	tests := []struct {
		name   string
		policy lb.Policy
		steps  []step
	}{
		{"flows end so long after the weight became 0", lb.Policy{Drain: 30 * s}, []step{
			{note: "weight 0", at: 10 * s, edit: weight(rs2, 0), in: fromClient(1, ack1), want: toServer(rs2, 1, ack1)},
			{note: "data", at: 39 * s, edit: nothing, in: fromClient(1, ack1), want: toServer(rs2, 1, ack1), flows: "1>10.0.0.2 established 900"},
			{note: "the end", at: 40 * s, edit: nothing, flows: "none"},
		}},
		{"flows end so long after the removal", lb.Policy{Drain: 30 * s}, []step{
			{note: "removed", at: 10 * s, edit: remove(rs2), in: fromClient(1, ack1), want: toServer(rs2, 1, ack1)},
			{note: "the end", at: 40 * s, edit: nothing, flows: "none"},
		}},
		{"flows of a real server that came back are left alone", lb.Policy{Drain: 30 * s}, []step{
			{note: "weight 0", at: 10 * s, edit: weight(rs2, 0)},
			{note: "weight 1", at: 20 * s, edit: weight(rs2, 1)},
			{note: "no end", at: 50 * s, edit: nothing, in: fromClient(1, ack1), want: toServer(rs2, 1, ack1)},
			{note: "weight 0", at: 60 * s, edit: weight(rs2, 0)},
			{note: "no end yet", at: 89 * s, edit: nothing, flows: "1>10.0.0.2 established 861"},
			{note: "the end", at: 90 * s, edit: nothing, flows: "none"},
		}},
		{"flows of one that came back after its end are left alone when another's end", lb.Policy{Drain: 30 * s}, []step{
			{note: "weight 0", at: 10 * s, edit: weight(rs2, 0)},
			{note: "the end", at: 40 * s, edit: nothing, flows: "none"},
			{note: "the other one", at: 41 * s, edit: nothing, in: fromClient(2, syn1), want: toServer(rs1, 2, syn1)},
			{note: "back", at: 41 * s, edit: weight(rs2, 1), in: fromClient(3, syn1), want: toServer(rs2, 3, syn1)},
			{note: "the other one's weight 0", at: 42 * s, edit: weight(rs1, 0)},
			{note: "its end", at: 72 * s, edit: nothing, flows: "3>10.0.0.2 syn_recv 29"},
		}},
		{"keep, for the time of the drain", lb.Policy{Removed: lb.RemovedKeep, Drain: 30 * s}, []step{
			{note: "data", at: 10 * s, edit: remove(rs2), in: fromClient(1, ack1), why: packet.ServerRemoved},
			{note: "the end", at: 40 * s, edit: nothing, flows: "none"},
		}},
		{"without a drain flows last", lb.Policy{}, []step{
			{note: "weight 0", at: 10 * s, edit: weight(rs2, 0)},
			{note: "data", at: 800 * s, edit: nothing, in: fromClient(1, ack1), want: toServer(rs2, 1, ack1)},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := lifeDirector("nat", tt.policy)
			play(t, d, append(established(d), tt.steps...))
		})
	}
}

// TestDrainLeavesOthersAlone drains one of two real servers with flows in
// many chunks of the table.
func TestDrainLeavesOthersAlone(t *testing.T) {
	d := lifeDirector("dr", lb.Policy{Drain: time.Second})
	c := d.config(t)
	b := startWith(t, c, lb.Options{Flows: 20_000})
	const flows = 10_000
	for i := range flows {
		handle(t, b, fromClient(1000+i, syn1), 0)
	}
	weight(rs2, 0)(&c)
	if err := b.Apply(c); err != nil {
		t.Fatal(err)
	}
	b.Tick(time.Second)
	b.Tick(2 * time.Second)
	servers := map[string]int{}
	for f := range b.Flows(2 * time.Second) {
		servers[f.Server.Endpoint.Addr.Netip(4).String()]++
	}
	if s := b.Stats(); len(servers) != 1 || servers[rs1] != flows/2 || s.Flows.Ended != flows/2 {
		t.Errorf("left %v, %d ended", servers, s.Flows.Ended)
	}
}

// TestStatsOfAServiceThatIsGone: it is told of as long as it has flows.
func TestStatsOfAServiceThatIsGone(t *testing.T) {
	d := lifeDirector("dr", lb.DefaultPolicy())
	c := d.config(t)
	b := startWith(t, c, lb.Options{Flows: 1000})
	handle(t, b, fromClient(1, syn1), 0)
	if gone := b.Stats().Gone; gone != nil {
		t.Errorf("before: %+v", gone)
	}
	c.Services = nil
	if err := b.Apply(c); err != nil {
		t.Fatal(err)
	}
	gone := b.Stats().Gone
	if len(gone) != 1 || gone[0].Name != "web" || len(gone[0].Listens) == 0 || len(gone[0].RealServers) != 1 {
		t.Fatalf("gone: %+v", gone)
	}
	rs := gone[0].RealServers[0]
	if want := (lb.Traffic{Flows: 1, RequestPackets: 1, RequestBytes: 40}); !rs.Removed || rs.ActiveFlows != 1 || rs.Traffic != want || gone[0].Traffic != want {
		t.Errorf("its real server: %+v", rs)
	}
	for at := time.Duration(0); at < 70*time.Second; at += time.Second / 4 {
		b.Tick(at)
	}
	if gone := b.Stats().Gone; gone != nil {
		t.Errorf("after its last flow: %+v", gone)
	}
}
