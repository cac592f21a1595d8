package lb

import (
	"sync/atomic"

	"github.com/uvs-project/uvs/packet"
)

// A counter is added to by one queue and read by anybody, so its cache line
// is never fought over.
type counter struct{ n atomic.Uint64 }

func (c *counter) add(n uint64)  { c.n.Store(c.n.Load() + n) }
func (c *counter) value() uint64 { return c.n.Load() }

// Traffic counts what crossed the director: flows that were opened, packets as
// they are on the wire, a super-packet by its segments, and bytes of their IP
// lengths before the rewriting. The packet that opens a flow counts, so do
// ICMP errors about one and packets that then do not fit the path. It never
// counts down.
type Traffic struct {
	Flows                        uint64
	RequestPackets, RequestBytes uint64
	ReplyPackets, ReplyBytes     uint64
}

func (t *Traffic) add(o Traffic) {
	t.Flows += o.Flows
	t.RequestPackets += o.RequestPackets
	t.RequestBytes += o.RequestBytes
	t.ReplyPackets += o.ReplyPackets
	t.ReplyBytes += o.ReplyBytes
}

// since is what came after o.
func (t Traffic) since(o Traffic) Traffic {
	return Traffic{
		Flows:          t.Flows - o.Flows,
		RequestPackets: t.RequestPackets - o.RequestPackets, RequestBytes: t.RequestBytes - o.RequestBytes,
		ReplyPackets: t.ReplyPackets - o.ReplyPackets, ReplyBytes: t.ReplyBytes - o.ReplyBytes,
	}
}

// traffic is the packets of one real server, a cache line per queue.
type traffic []trafficCell

type trafficCell struct {
	ways [2]struct{ packets, bytes counter } // by Direction
	_    [32]byte
}

func (t traffic) sum() (sum Traffic) {
	for i := range t {
		request, reply := &t[i].ways[Request], &t[i].ways[Reply]
		sum.add(Traffic{
			RequestPackets: request.packets.value(), RequestBytes: request.bytes.value(),
			ReplyPackets: reply.packets.value(), ReplyBytes: reply.bytes.value(),
		})
	}
	return sum
}

// count adds p to the queue's cell.
func (c *trafficCell) count(p *packet.Packet, d Direction) {
	packets, bytes := 1, p.Len()
	if n := p.Segments(); n > 1 {
		headers := p.SegmentLen() - int(p.VNet.GSOSize)
		packets, bytes = n, bytes+(n-1)*headers
	}
	c.ways[d].packets.add(uint64(packets))
	c.ways[d].bytes.add(uint64(bytes))
}

// Lookups counts how packets found their flow.
type Lookups struct {
	Hit        uint64
	MissSYN    uint64 // the packet may open a flow
	MissNonSYN uint64 // the packet belongs to a flow that the table does not have
}

// queueCounters are a queue's own.
type queueCounters struct {
	hit, missSYN, missNonSYN counter
	reasons                  [packet.NumReasons]counter
}
