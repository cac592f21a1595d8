package modes

import (
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// nat is masquerading: the destination becomes the real server, which sees the
// client's own address and therefore must send its replies through the
// director, where their source becomes the VIP again.
//
// Two flows of one client port, to two services that lead to one port of one
// real server, have the same replies; the newer one gets them, as in IPVS.
type nat struct{}

var _ lb.Mode = nat{}

func newNAT(o *Options) (lb.Mode, error) {
	if err := o.checkFamily("nat"); err != nil {
		return nil, err
	}
	return nat{}, nil
}

func (nat) String() string { return "nat" }
func (nat) Crosses() bool  { return false }

// Local has one proposal, nothing, so that the newest flow wins.
func (nat) Local(_ lb.Flow, try int) (uint32, bool) { return 0, try == 0 }

func (nat) ReplyTuple(f lb.Flow) (packet.Tuple, bool) {
	t := f.Tuple.Reverse()
	t.Src = f.Server.Endpoint.Addr
	t.SrcPort = f.Server.DestinationPort(f.Tuple.DstPort)
	return t, true
}

func (nat) Rewrite(f lb.Flow, d lb.Direction) packet.Rewrite {
	if d == lb.Reply {
		return packet.Rewrite{Src: destination(&f.Tuple)}
	}
	return packet.Rewrite{Dst: realServer(&f)}
}

// source and destination are the two ends of t.
func source(t *packet.Tuple) packet.Endpoint {
	return packet.Endpoint{Addr: t.Src, Port: t.SrcPort, Family: t.Family}
}

func destination(t *packet.Tuple) packet.Endpoint {
	return packet.Endpoint{Addr: t.Dst, Port: t.DstPort, Family: t.Family}
}

// realServer is the real server's end of f.
func realServer(f *lb.Flow) packet.Endpoint {
	e := f.Server.Endpoint
	e.Port = f.Server.DestinationPort(f.Tuple.DstPort)
	return e
}
