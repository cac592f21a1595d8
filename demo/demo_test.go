package demo

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/integration/lab"
	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

func TestCasesCoverEveryMode(t *testing.T) {
	vips, names := map[netip.Addr]bool{}, map[string]bool{}
	modes := map[string]int{}
	for _, c := range cases {
		vips[c.vip()], names[c.name()] = true, true
		modes[strings.TrimSpace(c.Mode+" "+c.Tunnel)]++
	}
	if len(vips) != len(cases) || len(names) != len(cases) {
		t.Errorf("%d cases have %d VIPs and %d names", len(cases), len(vips), len(names))
	}
	want := map[string]int{"dr": 2, "nat": 2, "tun ipip": 4, "tun gue": 2, "tun gre": 2, "fullnat": 4}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Errorf("families of each mode (-want +got):\n%s", diff)
	}
}

// road is what a case that works shows, to be spoilt by the tests.
func road(c Case) []Sight {
	seen := []Sight{
		{Host: "client", Sent: true, Src: netip.MustParseAddrPort("198.18.0.2:4000")},
		{Host: "director", Link: "lan", Sent: true, Src: netip.MustParseAddrPort("198.51.100.3:5000")},
	}
	if c.Family == ipv6 {
		seen[0].Src = netip.MustParseAddrPort("[2001:db8:c::2]:4000")
	}
	if c.RealServers == ipv6 {
		seen[1].Src = netip.MustParseAddrPort("[2001:db8:f::3]:5000")
	}
	return c.promise(seen, 0, httpPort)
}

func TestPromiseIsKept(t *testing.T) {
	for _, c := range cases {
		t.Run(c.title(), func(t *testing.T) {
			seen := road(c)
			for i, s := range seen[1:] {
				if s.road() <= seen[i].road() {
					t.Errorf("%s comes after %s", s.place(), seen[i].place())
				}
			}
			if err := diff(c.promise(seen, 0, httpPort), seen); err != nil {
				t.Errorf("a road as promised: %v", err)
			}
			if err := diff(c.promise(seen, 1, httpPort), seen); err == nil {
				t.Error("nobody minds that another real server was asked")
			}
			for i := range seen {
				if err := diff(c.promise(seen, 0, httpPort), slices.Delete(slices.Clone(seen), i, i+1)); err == nil {
					t.Errorf("nobody minds that there is no packet %s", seen[i].place())
				}
				for what, spoil := range map[string]func(*Sight){
					"source port":      func(s *Sight) { s.Src = netip.AddrPortFrom(s.Src.Addr(), s.Src.Port()+1) },
					"destination":      func(s *Sight) { s.Dst = netip.AddrPortFrom(s.Dst.Addr().Next(), s.Dst.Port()) },
					"link destination": func(s *Sight) { s.To = "lan" },
					"tunnel":           func(s *Sight) { s.Tunnel += "x" },
					"tunnel's source":  func(s *Sight) { s.From = netip.MustParseAddr("10.0.0.1") },
				} {
					spoilt := slices.Clone(seen)
					spoil(&spoilt[i])
					if err := diff(c.promise(seen, 0, httpPort), spoilt); err == nil {
						t.Errorf("nobody minds another %s of the packet %s", what, seen[i].place())
					}
				}
			}
		})
	}
}

func TestFullNATNeedsThePool(t *testing.T) {
	c := Case{Mode: "fullnat", Family: ipv4, RealServers: ipv4}
	seen := road(c)
	for i := range seen { // the director's own address in place of one of the pool
		for _, p := range []*netip.AddrPort{&seen[i].Src, &seen[i].Dst} {
			if inPool(p.Addr()) {
				*p = netip.AddrPortFrom(netip.MustParseAddr(dip4), p.Port())
			}
		}
	}
	if err := diff(c.promise(seen, 0, httpPort), seen); err == nil {
		t.Error("nobody minds a source that is not in the pool")
	}
}

func TestReadFrame(t *testing.T) {
	inner := pt.TCP("198.18.0.2:4000", "203.0.113.5:80", pt.Data("x"))
	inner6 := pt.TCP("[2001:db8:c::2]:4000", "[2001:db8:a::6]:80", pt.Data("x"))
	in := func(kind packet.EncapKind, b []byte) []byte {
		src, family := packet.AddrFrom(netip.MustParseAddr(dip4))
		dst, _ := packet.AddrFrom(netip.MustParseAddr("10.0.0.21"))
		p := pt.Parsed(t, b)
		r := packet.Rewrite{Encap: packet.Encap{Kind: kind, Src: src, Dst: dst, Family: family, Port: 6080}}
		if why := r.Apply(p); why != packet.OK {
			t.Fatal(why)
		}
		return p.Bytes()
	}
	tests := []struct {
		name string
		ip   []byte
		want string
	}{
		{name: "a plain packet", ip: inner, want: "198.18.0.2:4000 → 203.0.113.5:80, to rs1"},
		{name: "a datagram", ip: pt.UDP("198.18.0.2:4000", "203.0.113.5:7"), want: "198.18.0.2:4000 → 203.0.113.5:7, to rs1"},
		{name: "ipip", ip: in(packet.IPIP, inner), want: "10.0.0.11 → 10.0.0.21 ipip (198.18.0.2:4000 → 203.0.113.5:80), to rs1"},
		{name: "gre", ip: in(packet.GRE, inner), want: "10.0.0.11 → 10.0.0.21 gre (198.18.0.2:4000 → 203.0.113.5:80), to rs1"},
		{name: "gue", ip: in(packet.GUE, inner), want: "10.0.0.11 → 10.0.0.21 gue (198.18.0.2:4000 → 203.0.113.5:80), to rs1"},
		{name: "IPv6 in gue over IPv4", ip: in(packet.GUE, inner6), want: "10.0.0.11 → 10.0.0.21 gue ([2001:db8:c::2]:4000 → [2001:db8:a::6]:80), to rs1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ether := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}
			w := &watch{macs: map[string]string{"02:00:00:00:00:01": "rs1"}}
			got := w.read(&lab.Frame{Data: append(ether, tt.ip...)}).String()
			if got != tt.want {
				t.Errorf("read %s, want %s", got, tt.want)
			}
		})
	}
}

func TestResultFitsATerminal(t *testing.T) {
	for _, c := range cases {
		var b strings.Builder
		p := &printer{out: &b}
		p.result(&Result{
			Case: c, OK: true, Seen: road(c), Upload: 12.3, Download: 12.3,
			HTTP: Spread{Requests: 20, Answered: map[string]int{"rs1": 10, "rs2": 10}},
			UDP:  Spread{Requests: 20, Answered: map[string]int{"rs1": 10, "rs2": 10}},
		})
		p.verdict(&Report{OK: true}, "")
		if err := p.flush(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("%d columns: %s", n, line)
			}
		}
	}
}

func TestConfigurationIsJSON(t *testing.T) {
	b, err := configuration("/run/uvs.sock")
	if err != nil {
		t.Fatal(err)
	}
	var c struct{ Services []struct{ Name string } }
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Services) != 2*len(cases) {
		t.Errorf("%d services, want two for each of %d cases", len(c.Services), len(cases))
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errBroken }

var errBroken = errors.New("broken pipe")

func TestRunEndsWhenNobodyReads(t *testing.T) {
	if err := Run(t.Context(), Options{Out: brokenPipe{}}); !errors.Is(err, errBroken) {
		t.Errorf("Run: %v, want %v", err, errBroken)
	}
}
