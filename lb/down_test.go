package lb_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// down and up are what health checks make of a real server.
func down(rip string) func(*lb.Config) { return setDown(rip, true, 0) }
func up(rip string) func(*lb.Config)   { return setDown(rip, false, 1) }

func setDown(rip string, isDown bool, weight int) func(*lb.Config) {
	return func(c *lb.Config) {
		for i := range c.Services[0].RealServers {
			if rs := &c.Services[0].RealServers[i]; rs.Address.Addr().String() == rip {
				rs.Down, rs.Weight = isDown, weight
			}
		}
	}
}

func TestDownRealServer(t *testing.T) {
	const s = time.Second
	policy := func(r lb.Removed) lb.Policy { return lb.Policy{Reuse: lb.ReuseClosed, Down: r} }
	tests := []struct {
		name   string
		mode   string
		policy lb.Policy
		steps  []step
	}{
		{"reset: whoever sends is reset, and the others are left alone", "nat", policy(lb.RemovedReset), []step{
			{note: "another client", in: fromClient(2, syn1), want: toServer(rs1, 2, syn1)},
			{note: "data", at: 10 * s, edit: down(rs2), in: fromClient(1, ack1), want: rstOf(toClient, 1), why: packet.ServerRemoved},
			{note: "data again", at: 10 * s, in: fromClient(1, ack1), want: rstOf(toClient, 1), why: packet.ServerRemoved},
			{note: "reply", at: 10 * s, in: fromServer(rs2, 1, ack1), why: packet.ServerRemoved,
				want: packettest.TCP(fmt.Sprint(cip4, ":", 1), rs2+":8080", packettest.Flags(packet.RST), packettest.Seq(7), packettest.Window(0))},
			{note: "another client's data", at: 10 * s, in: fromClient(2, ack1), want: toServer(rs1, 2, ack1)},
			{note: "SYN", at: 10 * s, in: fromClient(1, syn1), want: toServer(rs1, 1, syn1)},
			{note: "a new client", at: 10 * s, in: fromClient(3, syn1), want: toServer(rs1, 3, syn1)},
		}},
		{"reset, in dr", "dr", policy(lb.RemovedReset), []step{
			{note: "data", at: 10 * s, edit: down(rs2), in: fromClient(1, ack1), want: rstOf(toClient, 1), why: packet.ServerRemoved},
		}},
		{"reset: what nobody used meanwhile goes on when the real server is back", "nat", policy(lb.RemovedReset), []step{
			{note: "down", at: 10 * s, edit: down(rs2), flows: "1>10.0.0.2 established 890"},
			{note: "up", at: 20 * s, edit: up(rs2), in: fromClient(1, ack1), want: toServer(rs2, 1, ack1), flows: "1>10.0.0.2 established 900"},
		}},
		{"serve: its flows go on, new ones go elsewhere", "nat", policy(lb.RemovedServe), []step{
			{note: "data", at: 10 * s, edit: down(rs2), in: fromClient(1, ack1), want: toServer(rs2, 1, ack1)},
			{note: "new", at: 10 * s, in: fromClient(2, syn1), want: toServer(rs1, 2, syn1)},
		}},
		{"keep: requests vanish, and go on when it is back", "nat", policy(lb.RemovedKeep), []step{
			{note: "data", at: 10 * s, edit: down(rs2), in: fromClient(1, ack1), why: packet.ServerRemoved},
			{note: "data", at: 20 * s, edit: up(rs2), in: fromClient(1, ack1), want: toServer(rs2, 1, ack1)},
		}},
		{"reschedule: flows end at once", "nat", policy(lb.RemovedReschedule), []step{
			{note: "down", at: 10 * s, edit: down(rs2), flows: "none"},
			{note: "SYN", at: 10 * s, in: fromClient(1, syn1), want: toServer(rs1, 1, syn1)},
		}},
		{"with resets of removed ones too, both ends are told at once", "nat", lb.Policy{Reuse: lb.ReuseClosed, Removed: lb.RemovedReset, Down: lb.RemovedReset}, []step{
			{note: "data", at: 1 * s, in: fromClient(1, ack1, psh1), want: toServer(rs2, 1, ack1, psh1)},
			{note: "down", at: 10 * s, edit: down(rs2), flows: "1>10.0.0.2 close 10"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := lifeDirector(tt.mode, tt.policy)
			play(t, d, append(established(d), tt.steps...))
		})
	}
}

// TestAServerThatGoesDownTakesItsFlowsFromTheLane: they have to come up to be
// reset.
func TestAServerThatGoesDownTakesItsFlowsFromTheLane(t *testing.T) {
	for how, want := range map[lb.Removed]int{lb.RemovedServe: 0, lb.RemovedReset: 1} {
		b, lane, c := startLane(t, func(s *lb.ServiceConfig) { s.Policy.Down = how })
		talk(t, b, 0)
		if len(lane.flows) == 0 {
			t.Fatal("nothing was offered")
		}
		before := lane.invalidated
		for i := range c.Services[0].RealServers {
			c.Services[0].RealServers[i].Down, c.Services[0].RealServers[i].Weight = true, 0
		}
		if err := b.UpdateService(c.Services[0]); err != nil {
			t.Fatal(err)
		}
		if got := lane.invalidated - before; got != want {
			t.Errorf("%v: taken back %d times, want %d", how, got, want)
		}
		talk(t, b, time.Second)
		if got := len(lane.flows) == 0; got != (how == lb.RemovedReset) {
			t.Errorf("%v: flows of a real server that is down in the lane: %v", how, lane.flows)
		}
	}
}
