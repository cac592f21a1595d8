package admin

import (
	"context"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var samePlaces = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestAQueryReachesTheDirectorWhole(t *testing.T) {
	place := func(s string) Place {
		p, err := ParsePlace(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, q := range []FlowQuery{
		{},
		{Client: place("198.51.100.0/24"), VIP: place("203.0.113.10:80"), RealServer: place("[2001:db8::1]:8080")},
		{Service: "a b&c=d", Protocol: "udp", State: "established", Runs: RunsLane, Limit: 7, Templates: true},
	} {
		path := filepath.Join(t.TempDir(), "uvs.sock")
		s, err := Listen(path, netip.AddrPort{})
		if err != nil {
			t.Fatal(err)
		}
		var got FlowQuery
		h := handlers(nil)
		h.Flows.List = func(_ context.Context, q FlowQuery) (FlowList, error) { got = q; return FlowList{Matched: 3}, nil }
		serve(t, s, h)
		var list FlowList
		if err := Fetch(t.Context(), path, q.Path(), &list); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(q, got, samePlaces); diff != "" || list.Matched != 3 {
			t.Errorf("(-asked +got):\n%s", diff)
		}
	}
}

func TestBadQuestionsAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uvs.sock")
	s, err := Listen(path, netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	h := handlers(nil)
	h.Flows.List = func(context.Context, FlowQuery) (FlowList, error) {
		t.Error("a bad question was asked")
		return FlowList{}, nil
	}
	h.Flows.Explain = func(ExplainQuery) (Explained, error) {
		t.Error("a bad question was asked")
		return Explained{}, nil
	}
	serve(t, s, h)
	for question, want := range map[string]string{
		"/v1/flows?limit=0x":                                  "limit",
		"/v1/flows?limit=-1":                                  "limit: -1 is not within",
		"/v1/flows?limit=100001":                              "limit",
		"/v1/flows?client=example.org":                        "client",
		"/v1/flows?vip=203.0.113.10:99999":                    "vip",
		"/v1/flows?runs=fast":                                 "runs",
		"/v1/flows?protocol=icmp":                             "protocol",
		"/v1/flows?templates=perhaps":                         "templates",
		"/v1/flows?color=red":                                 "color: not known",
		"/v1/explain":                                         "ADDRESS:PORT",
		"/v1/explain?client=1.2.3.4:5&to=x":                   "PROTOCOL",
		"/v1/explain?client=1.2.3.4:5&to=1.2.3.4:5/icmp":      "tcp, udp, sctp",
		"/v1/explain?client=1.2.3.4:5&to=[2001:db8::1]:5/tcp": "different families",
	} {
		var raw json.RawMessage
		if err := Fetch(t.Context(), path, question, &raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", question, err, want)
		}
	}
}

func TestAPlaceHasWhatIsAtIt(t *testing.T) {
	for _, row := range []struct {
		place, at string
		has       bool
	}{
		{"198.51.100.7", "198.51.100.7:1", true},
		{"198.51.100.7", "198.51.100.8:1", false},
		{"198.51.100.7:1", "198.51.100.7:1", true},
		{"198.51.100.7:1", "198.51.100.7:2", false},
		{"198.51.100.9/24", "198.51.100.7:2", true},
		{"2001:db8::/32", "[2001:db8::7]:2", true},
		{"2001:db8::/32", "198.51.100.7:2", false},
		{"[2001:db8::7]:2", "[2001:db8::7]:2", true},
	} {
		p, err := ParsePlace(row.place)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Has(netip.MustParseAddrPort(row.at)); got != row.has {
			t.Errorf("%s has %s: %v", row.place, row.at, got)
		}
		if again, err := ParsePlace(p.String()); err != nil || again != p {
			t.Errorf("%s is written %s, which is %v, %v", row.place, p, again, err)
		}
	}
}
