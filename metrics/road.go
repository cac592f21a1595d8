package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

// road collects the queues of the TUN device and the ways out. A super-packet
// is one packet here.
type road struct{ stats func() stack.Stats }

var (
	readsDesc     = desc(TUNReads, "Packets read from the TUN device.", "queue")
	readBytesDesc = desc(TUNReadBytes, "Bytes of those packets.", "queue")
	batchesDesc   = desc(TUNBatches, "Rounds of read, handle and send that found a packet.", "queue")
	waitsDesc     = desc(TUNWaits, "Times that the queue ran dry and its thread slept.", "queue")
	verdictsDesc  = desc(Verdicts, "Packets by what became of them. Their sum is the packets read, but for fragments that wait for their first.", "verdict")
	dropsDesc     = desc(Drops, "Packets dropped, by reason. Their sum is the verdict drop.", "reason")
	egressDesc    = desc(EgressPackets, "Packets that left rewritten, straight to an interface (link) or through the host's routing (kernel).", "way")
	lostDesc      = desc(EgressLost, "Packets that were to leave and did not, by reason; a segment of a super-packet counts as one.", "reason")
	deferredDesc  = desc(EgressDeferred, "Frames that waited for the link address of their next hop.")
)

func (*road) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, readsDesc, readBytesDesc, batchesDesc, waitsDesc, verdictsDesc, dropsDesc, egressDesc, lostDesc, deferredDesc)
}

func (c *road) Collect(ch chan<- prometheus.Metric) {
	s := c.stats()
	for i, q := range s.Queues {
		queue := strconv.Itoa(i)
		counter(ch, readsDesc, q.Packets, queue)
		counter(ch, readBytesDesc, q.Bytes, queue)
		counter(ch, batchesDesc, q.Batches, queue)
		counter(ch, waitsDesc, q.Waits, queue)
	}
	counter(ch, readsDesc, s.Beside.Packets, "none")
	counter(ch, readBytesDesc, s.Beside.Bytes, "none")
	sum := s.Total()
	var dropped uint64
	for _, n := range sum.Dropped {
		dropped += n
	}
	counter(ch, verdictsDesc, sum.Sent, packet.Send.String())
	counter(ch, verdictsDesc, sum.Passed, packet.Pass.String())
	counter(ch, verdictsDesc, sum.Returned, packet.Return.String())
	counter(ch, verdictsDesc, dropped, packet.Drop.String())
	collectReasons(ch, dropsDesc, sum.Dropped)
	counter(ch, egressDesc, sum.ByLink, "link")
	counter(ch, egressDesc, sum.ByKernel, "kernel")
	collectReasons(ch, lostDesc, sum.Lost)
	counter(ch, deferredDesc, sum.Waited)
}
