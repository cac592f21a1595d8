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
// real server, have the same replies; the newer one gets them, as in IPVS, and the older again after it.
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

func (nat) Rewrite(f *lb.Flow, d lb.Direction, rw *packet.Rewrite) {
	if d == lb.Reply {
		setDestination(&rw.Src, &f.Tuple)
		return
	}
	setRealServer(&rw.Dst, f)
}

// setSource and setDestination make e one of the two ends of t.
func setSource(e *packet.Endpoint, t *packet.Tuple) {
	e.Addr, e.Port, e.Family = t.Src, t.SrcPort, t.Family
}

func setDestination(e *packet.Endpoint, t *packet.Tuple) {
	e.Addr, e.Port, e.Family = t.Dst, t.DstPort, t.Family
}

// setRealServer makes e the real server's end of f.
func setRealServer(e *packet.Endpoint, f *lb.Flow) {
	rs := f.Server
	e.Addr, e.Port, e.Family = rs.Endpoint.Addr, rs.DestinationPort(f.Tuple.DstPort), rs.Endpoint.Family
}
