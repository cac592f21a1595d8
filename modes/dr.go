package modes

import (
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// dr is direct routing: the packet is handed to the real server's link address
// unchanged; the real server has the VIP on a loopback and answers by itself.
//
// Invariant: no byte above the link layer changes, so the real server's port
// must be the service's; newDR checks it.
type dr struct{}

var _ lb.Mode = dr{}

func newDR(o *Options) (lb.Mode, error) {
	if err := o.checkFamily("dr"); err != nil {
		return nil, err
	}
	if err := o.checkPort("dr", o.ofFamily()); err != nil {
		return nil, err
	}
	return dr{}, nil
}

func (dr) String() string                          { return "dr" }
func (dr) Crosses() bool                           { return false }
func (dr) Local(lb.Flow, int) (uint32, bool)       { return 0, true }
func (dr) ReplyTuple(lb.Flow) (packet.Tuple, bool) { return packet.Tuple{}, false }

func (dr) Rewrite(f *lb.Flow, d lb.Direction, rw *packet.Rewrite) {
	if d == lb.Reply {
		*rw = packet.NoReply
		return
	}
	rip := &f.Server.Endpoint
	rw.NextHop.Addr, rw.NextHop.Family = rip.Addr, rip.Family
}
