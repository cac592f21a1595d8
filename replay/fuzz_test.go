package replay_test

import (
	"testing"
	"time"

	"github.com/uvs-project/uvs/packet/packettest"
	"github.com/uvs-project/uvs/replay"
)

// FuzzInject lets a Director with a service of each kind take any packet: it
// must not panic, and what it sends must be an IP packet with a sound header.
func FuzzInject(f *testing.F) {
	const client, vip, client6, vip6 = "198.51.100.7:40000", "192.0.2.10:80", "[2001:db8:9::7]:40000", "[2001:db8:ff::10]:80"
	for _, seed := range [][]byte{
		packettest.TCP(client, vip, packettest.SYN),
		packettest.TCP("10.2.0.11:80", client, packettest.SYNACK),
		packettest.UDP(client, "192.0.2.10:53", packettest.Pad(1400)),
		packettest.TCP(client6, vip6, packettest.SYN),
		packettest.UDP(client6, "[2001:db8:ff::10]:9", packettest.Pad(8)),
		packettest.Echo("198.51.100.7", "192.0.2.10"),
		packettest.Error("10.9.9.9", "192.0.2.10", 3, 4, 1300, packettest.TCP(vip, client)),
		packettest.Error("10.9.9.9", "10.2.0.1", 3, 4, 1300, packettest.UDP("10.2.0.1:9", "10.2.0.12:6080", packettest.Pad(64))),
	} {
		f.Add(seed, uint8(0))
	}
	topology := replay.Topology{
		Legs: []replay.Leg{
			{Name: "cli", MTU: 1500, Addrs: []string{"10.1.0.1/24", "2001:db8:1::1/64"}, Neigh: map[string]string{"10.1.0.254": "router", "2001:db8:1::fe": "router"}},
			{Name: "srv", MTU: 1400, Addrs: []string{"10.2.0.1/24", "2001:db8:2::1/64"}, Neigh: map[string]string{"10.2.0.11": "rs1", "2001:db8:2::11": "rs1"}},
		},
		LocalAddrs: []string{"192.0.2.10/32", "2001:db8:ff::10/128"},
		Routes:     []string{"default via 10.1.0.254 dev cli", "default via 2001:db8:1::fe dev cli"},
		Sysctl:     []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"},
	}
	f.Fuzz(func(t *testing.T, b []byte, how uint8) {
		d, err := replay.New(&topology)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for _, rule := range []string{
			"-A -t 192.0.2.10:80 -s rr", "-a -t 192.0.2.10:80 -r 10.2.0.11:80 -m", "-a -t 192.0.2.10:80 -r 10.2.0.12:80 -i --tun-type gue --tun-port 6080",
			"-A -u 192.0.2.10:53 -s rr", "-a -u 192.0.2.10:53 -r 10.2.0.11:53 -g", "-A -u 192.0.2.10:54 -s rr",
			"-A -t [2001:db8:ff::10]:80 -s rr -p 60", "-a -t [2001:db8:ff::10]:80 -r [2001:db8:2::11]:80 -m", "-a -t [2001:db8:ff::10]:80 -r 10.2.0.11:80 -i",
		} {
			if status, text := d.Ipvsadm(rule); status != 0 {
				t.Fatal(text)
			}
		}
		eth := [...]string{"", "0800", "86dd", ""}[how&3]
		for range 2 {
			out := d.Inject(b, eth, how&4 != 0)
			for _, f := range append(out, d.Advance(time.Second)...) {
				v := f.Pkt[0] >> 4
				if len(f.Pkt) < 20 || v != 4 && v != 6 || f.Leg == "" || f.To == "" {
					t.Errorf("%x leaves by %q to %q", f.Pkt, f.Leg, f.To)
				}
			}
		}
	})
}
