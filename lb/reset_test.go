package lb_test

import (
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// emitted collects what a Balancer sends by itself.
type emitted struct {
	packets [][]byte
	hops    []string
	full    bool
}

func (e *emitted) emit(p *packet.Packet) bool {
	if e.full {
		return false
	}
	hop := ""
	if p.NextHop.Family != 0 {
		hop = p.NextHop.Addr.Netip(p.NextHop.Family).String()
	}
	e.packets, e.hops = append(e.packets, append([]byte(nil), p.Bytes()...)), append(e.hops, hop)
	return true
}

// rst is the reset of a connection, with the numbers of the rows below.
func rst(src, dst string, seq, ack uint32) []byte {
	return packettest.TCP(src, dst, packettest.Flags(packet.RST|packet.ACK), packettest.Seq(seq), packettest.Ack(ack), packettest.Window(0), packettest.DF)
}

// TestIdleConnectionIsResetAtBothEnds has a connection in each mode, whose
// client has sent up to 1110 and expects 5000.
func TestIdleConnectionIsResetAtBothEnds(t *testing.T) {
	policy := lb.Policy{ResetExpired: true}
	tests := []struct {
		name        string
		mode        string
		tunnel      modes.Tunnel
		rs          string
		client, vip string
		server      func(local string) []byte // what the real server gets; local is LIP:lport
		hop         string
	}{
		{name: "nat", mode: "nat", rs: mapped4, client: client4, vip: web4,
			server: func(string) []byte { return rst(client4, mapped4, 1110, 5000) }},
		{name: "nat over IPv6", mode: "nat", rs: mapped6, client: client6, vip: web6,
			server: func(string) []byte { return rst(client6, mapped6, 1110, 5000) }},
		{name: "dr", mode: "dr", rs: rs4, client: client4, vip: web4, hop: rip4,
			server: func(string) []byte { return rst(client4, web4, 1110, 5000) }},
		{name: "tun", mode: "tun", rs: rs4, client: client4, vip: web4,
			server: func(string) []byte {
				return packettest.IP(dip4, rip4, 4, rst(client4, web4, 1110, 5000), packettest.DF)
			}},
		{name: "fullnat between families", mode: "fullnat", rs: mapped6, client: client4, vip: web4,
			server: func(local string) []byte { return rst(local, mapped6, 1110, 5000) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := director{mode: tt.mode, realServers: []string{tt.rs}, tunnel: tt.tunnel, policy: &policy}
			var out emitted
			b := startWith(t, d.config(t), lb.Options{Flows: 1000, Emit: out.emit})
			send := func(o ...packettest.Option) result {
				return handle(t, b, packettest.TCP(tt.client, tt.vip, o...), 0)
			}
			send(packettest.SYN, packettest.Seq(999))
			first := send(packettest.Seq(1000), packettest.Ack(4000))
			send(packettest.Seq(1100), packettest.Ack(5000), packettest.Pad(10))
			send(packettest.Seq(1000), packettest.Ack(4500), packettest.Pad(100)) // sent again, late

			b.Tick(899 * time.Second)
			if len(out.packets) != 0 {
				t.Fatalf("reset before its time: %s", packettest.Dump(out.packets[0]))
			}
			for at := 901 * time.Second; at < 905*time.Second; at += time.Second / 16 {
				b.Tick(at)
			}
			if len(out.packets) != 2 {
				t.Fatalf("%d packets emitted, want 2", len(out.packets))
			}
			local := ""
			if tt.mode == "fullnat" {
				local = localOf(t, first.bytes)
			}
			diff(t, "to the real server", sameIdent(tt.server(local), out.packets[0]), out.packets[0])
			diff(t, "to the client", rst(tt.vip, tt.client, 5000, 1110), out.packets[1])
			if out.hops[0] != tt.hop || out.hops[1] != "" {
				t.Errorf("next hops %q, want %q and none", out.hops, tt.hop)
			}
			for f := range b.Flows(905 * time.Second) {
				if f.State != lb.TCPClose {
					t.Errorf("afterwards the flow is in %v", f.State)
				}
			}
			for at := 910 * time.Second; at < 916*time.Second; at += time.Second / 16 {
				b.Tick(at)
			}
			if s := b.Stats(); s.Flows.Now != 0 || s.Flows.Resets != 2 || s.Flows.ResetsLost != 0 || len(out.packets) != 2 {
				t.Errorf("at the end %+v, %d packets emitted", s.Flows, len(out.packets))
			}
		})
	}
}

// TestWhatIsNotReset: flows of whose end nobody is told.
func TestWhatIsNotReset(t *testing.T) {
	ack := packettest.Ack(7)
	tests := []struct {
		name   string
		policy lb.Policy
		in     [][]byte
	}{
		{"without the policy", lb.Policy{}, [][]byte{fromClient(1, syn1), fromClient(1, ack)}},
		{"a SYN that nobody answered", lb.Policy{ResetExpired: true}, [][]byte{fromClient(1, syn1)}},
		{"a connection that was closed by both ends", lb.Policy{ResetExpired: true},
			[][]byte{fromClient(1, syn1), fromClient(1, ack), fromClient(1, packettest.FIN), fromServer(rs2, 1, packettest.FIN)}},
		{"a connection that was reset", lb.Policy{ResetExpired: true},
			[][]byte{fromClient(1, syn1), fromClient(1, ack), fromServer(rs2, 1, packettest.RST)}},
		{"a later SYN of which no ACK was seen", lb.Policy{ResetExpired: true},
			[][]byte{fromClient(1, syn1), fromClient(1, ack), fromClient(1, syn1)}},
		{"UDP", lb.Policy{ResetExpired: true}, [][]byte{packettest.UDP(client4, web4)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := lifeDirector("nat", tt.policy)
			var out emitted
			b := startWith(t, d.config(t), lb.Options{Flows: 1000, Emit: out.emit})
			for _, in := range tt.in {
				handle(t, b, in, 0)
			}
			for at := time.Duration(0); at < 910*time.Second; at += time.Second {
				b.Tick(at)
			}
			if n := b.Stats().Flows.Now; n != 0 || len(out.packets) != 0 {
				t.Errorf("%d flows left, %d packets emitted", n, len(out.packets))
			}
		})
	}
}

// TestConnectionsOfARemovedRealServerAreReset in the background, and those whose
// ends missed it as soon as they send.
func TestConnectionsOfARemovedRealServerAreReset(t *testing.T) {
	for name, full := range map[string]bool{"told": false, "no room to tell": true} {
		t.Run(name, func(t *testing.T) {
			d := lifeDirector("nat", lb.Policy{Removed: lb.RemovedReset})
			c := d.config(t)
			out := emitted{full: full}
			b := startWith(t, c, lb.Options{Flows: 1000, Emit: out.emit})
			handle(t, b, fromClient(1, syn1, packettest.Seq(99)), 0)
			handle(t, b, fromClient(1, packettest.Seq(100), packettest.Ack(7)), 0)
			remove(rs2)(&c)
			if err := b.Apply(c); err != nil {
				t.Fatal(err)
			}
			b.Tick(time.Second)
			want := [][]byte{rst("198.51.100.7:1", rs2+":8080", 100, 7), rst(web4, "198.51.100.7:1", 7, 100)}
			if full {
				want = nil
			}
			if len(out.packets) != len(want) {
				t.Fatalf("%d packets emitted, want %d", len(out.packets), len(want))
			}
			for i := range want {
				diff(t, "reset", want[i], out.packets[i])
			}
			if s := b.Stats().Flows; s.Ended != 1 || s.Resets+s.ResetsLost != 2 || s.ResetsLost != 0 != full {
				t.Errorf("counted %+v", s)
			}
			got := handle(t, b, fromClient(1, ack1), 2*time.Second)
			if got.verdict != packet.Send || got.reason != packet.ServerRemoved {
				t.Fatalf("the client's next packet: %v, %v", got.verdict, got.reason)
			}
			diff(t, "answer", sameIdent(rstOf(toClient, 1), got.bytes), got.bytes)
		})
	}
}

// TestResetsOfManyConnections has more connections end at once than are noted
// while a lock is held.
func TestResetsOfManyConnections(t *testing.T) {
	const flows = 5000
	d := lifeDirector("dr", lb.Policy{ResetExpired: true, Drain: time.Second})
	c := d.config(t)
	var out emitted
	b := startWith(t, c, lb.Options{Flows: 10_000, Emit: out.emit})
	for i := range flows {
		handle(t, b, fromClient(1000+i, syn1), 0)
		handle(t, b, fromClient(1000+i, ack1), 0)
	}
	weight(rs2, 0)(&c)
	if err := b.Apply(c); err != nil {
		t.Fatal(err)
	}
	b.Tick(time.Second)
	b.Tick(2 * time.Second)
	if len(out.packets) != flows {
		t.Errorf("at the end of the drain %d packets, want two for each of %d connections", len(out.packets), flows/2)
	}
	for at := 895 * time.Second; at < 915*time.Second; at += time.Second / 16 {
		b.Tick(at)
	}
	if s := b.Stats().Flows; len(out.packets) != 2*flows || s.Now != 0 || s.Resets != 2*flows {
		t.Errorf("in the end %d packets for %d connections, %+v", len(out.packets), flows, s)
	}
}
