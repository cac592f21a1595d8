package host

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/packet"
)

func TestSteering(t *testing.T) {
	tests := []struct {
		name   string
		d      Desired
		marks  bool
		rules  []string
		routes []string
	}{
		{name: "nothing desired needs nothing"},
		{name: "a VIP needs the rules of its own family only",
			d:      Desired{VIPs: []netip.Addr{addr("203.0.113.10")}},
			rules:  []string{"-4 pref 9740 not iif uvs0 lookup 9740"},
			routes: []string{"203.0.113.10/32 9740"}},
		{name: "a pool alone has rules, because a VIP of the other family may use it",
			d:      Desired{LIPs: []netip.Prefix{netip.MustParsePrefix("2001:db8:f::/124")}},
			rules:  []string{"-6 pref 9740 not iif uvs0 lookup 9740"},
			routes: []string{"2001:db8:f::/124 9740"}},
		{name: "replies are recognised by address, protocol and port, errors without marks by address",
			d: Desired{Replies: []Reply{{addr("10.0.0.3"), packet.TCP, 80}, {addr("10.0.0.3"), packet.UDP, 53}, {addr("10.0.0.4"), packet.TCP, 0}}},
			rules: []string{"-4 pref 9740 not iif uvs0 lookup 9740", "-4 pref 9749 nop", "-4 pref 9741 iif uvs0 goto 9749",
				"-4 pref 9742 from 10.0.0.3 ipproto 1 lookup 9741",
				"-4 pref 9742 from 10.0.0.3 ipproto 6 sport 80 lookup 9741",
				"-4 pref 9742 from 10.0.0.3 ipproto 17 sport 53 lookup 9741",
				"-4 pref 9742 from 10.0.0.4 ipproto 1 lookup 9741",
				"-4 pref 9742 from 10.0.0.4 ipproto 6 lookup 9741"},
			routes: []string{"0.0.0.0/0 9741"}},
		{name: "with marks one rule picks errors and fragments", marks: true,
			d: Desired{VIPs: []netip.Addr{addr("203.0.113.10")}, Replies: []Reply{{addr("2001:db8::3"), packet.TCP, 80}}},
			rules: []string{"-4 pref 9740 not iif uvs0 lookup 9740",
				"-6 pref 9740 not iif uvs0 lookup 9740", "-6 pref 9749 nop", "-6 pref 9741 iif uvs0 goto 9749",
				"-6 pref 9742 from 2001:db8::3 ipproto 6 sport 80 lookup 9741",
				"-6 pref 9743 fwmark 0x97400000/0xfff00000 lookup 9741"},
			routes: []string{"203.0.113.10/32 9740", "::/0 9741"}},
	}
	var many Desired
	for port := range uint16(maxReplyRules + 1) {
		many.Replies = append(many.Replies, Reply{addr("10.0.0.3"), packet.TCP, 80 + port})
	}
	plain, _ := steering(Options{}.withDefaults(), &many, 7, false)
	if len(plain) != 3+1+maxReplyRules+1 {
		t.Errorf("without marks many replies have %d rules", len(plain))
	}
	marked, _ := steering(Options{}.withDefaults(), &many, 7, true)
	if len(marked) != 3+1 {
		t.Errorf("with marks many replies have %d rules: %v", len(marked), marked)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := tt.d.normalised()
			rules, routes := steering(Options{}.withDefaults(), &d, 7, tt.marks)
			var gotRules, gotRoutes []string
			for _, r := range rules {
				gotRules = append(gotRules, familyFlag(r.family)+" "+r.String())
			}
			for _, r := range routes {
				gotRoutes = append(gotRoutes, r.dst.String()+" "+itoa(r.table))
				if r.link != 7 {
					t.Errorf("route %v leads to device %d", r.dst, r.link)
				}
			}
			if diff := cmp.Diff(tt.rules, gotRules); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.routes, gotRoutes); diff != "" {
				t.Errorf("routes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDifference(t *testing.T) {
	tests := []struct {
		name              string
		have, want        []int
		wantAdd, wantGone []int
	}{
		{name: "the same in another order is no difference", have: []int{2, 1}, want: []int{1, 2}},
		{name: "what is missing is added in the order of want", have: []int{2}, want: []int{3, 2, 1}, wantAdd: []int{3, 1}},
		{name: "what is too much is removed", have: []int{1, 2, 3}, want: []int{2}, wantGone: []int{1, 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			add, gone := difference(tt.have, tt.want)
			if !slices.Equal(add, tt.wantAdd) || !slices.Equal(gone, tt.wantGone) {
				t.Errorf("add %v, remove %v; want %v, %v", add, gone, tt.wantAdd, tt.wantGone)
			}
		})
	}
}
