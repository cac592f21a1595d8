package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/uvs-project/uvs/admin"
	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/health"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/metrics"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

// explain is the answer to GET /v1/explain.
func (d *director) explain(q admin.ExplainQuery) (admin.Explained, error) {
	t := packet.Tuple{SrcPort: q.Client.Port(), DstPort: q.To.Port(), Proto: protocols[config.Protocol(q.Protocol)]}
	t.Src, t.Family = packet.AddrFrom(q.Client.Addr())
	t.Dst, _ = packet.AddrFrom(q.To.Addr())
	x := d.balancer.Explain(t, d.road.Now())
	out := admin.Explained{
		Verdict: x.Verdict.String(), Reason: x.Reason.String(), Means: means(&x), Notes: d.notes(&x),
		Service: x.Service, Known: x.Known, Reply: x.Known && x.Way == lb.Reply, Renewed: x.Renewed,
		RealServers: []admin.Candidate{}, Ways: []admin.Way{},
	}
	if s := d.service(x.Service); s != nil {
		out.Scheduler, out.Rule = s.Scheduler, sched.Rule(s.Scheduler)
	}
	out.Chosen = chosen(&x, &out)
	known := byServer(d.status())
	for _, rs := range x.Set {
		out.RealServers = append(out.RealServers, candidate(&x, rs, known))
	}
	if x.Flow.Server == nil {
		return out, nil
	}
	f := d.flow(&x.Flow)
	out.Flow = &f
	out.Ways = append(out.Ways, d.way(&x, lb.Request, x.Flow.Tuple, &x.Request))
	if reply, ok := x.Flow.Server.Mode.ReplyTuple(x.Flow.Flow); ok {
		out.Ways = append(out.Ways, d.way(&x, lb.Reply, reply, &x.Reply))
	}
	return out, nil
}

// service is the one of the configuration that has the name, or nil.
func (d *director) service(name string) *config.Service {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.cfg.Services {
		if d.cfg.Services[i].Name == name {
			return &d.cfg.Services[i]
		}
	}
	return nil
}

// means is the verdict in words.
func means(x *lb.Explanation) string {
	switch {
	case x.Verdict == packet.Send && x.Known:
		return "it is sent on as a packet of its flow"
	case x.Verdict == packet.Send && x.OnePacket:
		return "it is sent on by itself, and no flow is kept: replies are not translated"
	case x.Verdict == packet.Send:
		return "it opens a flow and is sent on"
	case x.Verdict == packet.Pass:
		return "no service has this port of the VIP: the client is told so"
	case x.Verdict == packet.Return:
		return "it is neither for a VIP nor of a flow: the kernel gets it back"
	case x.Reason == packet.NoRealServer:
		return "no real server can take it: the client is told as on_no_server says"
	case x.Reason == packet.NoPort:
		return "it is dropped: fullnat_pool has no port left for the real server"
	case x.Reason == packet.NoService:
		return "its flow has ended: the sender is reset"
	}
	return "the flow's real server left, and the policy says not to serve it any more"
}

// notes say what may make it come out otherwise.
func (d *director) notes(x *lb.Explanation) []string {
	notes := []string{}
	if x.ByPayload {
		notes = append(notes, "the client is known by its Call-ID only: one that is bound already goes to its own real server")
	}
	if x.FirstOnly {
		notes = append(notes, "only the first packet of a connection opens a flow: the sender of another is reset")
	}
	if x.DropRate > 0 && !x.Known && x.Service != "" {
		notes = append(notes, fmt.Sprintf("the defence drops one in %d packets that would open a flow", x.DropRate))
	}
	if x.Ends && x.Template == nil {
		notes = append(notes, "an old flow of the client ends first: a scheduler that goes by load, which counts it still, may then choose another")
	}
	if x.Renewed {
		notes = append(notes, "a client that starts anew gets a new flow in place of this one")
	}
	return notes
}

// chosen says why it is this real server.
func chosen(x *lb.Explanation, out *admin.Explained) string {
	switch {
	case x.Known:
		return "a flow keeps the real server that it was given"
	case x.Template != nil:
		return fmt.Sprintf("the client is bound to it: persistent for another %v, with %d flows", seconds(x.Template.Left.Seconds()), x.Template.Flows)
	case x.Flow.Server == nil:
		return ""
	case x.Flow.Persistent:
		return fmt.Sprintf("%s chose it: %s; the client will be bound to it", out.Scheduler, out.Rule)
	}
	return fmt.Sprintf("%s chose it: %s", out.Scheduler, out.Rule)
}

// candidate is a real server as a new flow meets it.
func candidate(x *lb.Explanation, rs *lb.RealServer, known map[healthKey]*health.Status) admin.Candidate {
	c := admin.Candidate{
		Address: metrics.Address(rs.Endpoint), Weight: rs.Weight, ActiveFlows: rs.ActiveFlows(), InactiveFlows: rs.InactiveFlows(),
		Chosen: x.Flow.Server != nil && x.Flow.Server.Same(rs), State: health.Checking.String(),
	}
	if h := known[healthKey{x.Service, rs.Endpoint.AddrPort()}]; h != nil {
		c.State = h.State.String()
	}
	switch {
	case rs.Down:
		c.Barred = "it is down"
	case rs.Weight == 0:
		c.Barred = "its weight is 0"
	case rs.Overloaded():
		c.Barred = fmt.Sprintf("it has had its max_flows, %d", rs.MaxFlows)
	case x.Flow.Server != nil && rs.Endpoint.Family != x.Flow.Tuple.Family && !rs.Mode.Crosses():
		c.Barred = "it is of the other address family"
	}
	return c
}

// way is what becomes of the packets t of one direction.
func (d *director) way(x *lb.Explanation, dir lb.Direction, t packet.Tuple, rw *packet.Rewrite) admin.Way {
	w := admin.Way{Direction: "requests", Rewrite: rewriteWords(rw)}
	if dir == lb.Reply {
		w.Direction = "replies"
	}
	goes, direct := rw.Goes(&t), rw.NextHop.Family != 0
	d.mu.Lock()
	mode := stack.EgressMode(d.cfg.Device.Egress)
	d.mu.Unlock()
	hop := stack.Way(mode, d.host.Routes(), goes, direct, stack.FlowHash(&t))
	switch {
	case hop != nil:
		w.Egress = fmt.Sprintf("by link, %s to %v, at most %d bytes", hop.Device, hop.Neighbour.Addr(), hop.MTU)
	case direct:
		w.Egress = "none: no link has a route to the real server, it is dropped (no_route)"
	default:
		w.Egress = "by the host's routing"
	}
	switch {
	case d.lane == nil:
		w.WhyNot = "the fast lane is off: " + d.laneOff
	case d.lane.Has(&t):
		w.Lane = true
	default:
		w.WhyNot = d.lane.whyNot(&x.Flow, dir, &t, rw)
	}
	return w
}

// rewriteWords is rw in words.
func rewriteWords(rw *packet.Rewrite) string {
	var parts []string
	if rw.Src.Family != 0 {
		parts = append(parts, fmt.Sprintf("source becomes %v", rw.Src.AddrPort()))
	}
	if rw.Dst.Family != 0 {
		parts = append(parts, fmt.Sprintf("destination becomes %v", rw.Dst.AddrPort()))
	}
	if e := &rw.Encap; e.Kind != packet.NoEncap {
		kind := map[packet.EncapKind]string{packet.IPIP: "ipip", packet.GUE: "gue", packet.GRE: "gre"}[e.Kind]
		parts = append(parts, fmt.Sprintf("wrapped in %s from %v to %v", kind, e.Src.Netip(e.Family), e.Dst.Netip(e.Family)))
	}
	if rw.NextHop.Family != 0 {
		parts = append(parts, fmt.Sprintf("handed unchanged to the link address of %v", rw.NextHop.Addr.Netip(rw.NextHop.Family)))
	}
	return cmp.Or(strings.Join(parts, ", "), "nothing")
}
