package host

import (
	"io/fs"
	"net/netip"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeSettings are settings by their sysctl name.
type fakeSettings map[string]int

func (f fakeSettings) read(s setting) (int, error) {
	v, ok := f[s.String()]
	if !ok {
		return 0, fs.ErrNotExist
	}
	return v, nil
}

func TestNeededSettings(t *testing.T) {
	fresh := fakeSettings{ // as Linux starts
		"net.ipv4.conf.all.rp_filter": 0, "net.ipv4.conf.uvs0.rp_filter": 0,
		"net.ipv4.conf.uvs0.forwarding": 0, "net.ipv4.conf.eth0.forwarding": 0,
		"net.ipv4.conf.uvs0.accept_local": 0,
		"net.ipv6.conf.uvs0.disable_ipv6": 0, "net.ipv6.conf.all.forwarding": 0, "net.ipv6.conf.eth0.accept_ra": 1,
	}
	with := func(changes fakeSettings) fakeSettings {
		f := fakeSettings{}
		for _, m := range []fakeSettings{fresh, changes} {
			for k, v := range m {
				f[k] = v
			}
		}
		return f
	}
	v4 := Desired{VIPs: []netip.Addr{addr("203.0.113.10")}}
	v6 := Desired{VIPs: []netip.Addr{addr("2001:db8::10")}}
	tests := []struct {
		name       string
		d          Desired
		now        fakeSettings
		announcing map[uint8][]string
		want       []string
	}{
		{name: "nothing desired changes nothing", now: fresh},
		{name: "IPv4 on a fresh host", d: v4, now: fresh, want: []string{
			"net.ipv4.conf.uvs0.forwarding=1", "net.ipv4.conf.eth0.forwarding=1", "net.ipv4.conf.uvs0.accept_local=1"}},
		{name: "IPv4 on a host that forwards already",
			d: v4, now: with(fakeSettings{"net.ipv4.conf.uvs0.forwarding": 1, "net.ipv4.conf.eth0.forwarding": 1}),
			want: []string{"net.ipv4.conf.uvs0.accept_local=1"}},
		{name: "a strict reverse path filter of all devices is loosened on ours alone",
			d: v4, now: with(fakeSettings{"net.ipv4.conf.all.rp_filter": 1, "net.ipv4.conf.uvs0.rp_filter": 1}),
			want: []string{"net.ipv4.conf.uvs0.forwarding=1", "net.ipv4.conf.eth0.forwarding=1",
				"net.ipv4.conf.uvs0.rp_filter=2", "net.ipv4.conf.uvs0.accept_local=1"}},
		{name: "a reverse path filter that the device got by default is turned off",
			d: v4, now: with(fakeSettings{"net.ipv4.conf.uvs0.rp_filter": 2}),
			want: []string{"net.ipv4.conf.uvs0.forwarding=1", "net.ipv4.conf.eth0.forwarding=1",
				"net.ipv4.conf.uvs0.rp_filter=0", "net.ipv4.conf.uvs0.accept_local=1"}},
		{name: "a strict reverse path filter is loosened where packets from VIPs come in",
			d: Desired{VIPs: v4.VIPs, FromVIPs: true}, now: with(fakeSettings{"net.ipv4.conf.eth0.rp_filter": 1}),
			want: []string{"net.ipv4.conf.uvs0.forwarding=1", "net.ipv4.conf.eth0.forwarding=1",
				"net.ipv4.conf.eth0.rp_filter=2", "net.ipv4.conf.uvs0.accept_local=1"}},
		{name: "so is one of all devices",
			d: Desired{VIPs: v4.VIPs, FromVIPs: true}, now: with(fakeSettings{"net.ipv4.conf.all.rp_filter": 1, "net.ipv4.conf.uvs0.rp_filter": 2, "net.ipv4.conf.eth0.rp_filter": 0}),
			want: []string{"net.ipv4.conf.uvs0.forwarding=1", "net.ipv4.conf.eth0.forwarding=1",
				"net.ipv4.conf.eth0.rp_filter=2", "net.ipv4.conf.uvs0.accept_local=1"}},
		{name: "a loose one is right for packets from VIPs",
			d: Desired{VIPs: v4.VIPs, FromVIPs: true}, now: with(fakeSettings{"net.ipv4.conf.eth0.rp_filter": 2}),
			want: []string{"net.ipv4.conf.uvs0.forwarding=1", "net.ipv4.conf.eth0.forwarding=1", "net.ipv4.conf.uvs0.accept_local=1"}},
		{name: "IPv6 keeps router advertisements before it forwards", d: v6, now: fresh,
			want: []string{"net.ipv6.conf.eth0.accept_ra=2", "net.ipv6.conf.all.forwarding=1"}},
		{name: "IPv6 on a host that forwards already", d: v6, now: with(fakeSettings{"net.ipv6.conf.all.forwarding": 1})},
		{name: "IPv6 that is off by default is turned on for the device", d: v6,
			now:  with(fakeSettings{"net.ipv6.conf.all.forwarding": 1, "net.ipv6.conf.uvs0.disable_ipv6": 1}),
			want: []string{"net.ipv6.conf.uvs0.disable_ipv6=0"}},
		{name: "announcing needs quick answers, and IPv6 leave to give them", d: v6, announcing: map[uint8][]string{4: {"eth0"}, 6: {"eth0"}},
			now: with(fakeSettings{"net.ipv6.conf.all.forwarding": 1, "net.ipv6.conf.eth0.proxy_ndp": 0,
				"net.ipv4.neigh.eth0.proxy_delay": 80, "net.ipv6.neigh.eth0.proxy_delay": 80}),
			want: []string{"net.ipv4.neigh.eth0.proxy_delay=0", "net.ipv6.conf.eth0.proxy_ndp=1", "net.ipv6.neigh.eth0.proxy_delay=0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, err := neededSettings("uvs0", []string{"eth0"}, &tt.d, tt.announcing, tt.now)
			must(t, err)
			var got []string
			for _, n := range list {
				got = append(got, n.String()+"="+strconv.Itoa(n.value))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestSysctlNameOfADeviceWithADot(t *testing.T) {
	s := conf(4, "eth0.100", "forwarding")
	if s.String() != "net.ipv4.conf.eth0/100.forwarding" || s.path() != "net/ipv4/conf/eth0.100/forwarding" {
		t.Errorf("name %s, path %s", s, s.path())
	}
}
