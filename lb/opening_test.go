package lb_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// TestSYNOnAnOldFlow is what the kernel's IPVS does (vectors reuse0_*, reuse1_*,
// reuse2_* and *_nodest): a new flow goes to the other real server.
func TestSYNOnAnOldFlow(t *testing.T) {
	syn, ack, fin, rst := packettest.SYN, packettest.Ack(7), packettest.FIN, packettest.RST
	type way struct {
		mode, state string
		from        []packettest.Option // the client's
		then        func(rip string, i int, o ...packettest.Option) []byte
		reply       packettest.Option // and one of the real server's; nil: none
	}
	states := []way{
		{"dr", "syn_recv", []packettest.Option{syn}, nil, nil},
		{"dr", "established", []packettest.Option{syn, ack}, nil, nil},
		{"dr", "fin_wait", []packettest.Option{syn, ack, fin}, nil, nil},
		{"dr", "time_wait", []packettest.Option{syn, fin}, nil, nil},
		{"dr", "close", []packettest.Option{syn, ack, rst}, nil, nil},
		{"nat", "established", []packettest.Option{syn, ack}, nil, nil},
		{"nat", "fin_wait", []packettest.Option{syn, ack}, fromServer, fin},
		{"nat", "close_wait", []packettest.Option{syn, ack, fin}, nil, nil},
		{"nat", "time_wait", []packettest.Option{syn, ack, fin}, fromServer, fin},
		{"nat", "close", []packettest.Option{syn, ack}, fromServer, rst},
	}
	policies := []struct {
		name   string
		policy lb.Policy
		weight int
		anew   string // the states in which a SYN opens a new flow; "all" of them
	}{
		{"mode 0", lb.Policy{}, 1, ""},
		{"mode 1", lb.Policy{Reuse: lb.ReuseClosed}, 1, "time_wait close"},
		{"mode 2", lb.Policy{Reuse: lb.ReuseFinWait}, 1, "time_wait close dr/fin_wait"},
		{"mode 3", lb.Policy{Reuse: lb.ReuseClosed | lb.ReuseFinWait}, 1, "time_wait close dr/fin_wait"},
		{"weight 0", lb.Policy{}, 0, ""},
		{"weight 0, expire_nodest_conn", lb.Policy{Removed: lb.RemovedReschedule}, 0, "all"},
	}
	for _, p := range policies {
		for _, s := range states {
			t.Run(p.name+" "+s.mode+" "+s.state, func(t *testing.T) {
				d := lifeDirector(s.mode, p.policy)
				c := d.config(t)
				b := startWith(t, c, lb.Options{Flows: 100})
				for _, o := range s.from {
					handle(t, b, fromClient(1, o), 0)
				}
				if s.reply != nil {
					handle(t, b, s.then(rs2, 1, s.reply), 0)
				}
				if got := flowsOf(b, 0); !strings.Contains(got, ">10.0.0.2 "+s.state+" ") {
					t.Fatalf("the flow is %s, want it in %s", got, s.state)
				}
				weight(rs2, p.weight)(&c)
				if err := b.Apply(c); err != nil {
					t.Fatal(err)
				}
				want := rs2
				if anew := strings.Fields(p.anew); p.anew == "all" || slices.Contains(anew, s.state) || slices.Contains(anew, s.mode+"/"+s.state) {
					want = rs1
				}
				got := handle(t, b, fromClient(1, syn), time.Second)
				if got.verdict != packet.Send {
					t.Fatalf("%v, %v", got.verdict, got.reason)
				}
				if addr, family := got.p.Destination(); addr.Netip(family).String() != want {
					t.Errorf("the SYN went to %v, want %s", addr.Netip(family), want)
				}
				if now := flowsOf(b, time.Second); strings.Contains(now, ",") {
					t.Errorf("more than one flow: %s", now)
				}
			})
		}
	}
}

// TestSloppy: what opens a flow in mid-stream.
func TestSloppy(t *testing.T) {
	cookieAbort := packettest.SCTP(client4, web4, 10, packettest.Data("\x06\x00\x00\x04"))
	cookieAbort[20+12+3] = 4 // the length of the first chunk
	cookieAbort = packettest.Mend(cookieAbort)
	tests := []struct {
		name  string
		in    []byte
		state string // of the flow; "": none
		what  packet.Verdict
		why   packet.Reason
	}{
		{"an ACK", fromClient(1, ack1), "established", packet.Send, packet.OK},
		{"a SYN", fromClient(1, syn1), "syn_recv", packet.Send, packet.OK},
		{"a FIN alone closes", fromClient(1, packettest.Flags(packet.FIN)), "close", packet.Send, packet.OK},
		{"no flags close", fromClient(1, packettest.Flags(0)), "close", packet.Send, packet.OK},
		{"a RST opens nothing", fromClient(1, packettest.RST), "", packet.Pass, packet.NotSYN},
		{"a RST with SYN neither", fromClient(1, packettest.Flags(packet.RST|packet.SYN)), "", packet.Pass, packet.NotSYN},
		{"half a TCP header neither", packettest.Cut(fromClient(1, ack1), 30), "", packet.Drop, packet.NotSYN},
		{"SCTP data", packettest.SCTP(client4, web4, 0, packettest.Pad(16)), "established", packet.Send, packet.OK},
		{"an SCTP cookie with an ABORT behind it", cookieAbort, "closed", packet.Send, packet.OK},
		{"SCTP abort opens nothing", packettest.SCTP(client4, web4, 6), "", packet.Pass, packet.NotSYN},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, sloppy := range []bool{true, false} {
				b := lifeDirector("dr", lb.Policy{Sloppy: sloppy}).start(t)
				got := handle(t, b, tt.in, 0)
				flows := flowsOf(b, 0)
				if sloppy {
					if got.verdict != tt.what || got.reason != tt.why {
						t.Errorf("%v, %v; want %v, %v", got.verdict, got.reason, tt.what, tt.why)
					}
					if tt.state != "" && !strings.Contains(flows, " "+tt.state+" ") || tt.state == "" && flows != "none" {
						t.Errorf("flows %s, want %q", flows, tt.state)
					}
				} else if got.verdict == packet.Send && tt.state != "syn_recv" {
					t.Errorf("without sloppy: %v", flows)
				}
			}
		})
	}
}

// TestAnyDirectorTakesAFlowInMidStream has two directors with the same
// configuration, one of which sees a connection's beginning and the other, after
// the router has turned to it, the rest.
func TestAnyDirectorTakesAFlowInMidStream(t *testing.T) {
	for _, scheduler := range []string{"maglev", "mh"} {
		for _, mode := range []string{"dr", "nat", "tun"} {
			t.Run(scheduler+" "+mode, func(t *testing.T) {
				port := ":80"
				if mode == "nat" {
					port = ":8080"
				}
				d := director{mode: mode, policy: &lb.Policy{Sloppy: true}}
				for i := range 10 {
					d.realServers = append(d.realServers, fmt.Sprintf("10.0.1.%d%s", i, port))
				}
				var directors [2]*lb.Balancer
				for i := range directors {
					if scheduler == "maglev" { // mh minds the order a little, as in IPVS
						slices.Reverse(d.realServers)
					}
					c := d.config(t)
					var err error
					if c.Services[0].Scheduler, err = sched.New(scheduler, sched.Options{}); err != nil {
						t.Fatal(err)
					}
					directors[i] = startWith(t, c, lb.Options{Flows: 10_000})
				}
				used := map[string]bool{}
				for i := range 200 {
					client := fmt.Sprintf("198.51.100.%d:%d", i%250+1, 1024+i)
					var to [2]string
					for j, o := range []packettest.Option{syn1, ack1} {
						got := handle(t, directors[j], packettest.TCP(client, web4, o), 0)
						if got.verdict != packet.Send {
							t.Fatalf("%v, %v", got.verdict, got.reason)
						}
						addr, family := got.p.Destination()
						to[j] = addr.Netip(family).String()
					}
					if to[0] != to[1] {
						t.Errorf("%s: the first director chose %s, the second %s", client, to[0], to[1])
					}
					used[to[0]] = true
				}
				if len(used) < 8 {
					t.Errorf("only %d real servers were used", len(used))
				}
			})
		}
	}
}

// TestOnePacket follows IPVS (vectors ops_*): each datagram by itself, counted,
// and no way back.
func TestOnePacket(t *testing.T) {
	datagram := packettest.UDP("198.51.100.7:1", web4)
	b := lifeDirector("nat", lb.Policy{OnePacket: true}).start(t)
	for i, rip := range []string{rs2, rs1, rs2} {
		got := handle(t, b, datagram, 0)
		if got.verdict != packet.Send {
			t.Fatalf("datagram %d: %v, %v", i, got.verdict, got.reason)
		}
		diff(t, fmt.Sprintf("datagram %d", i), packettest.UDP("198.51.100.7:1", rip+":8080"), got.bytes)
	}
	if got := handle(t, b, packettest.UDP(rs2+":8080", "198.51.100.7:1"), 0); got.verdict != packet.Return {
		t.Errorf("a reply: %v, %v", got.verdict, got.reason)
	}
	if got := flowsOf(b, 0); got != "none" {
		t.Errorf("flows: %s", got)
	}
	s := b.Stats().Services[0]
	if want := (lb.Traffic{Flows: 3, RequestPackets: 3, RequestBytes: 84}); s.Traffic != want {
		t.Errorf("counted %+v, want %+v", s.Traffic, want)
	}
	for _, rs := range s.RealServers {
		if rs.ActiveFlows+rs.InactiveFlows != 0 {
			t.Errorf("%v has %d active and %d inactive flows", rs.Endpoint, rs.ActiveFlows, rs.InactiveFlows)
		}
	}
	// TCP of the same service has flows.
	handle(t, b, fromClient(1, syn1), 0)
	if got := flowsOf(b, 0); got != "1>10.0.0.1 syn_recv 60" {
		t.Errorf("flows: %s", got)
	}
}
