package realserver_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/uvs-project/uvs/integration/lab"
	"github.com/uvs-project/uvs/realserver"
)

func addrs(words ...string) []netip.Addr {
	var list []netip.Addr
	for _, w := range words {
		list = append(list, netip.MustParseAddr(w))
	}
	return list
}

func TestOptionsCheck(t *testing.T) {
	tests := []struct {
		name string
		o    realserver.Options
		want string // in the error; empty: none
	}{
		{name: "dr with both families", o: realserver.Options{Mode: "dr", VIPs: addrs("203.0.113.10", "2001:db8::10")}},
		{name: "tun", o: realserver.Options{Mode: "tun", VIPs: addrs("203.0.113.10"), Decap: realserver.DecapUser}},
		{name: "nat needs no setup", o: realserver.Options{Mode: "nat", VIPs: addrs("203.0.113.10")}, want: "its real servers need no setup"},
		{name: "an unknown mode", o: realserver.Options{Mode: "rd", VIPs: addrs("203.0.113.10")}, want: `mode "rd": want dr or tun`},
		{name: "no VIP", o: realserver.Options{Mode: "dr"}, want: "no VIP"},
		{name: "a loopback address", o: realserver.Options{Mode: "dr", VIPs: addrs("127.0.0.1")}, want: "a loopback address"},
		{name: "a multicast address", o: realserver.Options{Mode: "dr", VIPs: addrs("ff02::1")}, want: "a multicast address"},
		{name: "a mapped address", o: realserver.Options{Mode: "dr", VIPs: addrs("::ffff:203.0.113.10")}, want: "IPv4-mapped"},
		{name: "unpacking before the firewall, for whom", o: realserver.Options{Mode: "tun", VIPs: addrs("203.0.113.10"), Decap: realserver.DecapBPF}, want: "the directors' addresses"},
		{name: "directors for nothing", o: realserver.Options{Mode: "tun", VIPs: addrs("203.0.113.10"), Directors: addrs("192.0.2.11")}, want: "for decapsulation by bpf only"},
		{name: "every fault at once", o: realserver.Options{Mode: "x", VIPs: addrs("0.0.0.0"), Decap: "y"}, want: "mode \"x\": want dr or tun\nVIP 0.0.0.0: the unspecified address\ndecapsulation by \"y\": want auto, kernel, user or bpf"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.o.Check()
			if err == nil && tt.want == "" {
				return
			}
			if err == nil || tt.want == "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// newHosts are a real server and the director, to which its default route leads,
//
//	director 10.0.0.1, fd00::1 ── 10.0.0.2, fd00::2 rs
//
// The interface of each has the other's name.
func newHosts(t *testing.T) (rs, director *lab.Host) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	l, err := lab.New("uvs-rs-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	rs, director = l.Host("rs"), l.Host("director")
	rs.Link(director, "10.0.0.2/24 fd00::2/64", "10.0.0.1/24 fd00::1/64")
	rs.Route("default", "10.0.0.1").Route("default", "fd00::1")
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	return rs, director
}

// in runs f inside the host.
func in[T any](t *testing.T, h *lab.Host, f func() (T, error)) (T, error) {
	t.Helper()
	var v T
	err := h.Do(func() (err error) {
		v, err = f()
		return err
	})
	return v, err
}

// picture is all that Setup may change, to be compared.
func picture(t *testing.T, h *lab.Host) string {
	t.Helper()
	var b strings.Builder
	links, err := h.Netlink().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		b.WriteString(l.Attrs().Name + " alias " + l.Attrs().Alias + "\n")
	}
	list, err := h.Netlink().AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if !a.IP.IsLinkLocalUnicast() {
			b.WriteString(a.String() + "\n")
		}
	}
	for _, key := range []string{"all.arp_ignore", "all.arp_announce", "director.arp_ignore", "all.rp_filter", "director.rp_filter"} {
		v, err := h.SysctlValue("net.ipv4.conf." + key)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(key + " " + v + "\n")
	}
	return b.String()
}

func setup(t *testing.T, h *lab.Host, o realserver.Options) (*realserver.Decapsulator, error) {
	t.Helper()
	return in(t, h, func() (*realserver.Decapsulator, error) { return realserver.Setup(o) })
}

func undo(t *testing.T, h *lab.Host, vips ...string) []string {
	t.Helper()
	did, err := in(t, h, func() ([]string, error) { return realserver.Undo(addrs(vips...)) })
	if err != nil {
		t.Fatal(err)
	}
	return did
}

func TestUndoRestoresTheHost(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(h *lab.Host)
		o       realserver.Options
	}{
		{name: "dr", o: realserver.Options{Mode: "dr", VIPs: addrs("203.0.113.10", "2001:db8::10")}},
		{name: "settings that were not the default", o: realserver.Options{Mode: "dr", VIPs: addrs("203.0.113.10")},
			prepare: func(h *lab.Host) {
				h.Sysctl("net.ipv4.conf.all.arp_announce", "1").Sysctl("net.ipv4.conf.all.arp_ignore", "2")
			}},
		{name: "an alias of somebody else on lo", o: realserver.Options{Mode: "dr", VIPs: addrs("203.0.113.10")},
			prepare: func(h *lab.Host) { setAlias(h, "loop of rack 7 ") }},
		{name: "tun with a strict reverse path filter", o: realserver.Options{Mode: "tun", VIPs: addrs("203.0.113.10", "2001:db8::10"), Decap: realserver.DecapUser},
			prepare: func(h *lab.Host) { h.Sysctl("net.ipv4.conf.all.rp_filter", "1") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, _ := newHosts(t)
			if tt.prepare != nil {
				tt.prepare(h)
			}
			before := picture(t, h)
			for range 2 { // the second time changes nothing
				decap, err := setup(t, h, tt.o)
				if err != nil {
					t.Fatal(err)
				}
				if decap != nil {
					if v, err := h.SysctlValue("net.ipv4.conf." + decap.Device() + ".rp_filter"); err != nil || v != "2" {
						t.Errorf("rp_filter of the TUN device is %s (%v), want 2", v, err)
					}
					if err := decap.Close(); err != nil {
						t.Fatal(err)
					}
				}
				if picture(t, h) == before {
					t.Fatal("setup changed nothing")
				}
			}
			state, err := in(t, h, realserver.Show)
			if err != nil {
				t.Fatal(err)
			}
			for i, vip := range tt.o.VIPs {
				if i >= len(state.VIPs) || state.VIPs[i] != (realserver.VIP{Addr: vip, Ours: true}) {
					t.Errorf("show: %+v, want %v", state.VIPs, tt.o.VIPs)
				}
			}
			undo(t, h)
			if diff := cmp.Diff(before, picture(t, h)); diff != "" {
				t.Errorf("after undo (-before +after):\n%s", diff)
			}
			if did := undo(t, h); len(did) > 0 {
				t.Errorf("a second undo did %q", did)
			}
		})
	}
}

func setAlias(h *lab.Host, alias string) {
	lo, err := h.Netlink().LinkByName("lo")
	if err == nil {
		err = h.Netlink().LinkSetAlias(lo, alias)
	}
	if err != nil {
		panic(err)
	}
}

func TestFailedSetupLeavesNothing(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, h *lab.Host)
		o       realserver.Options
		want    string
	}{
		{name: "a VIP on another interface", o: realserver.Options{Mode: "dr", VIPs: addrs("203.0.113.10", "10.0.0.2")},
			want: "VIP 10.0.0.2 is on interface director already, where the host would draw its clients to itself: ip address del 10.0.0.2/24 dev director"},
		{name: "IPv6 is switched off", o: realserver.Options{Mode: "dr", VIPs: addrs("203.0.113.10", "2001:db8::10")},
			prepare: func(t *testing.T, h *lab.Host) { h.Sysctl("net.ipv6.conf.lo.disable_ipv6", "1") },
			want:    "IPv6 is switched off"},
		{name: "the TUN device is there already", o: realserver.Options{Mode: "tun", VIPs: addrs("203.0.113.10"), Decap: realserver.DecapUser},
			prepare: func(t *testing.T, h *lab.Host) {
				d, err := in(t, h, func() (*realserver.Decapsulator, error) {
					return realserver.OpenDecapsulator(realserver.Options{Mode: "tun", VIPs: addrs("203.0.113.9")})
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { d.Close() })
			},
			want: "TUN device uvs-decap exists already"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, _ := newHosts(t)
			if tt.prepare != nil {
				tt.prepare(t, h)
			}
			before := picture(t, h)
			_, err := setup(t, h, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if diff := cmp.Diff(before, picture(t, h)); diff != "" {
				t.Errorf("after the error (-before +after):\n%s", diff)
			}
		})
	}
}

func TestUndoKeepsWhatItIsNotAskedFor(t *testing.T) {
	h, _ := newHosts(t)
	h.Addr("lo", "203.0.113.9/32")
	if _, err := setup(t, h, realserver.Options{Mode: "dr", VIPs: addrs("203.0.113.9", "203.0.113.10", "203.0.113.11")}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"VIP 203.0.113.10 removed from lo"}, undo(t, h, "203.0.113.10")); diff != "" {
		t.Errorf("undo of one VIP did (-want +got):\n%s", diff)
	}
	if v, _ := h.SysctlValue("net.ipv4.conf.all.arp_ignore"); v != "1" {
		t.Errorf("arp_ignore is %s while a VIP is left, want 1", v)
	}
	undo(t, h)
	if p := picture(t, h); !strings.Contains(p, "203.0.113.9/32") || strings.Contains(p, "203.0.113.11") {
		t.Errorf("after undo there is\n%s", p)
	}
}
