//go:build !race

package lb_test

import (
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// TestHandleNoAllocs: neither a packet of a known flow nor a new flow costs an
// allocation.
func TestHandleNoAllocs(t *testing.T) {
	persistent, bySIP := natDirector, natDirector
	persistent.persistence = everyAddress(time.Minute)
	bySIP.persistence = lb.Persistence{Timeout: time.Minute, Engine: lb.SIPEngine}
	tests := []struct {
		name    string
		d       director
		request []byte
		reply   []byte // nil: answered directly
	}{
		{"dr IPv4", drDirector, packettest.UDP(client4, web4), nil},
		{"dr IPv6", drDirector, packettest.UDP(client6, web6), nil},
		{"nat IPv4", natDirector, packettest.UDP(client4, web4), packettest.UDP(mapped4, client4)},
		{"nat IPv6", natDirector, packettest.UDP(client6, web6), packettest.UDP(mapped6, client6)},
		{"tun IPv4", director{mode: "tun", realServers: []string{rs4}}, packettest.UDP(client4, web4), nil},
		{"tun IPv6", director{mode: "tun", realServers: []string{rs6}}, packettest.UDP(client6, web6), nil},
		{"tun IPv6 in IPv4", director{mode: "tun", realServers: []string{rs4}}, packettest.UDP(client6, web6), nil},
		{"fullnat IPv4", director{mode: "fullnat", realServers: []string{mapped4}}, packettest.UDP(client4, web4), nil},
		{"fullnat IPv6", director{mode: "fullnat", realServers: []string{mapped6}}, packettest.UDP(client6, web6), nil},
		{"fullnat IPv6 to IPv4", director{mode: "fullnat", realServers: []string{mapped4}}, packettest.UDP(client6, web6), nil},
		{"persistent IPv4", persistent, packettest.UDP(client4, web4), packettest.UDP(mapped4, client4)},
		{"persistent IPv6", persistent, packettest.UDP(client6, web6), packettest.UDP(mapped6, client6)},
		{"persistent by SIP", bySIP, sip(client4, web4, "a@b"), sip(mapped4, client4, "a@b")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.d.start(t)
			opened := handle(t, b, tt.request, 0)
			if tt.d.mode == "fullnat" {
				local := localOf(t, opened.bytes)
				tt.reply = packettest.UDP(tt.d.realServers[0], local)
			}
			inputs := [][]byte{tt.request}
			if tt.reply != nil {
				inputs = append(inputs, tt.reply)
			}
			now := time.Duration(0)
			for i, in := range inputs {
				batch := make([]packet.Packet, 1)
				p := &batch[0]
				buf := make([]byte, packet.Headroom+packet.MaxSize)
				q := b.Queue(0)
				for name, step := range map[string]time.Duration{"known": 0, "new": time.Hour} {
					if i == 1 && name == "new" {
						continue // a reply opens no flow
					}
					if n := testing.AllocsPerRun(100, func() {
						now += step
						n := copy(buf[packet.Headroom:], in)
						p.Reset(buf, packet.Headroom, packet.Headroom+n)
						p.Parse()
						q.Prepare(batch)
						if v, why := q.Handle(p, now); v != packet.Send {
							t.Fatalf("%s flow, packet %d: %v, %v", name, i, v, why)
						}
					}); n != 0 {
						t.Errorf("%s flow, packet %d: %v allocations", name, i, n)
					}
				}
				handle(t, b, tt.request, now) // for the reply's turn
			}
		})
	}
}
