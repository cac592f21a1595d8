package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/uvs-project/uvs/bgp"
	"github.com/uvs-project/uvs/bgp/bfd"
)

// routers collects the BGP and BFD sessions.
type routers struct{ stats func() bgp.Stats }

var (
	bgpUpDesc       = desc(BGPUp, "Whether the session with the peer is established.", "peer")
	bgpStateDesc    = desc(BGPState, "1 for the state of the session with the peer, 0 for the others.", "peer", "state")
	bgpFlapsDesc    = desc(BGPFlaps, "How often an established session ended.", "peer")
	bgpSentDesc     = desc(BGPSent, "Prefixes that the peer has from us.", "peer")
	bgpRefusedDesc  = desc(BGPRefused, "Prefixes that the peer announced, all of which are refused.", "peer")
	bgpMessagesDesc = desc(BGPMessages, "BGP messages.", "peer", "direction", "type")
	bgpRouteDesc    = desc(BGPRoutePeers, "Peers that have a prefix that we announce.", "prefix")
	bfdUpDesc       = desc(BFDUp, "Whether BFD finds the peer.", "peer")
	bfdFlapsDesc    = desc(BFDFlaps, "How often BFD lost the peer.", "peer")
	bfdPacketsDesc  = desc(BFDPackets, "BFD packets.", "peer", "direction")
	bfdInvalidDesc  = desc(BFDInvalid, "BFD packets that were for no session or broke a rule.")
)

func (*routers) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, bgpUpDesc, bgpStateDesc, bgpFlapsDesc, bgpSentDesc, bgpRefusedDesc, bgpMessagesDesc, bgpRouteDesc,
		bfdUpDesc, bfdFlapsDesc, bfdPacketsDesc, bfdInvalidDesc)
}

func (c *routers) Collect(ch chan<- prometheus.Metric) {
	if c.stats == nil {
		return
	}
	s := c.stats()
	watched := false
	for i := range s.Peers {
		p := &s.Peers[i]
		gauge(ch, bgpUpDesc, oneIf(p.State == bgp.Established), p.Peer)
		for _, state := range bgp.States {
			gauge(ch, bgpStateDesc, oneIf(p.State == state), p.Peer, string(state))
		}
		counter(ch, bgpFlapsDesc, p.Downs, p.Peer)
		gauge(ch, bgpSentDesc, float64(p.Announced), p.Peer)
		counter(ch, bgpRefusedDesc, p.Refused, p.Peer)
		collectMessages(ch, p.Peer, "out", p.Sent)
		collectMessages(ch, p.Peer, "in", p.Received)
		if b := p.BFD; b != nil {
			watched = true
			gauge(ch, bfdUpDesc, oneIf(b.State == bfd.Up), p.Peer)
			counter(ch, bfdFlapsDesc, b.Downs, p.Peer)
			counter(ch, bfdPacketsDesc, b.Sent, p.Peer, "out")
			counter(ch, bfdPacketsDesc, b.Received, p.Peer, "in")
		}
	}
	if watched {
		counter(ch, bfdInvalidDesc, s.BFDInvalid)
	}
	for _, r := range s.Routes {
		gauge(ch, bgpRouteDesc, float64(r.Peers), r.Prefix.String())
	}
}

func collectMessages(ch chan<- prometheus.Metric, peer, direction string, m bgp.Messages) {
	counter(ch, bgpMessagesDesc, m.Open, peer, direction, "open")
	counter(ch, bgpMessagesDesc, m.Update, peer, direction, "update")
	counter(ch, bgpMessagesDesc, m.Notification, peer, direction, "notification")
	counter(ch, bgpMessagesDesc, m.Keepalive, peer, direction, "keepalive")
	counter(ch, bgpMessagesDesc, m.Refresh, peer, direction, "refresh")
}
