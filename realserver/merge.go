package realserver

import "github.com/uvs-project/uvs/packet"

// openFlows is how many connections are merged at the same time: more than
// share a batch at a speed where merging matters.
const openFlows = 8

// A merger merges the segments of several connections, whose packets come
// mixed. Packets of one flow keep their order.
type merger struct {
	flows  [openFlows]packet.Coalescer
	tuples [openFlows]packet.Tuple // of what each flow holds
	n      int                     // flows in use
	oldest int                     // the one to give way when all are
}

// add takes p. What must be written before it, because it belongs to the same
// flow or takes the place of another, is returned; mostly nil. p's buffer
// belongs to the merger until it comes back.
func (m *merger) add(p *packet.Packet) (ready *packet.Packet) {
	for i := range m.n {
		if m.tuples[i] != p.Tuple {
			continue
		}
		if m.flows[i].Add(p) {
			return nil
		}
		ready = m.flows[i].Finish()
		m.flows[i].Start(p)
		return ready
	}
	i := m.n
	if i < openFlows {
		m.n++
	} else {
		i = m.oldest
		m.oldest = (i + 1) % openFlows
		ready = m.flows[i].Finish()
	}
	m.tuples[i] = p.Tuple
	m.flows[i].Start(p)
	return ready
}

// next takes out what is left, nil when there is nothing.
func (m *merger) next() *packet.Packet {
	if m.n == 0 {
		m.oldest = 0
		return nil
	}
	m.n--
	return m.flows[m.n].Finish()
}
