package lb_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// TestIPsecFollowsTheExchangeOfItsKeys sends ESP and AH, each behind packets by
// which client and real server agree on keys.
func TestIPsecFollowsTheExchangeOfItsKeys(t *testing.T) {
	const (
		client, vip, rs = cip4 + ":500", vip4 + ":500", rip4 + ":500"
		router4         = "198.51.100.1"
		esp, ah         = packet.ESP, packet.AH
	)
	nat := director{mode: "nat", realServers: []string{rs}, port: 500}
	nat6 := director{mode: "nat", realServers: []string{"[" + rip6 + "]:500"}, port: 500}
	mapped := director{mode: "nat", realServers: []string{rip4 + ":4500"}, port: 500}
	full := director{mode: "fullnat", realServers: []string{rs}, port: 500}
	keys := packettest.UDP(client, vip)
	body := []byte{0, 0, 1, 2, 0, 0, 0, 1, 6, 7, 8, 9}
	tests := []struct {
		name    string
		d       director
		open    []byte // nil: none
		in      []byte
		verdict packet.Verdict
		why     packet.Reason
		want    []byte // nil: as it came
	}{
		{"nat: ESP", nat, keys, packettest.IP(cip4, vip4, esp, body), packet.Send, packet.OK, packettest.IP(cip4, rip4, esp, body)},
		{"nat: AH", nat, keys, packettest.IP(cip4, vip4, ah, body), packet.Send, packet.OK, packettest.IP(cip4, rip4, ah, body)},
		{"nat: ESP over IPv6", nat6, packettest.UDP("["+cip6+"]:500", "["+vip6+"]:500"),
			packettest.IP(cip6, vip6, esp, body), packet.Send, packet.OK, packettest.IP(cip6, rip6, esp, body)},
		{"nat: an answer", nat, keys, packettest.IP(rip4, cip4, esp, body), packet.Send, packet.OK, packettest.IP(vip4, cip4, esp, body)},
		{"nat: an error about an answer", nat, keys, packettest.Error(router4, vip4, 3, 4, 1400, packettest.IP(vip4, cip4, esp, body)),
			packet.Send, packet.OK, packettest.Error(router4, rip4, 3, 4, 1400, packettest.IP(rip4, cip4, esp, body))},
		{"dr", director{mode: "dr", realServers: []string{rs}, port: 500}, keys, packettest.IP(cip4, vip4, esp, body), packet.Send, packet.OK, nil},

		{"before the keys it is the host's", nat, nil, packettest.IP(cip4, vip4, esp, body), packet.Pass, packet.NoService, nil},
		{"another client's is the host's", nat, keys, packettest.IP("198.51.100.8", vip4, esp, body), packet.Pass, packet.NoService, nil},
		{"keys from another port are no sign", nat, packettest.UDP(cip4+":501", vip), packettest.IP(cip4, vip4, esp, body), packet.Pass, packet.NoService, nil},
		{"an answer of a real server with another port is the host's", mapped, keys, packettest.IP(rip4, cip4, esp, body), packet.Return, packet.OK, nil},
		{"fullnat: nothing would tell whose an answer is", full, keys, packettest.IP(cip4, vip4, esp, body), packet.Pass, packet.NoService, nil},
		{"neither ESP nor AH", nat, keys, packettest.IP(cip4, vip4, 47, body), packet.Pass, packet.NoService, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.d.start(t)
			if tt.open != nil {
				handle(t, b, tt.open, 0)
			}
			p := packettest.Parsed(t, bytes.Clone(tt.in))
			v, why := b.Queue(0).Handle(p, time.Second)
			if v != tt.verdict || why != tt.why {
				t.Fatalf("%v, %v; want %v, %v", v, why, tt.verdict, tt.why)
			}
			want := tt.want
			if want == nil {
				want = tt.in
			}
			diff(t, "packet", want, p.Bytes())
		})
	}
}

// TestIPsecKeepsTheFlowOfItsKeys sends ESP often enough that the flow outlives
// the time that it has without packets; errors about it do not count.
func TestIPsecKeepsTheFlowOfItsKeys(t *testing.T) {
	esp := packettest.IP(cip4, vip4, packet.ESP, make([]byte, 16))
	for _, tt := range []struct {
		name    string
		in      []byte
		verdict packet.Verdict
	}{
		{"by its packets", esp, packet.Send},
		{"not by errors", packettest.Error("198.51.100.1", vip4, 11, 0, 0, packettest.IP(vip4, cip4, packet.ESP, make([]byte, 16))), packet.Pass},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := director{mode: "nat", realServers: []string{rip4 + ":500"}, port: 500}.start(t)
			handle(t, b, packettest.UDP(cip4+":500", vip4+":500"), 0)
			handle(t, b, tt.in, 200*time.Second)
			if got := handle(t, b, esp, 400*time.Second); got.verdict != tt.verdict {
				t.Errorf("%v, want %v", got.verdict, tt.verdict)
			}
		})
	}
}
