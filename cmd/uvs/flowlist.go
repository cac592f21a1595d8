package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/uvs-project/uvs/admin"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// lister answers the questions of admin about flows.
func (d *director) lister() admin.FlowLister {
	return admin.FlowLister{List: d.flows, Explain: d.explain}
}

// flows is the answer to GET /v1/flows. It holds each lock of the flow table
// as shortly as Balancer.Flows does, and none while it asks the fast lane.
func (d *director) flows(ctx context.Context, q admin.FlowQuery) (admin.FlowList, error) {
	list := admin.FlowList{Flows: []admin.Flow{}}
	if q.State != "" && !slices.Contains(lb.StateNames(), q.State) {
		return list, fmt.Errorf("state: %q is none of %s", q.State, strings.Join(lb.StateNames(), ", "))
	}
	if q.Limit == 0 {
		q.Limit = admin.DefaultFlows
	}
	n := 0
	for f := range d.balancer.Flows(d.road.Now()) {
		if n++; n%4096 == 0 && ctx.Err() != nil {
			return list, ctx.Err() // nobody waits any more
		}
		if f.IsTemplate() != q.Templates || q.State != "" && f.State.String() != q.State {
			continue
		}
		if !fits(&q, &f) {
			continue
		}
		if q.Runs != "" && (q.Runs == admin.RunsRoad) != (d.runs(&f) == admin.RunsRoad) {
			continue
		}
		if list.Matched++; len(list.Flows) < q.Limit {
			d.balancer.Refresh(&f)
			list.Flows = append(list.Flows, d.flow(&f))
		}
	}
	return list, nil
}

// fits says whether q asks for f by what no lock and no system call is needed
// to know.
func fits(q *admin.FlowQuery, f *lb.FlowInfo) bool {
	t := &f.Tuple
	return (q.Protocol == "" || protoName(t.Proto) == q.Protocol) &&
		(q.Service == "" || f.Server.Service() == q.Service) &&
		q.Client.Has(clientOf(t)) && q.VIP.Has(vipOf(t)) && q.RealServer.Has(f.Destination().AddrPort())
}

func clientOf(t *packet.Tuple) netip.AddrPort {
	return packet.Endpoint{Addr: t.Src, Port: t.SrcPort, Family: t.Family}.AddrPort()
}

func vipOf(t *packet.Tuple) netip.AddrPort {
	return packet.Endpoint{Addr: t.Dst, Port: t.DstPort, Family: t.Family}.AddrPort()
}

// protoName is empty for the templates of several protocols.
func protoName(proto uint8) string {
	for name, p := range protocols {
		if p == proto {
			return string(name)
		}
	}
	return ""
}

// flow is f as admin shows it.
func (d *director) flow(f *lb.FlowInfo) admin.Flow {
	out := admin.Flow{
		Service: f.Server.Service(), Mode: f.Server.Mode.String(), Protocol: protoName(f.Tuple.Proto),
		Client: clientOf(&f.Tuple), VIP: vipOf(&f.Tuple), RealServer: f.Destination().AddrPort(),
		State: f.State.String(), Expires: f.Left.Seconds(), Flags: flagsOf(f), Flows: f.Flows,
	}
	if f.IsTemplate() {
		return out
	}
	out.Runs = d.runs(f)
	if local := f.LocalEndpoint(); local.Family != 0 {
		out.Local = local.AddrPort()
	}
	return out
}

func flagsOf(f *lb.FlowInfo) []string {
	flags := []string{}
	for _, flag := range []struct {
		name string
		set  bool
	}{
		{"direct", f.Direct && !f.IsTemplate()},
		{"persistent", f.Persistent},
		{"pinned", f.Pinned},
		{"removed", f.Server.Removed()},
	} {
		if flag.set {
			flags = append(flags, flag.name)
		}
	}
	return flags
}

// runs says where f runs, see admin.RunsLane: the lane is asked, which has
// dropped all that it was offered before routes changed.
func (d *director) runs(f *lb.FlowInfo) string {
	if d.lane == nil || !f.Offered {
		return admin.RunsRoad
	}
	requests, replies := d.lane.Has(&f.Tuple), f.Direct
	if reply, ok := f.Server.Mode.ReplyTuple(f.Flow); ok {
		replies = d.lane.Has(&reply)
	}
	switch {
	case requests && replies:
		return admin.RunsLane
	case requests:
		return admin.RunsRequests
	case replies && !f.Direct:
		return admin.RunsReplies
	}
	return admin.RunsRoad
}
