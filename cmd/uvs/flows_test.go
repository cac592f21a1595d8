package main

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/admin"
)

func TestFlowsArePrinted(t *testing.T) {
	ap := netip.MustParseAddrPort
	list := admin.FlowList{Matched: 5, Flows: []admin.Flow{
		{Service: "web", Mode: "fullnat", Protocol: "tcp", Client: ap("198.51.100.8:2"), VIP: ap("203.0.113.10:80"), RealServer: ap("10.0.0.2:8080"),
			Local: ap("192.0.2.128:1024"), State: "established", Expires: 899.6, Runs: "lane"},
		{Service: "web", Mode: "dr", Protocol: "tcp", Client: ap("198.51.100.7:1"), VIP: ap("203.0.113.10:80"), RealServer: ap("10.0.0.1:80"),
			State: "syn_recv", Expires: 60, Runs: "road", Flags: []string{"direct", "removed"}},
	}}
	want := `protocol  client          VIP              real server    local             mode     state        expires  runs  flags
tcp       198.51.100.7:1  203.0.113.10:80  10.0.0.1:80    -                 dr       syn_recv     1m0s     road  direct,removed
tcp       198.51.100.8:2  203.0.113.10:80  10.0.0.2:8080  192.0.2.128:1024  fullnat  established  15m0s    lane  -
and 3 more of 5 flows; --limit lists more, the other flags fewer
`
	var got bytes.Buffer
	if err := printFlows(&got, &list, &admin.FlowQuery{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	templates := admin.FlowList{Matched: 2, Flows: []admin.Flow{
		{Service: "shop", Mode: "nat", Client: ap("198.51.100.0:0"), VIP: ap("0.0.0.0:0"), RealServer: ap("10.0.0.1:0"), State: "assured", Expires: 9, Flows: 1},
		{Mode: "nat", Client: ap("198.51.100.0:0"), VIP: ap("203.0.113.10:0"), RealServer: ap("10.0.0.1:0"), State: "assured", Expires: 50, Flows: 3},
	}}
	want = `protocol  client          VIP             real server  local  mode  state    expires  flows  flags
-         198.51.100.0:0  service shop    10.0.0.1:0   -      nat   assured  9s       1      -
-         198.51.100.0:0  203.0.113.10:0  10.0.0.1:0   -      nat   assured  50s      3      -
2 persistent clients
`
	got.Reset()
	if err := printFlows(&got, &templates, &admin.FlowQuery{Templates: true}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("templates (-want +got):\n%s", diff)
	}
}

func TestExplainedIsPrinted(t *testing.T) {
	x := admin.Explained{
		Verdict: "send", Reason: "ok", Means: "it opens a flow and is sent on", Notes: []string{"the defence drops one in 4 packets that would open a flow"},
		Service: "web", Scheduler: "wlc", Chosen: "wlc chose it: the least load",
		Flow:        &admin.Flow{RealServer: netip.MustParseAddrPort("10.0.0.2:80"), Mode: "dr"},
		RealServers: []admin.Candidate{{Address: "10.0.0.2", Weight: 2, State: "up", ActiveFlows: 3, Chosen: true}, {Address: "10.0.0.1", State: "down", InactiveFlows: 9, Barred: "it is down"}},
		Ways:        []admin.Way{{Direction: "requests", Rewrite: "nothing", Egress: "by the host's routing", WhyNot: "it is not established"}, {Direction: "replies", Rewrite: "source becomes x", Egress: "by link", Lane: true}},
	}
	want := `verdict      send, ok: it opens a flow and is sent on
but          the defence drops one in 4 packets that would open a flow
service      web
flow         none
real server  10.0.0.2:80 by dr: wlc chose it: the least load
requests     nothing
             leave by the host's routing
             on the road: it is not established
replies      source becomes x
             leave by link
             in the fast lane

real server  weight  state  active  inactive  new flows
10.0.0.2     2       up     3       0         yes, this one
10.0.0.1     0       down   0       9         it is down
`
	var got bytes.Buffer
	if err := printExplained(&got, &x); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
