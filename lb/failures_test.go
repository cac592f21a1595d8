package lb_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// TestFailures: what a real server's answers to SYNs say of it, and when
// somebody is told.
func TestFailures(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	type moment struct {
		at time.Duration
		in []byte // nil: no packet
	}
	request := func(at time.Duration, i int, o ...packettest.Option) moment { return moment{at, fromClient(i, o...)} }
	reply := func(at time.Duration, i int, o ...packettest.Option) moment {
		return moment{at, fromServer(rs1, i, o...)}
	}
	synAck := []packettest.Option{packettest.SYN, ack1}
	rst := packettest.Flags(packet.RST | packet.ACK)
	refused := func(at time.Duration, clients ...int) (all []moment) {
		for _, i := range clients {
			all = append(all, request(at, i, syn1), reply(at, i, rst))
		}
		return all
	}
	accepted := []moment{request(0, 99, syn1), reply(0, 99, synAck...)}
	tests := []struct {
		name    string
		policy  lb.Policy
		moments []moment
		want    lb.Failures
		told    []uint64 // the failures in a row of each report
	}{
		{"it accepts", lb.Policy{Failures: 1}, append(accepted, request(0, 99, ack1), reply(0, 99, ack1), request(61*s, 99, ack1)), lb.Failures{}, nil},
		{"it refuses", lb.Policy{Failures: 1}, refused(0, 1), lb.Failures{Refused: 1}, []uint64{1}},
		{"it refuses, and nobody asked to be told", lb.Policy{}, refused(0, 1), lb.Failures{Refused: 1}, nil},
		{"it refuses twice of three", lb.Policy{Failures: 3}, refused(0, 1, 2), lb.Failures{Refused: 2}, nil},
		{"a third time", lb.Policy{Failures: 3}, refused(0, 1, 2, 3), lb.Failures{Refused: 3}, []uint64{3}},
		{"three times with an accepted one between", lb.Policy{Failures: 3}, slices.Concat(refused(0, 1, 2), accepted, refused(0, 3, 4)), lb.Failures{Refused: 4}, nil},
		{"it recovers before anybody looks", lb.Policy{Failures: 2}, slices.Concat(refused(0, 1, 2), accepted), lb.Failures{Refused: 2}, nil},
		{"twice three times", lb.Policy{Failures: 3}, slices.Concat(refused(0, 1, 2, 3), []moment{{at: 100 * ms}}, refused(s, 4, 5, 6)), lb.Failures{Refused: 6}, []uint64{3, 3}},
		{"many at once are one report", lb.Policy{Failures: 3}, refused(0, 1, 2, 3, 4, 5, 6, 7), lb.Failures{Refused: 7}, []uint64{7}},
		{"the reset of an accepted connection", lb.Policy{Failures: 1}, append(accepted, request(0, 99, ack1), reply(0, 99, rst)), lb.Failures{}, nil},
		{"a connection that it accepted and gave up before the client's ACK", lb.Policy{Failures: 1}, append(accepted, reply(s, 99, rst)), lb.Failures{}, nil},
		{"the client resets", lb.Policy{Failures: 1}, append(accepted, request(0, 99, rst)), lb.Failures{}, nil},
		{"no answer within a second, and the client asks again", lb.Policy{Failures: 1}, []moment{request(0, 1, syn1), request(s, 1, syn1)}, lb.Failures{Unanswered: 1}, []uint64{1}},
		{"the client asks a third time: it was counted", lb.Policy{Failures: 1}, []moment{request(0, 1, syn1), request(s, 1, syn1), request(3*s, 1, syn1)}, lb.Failures{Unanswered: 1}, []uint64{1}},
		{"the client asks too soon to tell", lb.Policy{Failures: 1}, []moment{request(0, 1, syn1), request(500*ms, 1, syn1), request(s, 1, syn1), reply(s, 1, synAck...)}, lb.Failures{}, nil},
		{"answered, but the client asks again", lb.Policy{Failures: 1}, append(accepted, request(s, 99, syn1), request(3*s, 99, syn1)), lb.Failures{}, nil},
		{"no answer until the flow is over", lb.Policy{Failures: 1}, []moment{request(0, 1, syn1), {at: 62 * s}}, lb.Failures{Unanswered: 1}, []uint64{1}},
		{"others are answered before that", lb.Policy{Failures: 1}, append([]moment{request(0, 1, syn1), request(s, 99, syn1), reply(s, 99, synAck...)}, moment{at: 62 * s}), lb.Failures{Unanswered: 1}, nil},
		{"what was asked before a report is no news after it", lb.Policy{Failures: 2}, slices.Concat([]moment{request(0, 4, syn1), request(0, 5, syn1)}, refused(s, 1, 2), []moment{{at: s}, {at: 62 * s}}),
			lb.Failures{Refused: 2, Unanswered: 2}, []uint64{2}},
		{"no answer until the flow is over, which the client's next SYN shows", lb.Policy{Failures: 1}, []moment{request(0, 1, syn1), request(61*s, 1, syn1)}, lb.Failures{Unanswered: 1}, []uint64{1}},
		{"answered, but the client gives up", lb.Policy{Failures: 1}, append(accepted, moment{at: 62 * s}), lb.Failures{}, nil},
		{"the ACK of a client that has the answer from elsewhere", lb.Policy{Failures: 1}, []moment{request(0, 1, syn1), request(0, 1, ack1), request(s, 1, ack1), {at: 902 * s}}, lb.Failures{}, nil},
		{"refused again on the same port", lb.Policy{Failures: 2, Reuse: lb.ReuseClosed}, refused(0, 1, 1), lb.Failures{Refused: 2}, []uint64{2}},
		{"refused again in the same flow", lb.Policy{Failures: 2}, refused(0, 1, 1), lb.Failures{Refused: 2}, []uint64{2}},
		{"an ICMP error is no answer", lb.Policy{Failures: 1}, []moment{request(0, 1, syn1),
			{in: packettest.Error(rs1, cip4, unreachable4, port4, 0, toServer(rs1, 1, syn1)[:28])}}, lb.Failures{}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := lifeDirector("nat", tt.policy)
			d.realServers = d.realServers[:1]
			var told []uint64
			b := startWith(t, d.config(t), lb.Options{Flows: 1000, OnFailing: func(f lb.Failing) {
				if f.Service != "web" || f.Server != netip.MustParseAddrPort(rs1+":8080") {
					t.Errorf("told of %+v", f)
				}
				told = append(told, f.Row.All())
				if f.Row.Refused > 0 != (tt.want.Refused > 0) {
					t.Errorf("told of %+v", f)
				}
			}})
			at := time.Duration(0)
			for _, m := range tt.moments {
				if m.in != nil {
					handle(t, b, m.in, m.at)
				} else {
					b.SweepAll(m.at)
					b.Tick(m.at)
				}
				at = m.at
			}
			b.Tick(at)
			b.Tick(at)
			if got := b.Stats().Services[0].RealServers[0].Failures; got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
			if !slices.Equal(told, tt.told) {
				t.Errorf("told %v, want %v", told, tt.told)
			}
		})
	}
}

// TestFailuresAreNotSeen where replies do not cross the director, nor told of
// flows that a health check has pinned.
func TestFailuresAreNotSeen(t *testing.T) {
	for name, play := range map[string]func(*lb.Balancer){
		"dr": func(b *lb.Balancer) {
			handle(t, b, fromClient(1, syn1), 0)
			handle(t, b, fromClient(1, syn1), time.Second)
		},
		"nat": func(b *lb.Balancer) {
			tuple := packettest.Parsed(t, fromClient(1, syn1)).Tuple
			if err := b.Pin("web", netip.MustParseAddrPort(rs1+":8080"), tuple, 0); err != nil {
				t.Fatal(err)
			}
			handle(t, b, fromClient(1, syn1), 0)
			handle(t, b, fromClient(1, syn1), time.Second)
			handle(t, b, fromServer(rs1, 1, packettest.RST), time.Second)
		},
	} {
		d := lifeDirector(name, lb.Policy{Failures: 1})
		b := startWith(t, d.config(t), lb.Options{Flows: 1000, OnFailing: func(f lb.Failing) { t.Errorf("%s: told of %+v", name, f) }})
		play(b)
		b.SweepAll(time.Hour)
		b.Tick(time.Hour)
		for _, rs := range b.Stats().Services[0].RealServers {
			if rs.Failures != (lb.Failures{}) {
				t.Errorf("%s: %+v", name, rs.Failures)
			}
		}
	}
}
