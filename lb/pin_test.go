package lb_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// TestPinnedFlows: a pinned tuple goes to its real server by the mode of the
// service, also where nobody else is sent there.
func TestPinnedFlows(t *testing.T) {
	const s = time.Second
	tuple := packettest.Parsed(t, fromClient(1, syn1)).Tuple
	for _, tt := range []struct {
		name   string
		policy lb.Policy
		edit   func(*lb.Config) // before
	}{
		{"one that is up", lb.Policy{}, nil},
		{"one of weight 0, whose new connections go elsewhere", lb.Policy{Removed: lb.RemovedReschedule}, weight(rs1, 0)},
		{"one that is down, whose flows are reset", lb.Policy{Down: lb.RemovedReset}, down(rs1)},
		{"one that is down, whose flows end", lb.Policy{Down: lb.RemovedReschedule}, down(rs1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := lifeDirector("nat", tt.policy)
			c := d.config(t)
			if tt.edit != nil {
				tt.edit(&c)
			}
			b := startWith(t, c, lb.Options{Flows: 1000})
			// A stranger has the tuple already, at the other real server.
			diff(t, "before", toServer(rs2, 1, syn1), handle(t, b, fromClient(1, syn1), 0).bytes)
			for i := range 3 {
				at := time.Duration(i) * s
				if err := b.Pin("web", netip.MustParseAddrPort(rs1+":8080"), tuple, at); err != nil {
					t.Fatal(err)
				}
				for _, step := range []struct{ in, want []byte }{
					{fromClient(1, syn1), toServer(rs1, 1, syn1)},
					{fromServer(rs1, 1, packettest.SYN, ack1), toClient(1, packettest.SYN, ack1)},
					{fromClient(1, ack1, psh1), toServer(rs1, 1, ack1, psh1)},
					{fromServer(rs1, 1, ack1, psh1), toClient(1, ack1, psh1)},
				} {
					diff(t, "pinned", step.want, handle(t, b, step.in, at).bytes)
					b.Tick(at)
				}
				b.Unpin(tuple, at)
				diff(t, "the reset that closes it", toServer(rs1, 1, packettest.RST, ack1), handle(t, b, fromClient(1, packettest.RST, ack1), at).bytes)
				b.Unpin(tuple, at)
				b.Unpin(tuple, at)
				if got := flowsOf(b, at); got != "none" {
					t.Errorf("afterwards: flows %s", got)
				}
				if got := handle(t, b, fromServer(rs1, 1, ack1), at); got.verdict != packet.Return {
					t.Errorf("afterwards a reply: %v", got.verdict)
				}
			}
			total := b.Stats().Total
			if want := (lb.Traffic{Flows: 1, RequestPackets: 1, RequestBytes: total.RequestBytes}); total.Traffic != want {
				t.Errorf("counted %+v, want the stranger's packet alone", total.Traffic)
			}
			if st := b.Stats().Flows; st.Created != st.Expired+st.Evicted+st.Ended+uint64(st.Now) {
				t.Errorf("the counts do not add up: %+v", st)
			}
		})
	}
}

func TestPinRefuses(t *testing.T) {
	b := lifeDirector("nat", lb.Policy{}).start(t)
	tuple := packettest.Parsed(t, fromClient(1, syn1)).Tuple
	if err := b.Pin("other", netip.MustParseAddrPort(rs1+":8080"), tuple, 0); err == nil {
		t.Error("pinned to a service that there is not")
	}
	if err := b.Pin("web", netip.MustParseAddrPort("10.0.0.9:8080"), tuple, 0); err == nil {
		t.Error("pinned to a real server that there is not")
	}
	b.Unpin(tuple, 0)
	if got := flowsOf(b, 0); got != "none" {
		t.Errorf("flows %s", got)
	}
}

func TestUnpinnedFlowsEnd(t *testing.T) {
	for _, tt := range []struct {
		name    string
		packets [][]byte
		flows   string // just after Unpin
	}{
		{"one that nobody answered within a second", [][]byte{fromClient(1, syn1)}, "1>" + rs1 + " syn_recv 1"},
		{"one that is not reset within a second", [][]byte{fromClient(1, syn1), fromServer(rs1, 1, packettest.SYN, ack1), fromClient(1, ack1)}, "1>" + rs1 + " established 1"},
		{"one that the check has reset at once", [][]byte{fromClient(1, syn1), fromServer(rs1, 1, packettest.SYN, ack1), fromClient(1, ack1), fromClient(1, packettest.RST, ack1)}, "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := lifeDirector("nat", lb.Policy{}).start(t)
			tuple := packettest.Parsed(t, fromClient(1, syn1)).Tuple
			if err := b.Pin("web", netip.MustParseAddrPort(rs1+":8080"), tuple, 0); err != nil {
				t.Fatal(err)
			}
			for _, in := range tt.packets {
				handle(t, b, in, 0)
			}
			if tt.flows == "none" {
				if got := flowsOf(b, 1100*time.Millisecond); got != "none" {
					t.Errorf("a second after the reset: flows %s", got)
				}
			}
			b.Unpin(tuple, 0)
			if got := flowsOf(b, 0); got != tt.flows {
				t.Errorf("flows %s, want %s", got, tt.flows)
			}
			if got := flowsOf(b, 1100*time.Millisecond); got != "none" {
				t.Errorf("a second later: flows %s", got)
			}
		})
	}
}
