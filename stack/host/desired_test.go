package host

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
)

func TestFaults(t *testing.T) {
	local := []localAddr{
		{netip.MustParsePrefix("10.0.0.1/24"), "eth0"},
		{netip.MustParsePrefix("2001:db8::1/64"), "eth1"},
	}
	tests := []struct {
		name string
		d    Desired
		want string
	}{
		{name: "addresses of others are no fault", d: everyKind},
		{name: "a VIP that the host has names the interface and the command that mends it",
			d:    Desired{VIPs: []netip.Addr{addr("10.0.0.1")}},
			want: "VIP 10.0.0.1: is an address of this host on eth0, which keeps its packets from uvs: ip addr del 10.0.0.1/24 dev eth0"},
		{name: "nor can it be the broadcast address of a link", d: Desired{VIPs: []netip.Addr{addr("10.0.0.255"), addr("10.0.0.254"), addr("10.0.0.0")}},
			want: "VIP 10.0.0.255: is the broadcast address of 10.0.0.0/24 on eth0, which keeps its packets from uvs: choose another VIP"},
		{name: "all faults come at once",
			d: Desired{
				VIPs:    []netip.Addr{addr("2001:db8::1"), addr("224.0.0.1")},
				Replies: []Reply{{addr("10.0.0.1"), packet.TCP, 80}},
			},
			want: "VIP 224.0.0.1: not an address that a host can have\n" +
				"VIP 2001:db8::1: is an address of this host on eth1, which keeps its packets from uvs: ip addr del 2001:db8::1/64 dev eth1\n" +
				"real server 10.0.0.1: is an address of this host on eth0, and nat cannot see the replies of a real server on the director: use fullnat"},
		{name: "a pool with an address of the host is refused",
			d:    Desired{LIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/29")}},
			want: "fullnat pool 10.0.0.0/29: 10.0.0.1 is an address of this host on eth0, replies to it would not reach uvs: choose another pool, or ip addr del 10.0.0.1/24 dev eth0"},
		{name: "a pool with a VIP is refused",
			d:    Desired{VIPs: []netip.Addr{addr("198.51.100.1")}, LIPs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/29")}},
			want: "fullnat pool 198.51.100.0/29: contains the VIP 198.51.100.1"},
		{name: "a loopback VIP is refused", d: Desired{VIPs: []netip.Addr{addr("127.0.0.5")}},
			want: "VIP 127.0.0.5: not an address that a host can have"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := tt.d.normalised()
			got := ""
			if err := d.faults(local); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
