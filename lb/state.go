package lb

import (
	"time"

	"github.com/uvs-project/uvs/packet"
)

// State is where a flow stands in its life. The states of all protocols share
// one numbering, so that what depends on a state is a flat table.
type State uint8

// TCP's states are those of IPVS (ip_vs_proto_tcp.c), in its order; "syn
// sent" is a SYN of the real server's, "syn received" one of the client's.
const (
	TCPNone State = iota
	TCPEstablished
	TCPSynSent
	TCPSynRecv
	TCPFinWait
	TCPTimeWait
	TCPClose
	TCPCloseWait
	TCPLastAck
	TCPListen
	TCPSynAck
	UDPNormal
	SCTPNone
	SCTPInit1 // one INIT of the client's seen
	SCTPInit  // more than one
	SCTPCookieSent
	SCTPCookieReplied
	SCTPEstablished
	SCTPShutdownSent
	SCTPShutdownReceived
	SCTPShutdownAckSent
	SCTPRejected
	SCTPClosed
	TemplateNone    // no flow; see template.go
	TemplateAssured // likewise
	numStates
)

// A class groups the flows that are given up together when the table is full.
type class uint8

const (
	classOpening  class = iota // a first packet that nobody answered yet
	classTemplate              // a client that none of its flows assured; given up without flows only
	classClosed                // over, kept for stray packets
	classUDP
	classKept // never given up
	numClasses
)

// A stateInfo is what a state means to the rest of the package.
type stateInfo struct {
	name    string
	class   class
	active  bool          // counts as an active connection
	timeout time.Duration // IPVS's default
}

var states = [numStates]stateInfo{
	TCPNone:        {"none", classOpening, false, 2 * time.Second},
	TCPEstablished: {"established", classKept, true, 900 * time.Second},
	TCPSynSent:     {"syn_sent", classOpening, true, 120 * time.Second},
	TCPSynRecv:     {"syn_recv", classOpening, true, 60 * time.Second},
	TCPFinWait:     {"fin_wait", classKept, false, 120 * time.Second},
	TCPTimeWait:    {"time_wait", classClosed, false, 120 * time.Second},
	TCPClose:       {"close", classClosed, false, 10 * time.Second},
	TCPCloseWait:   {"close_wait", classKept, false, 60 * time.Second},
	TCPLastAck:     {"last_ack", classClosed, false, 30 * time.Second},
	TCPListen:      {"listen", classOpening, false, 120 * time.Second},
	TCPSynAck:      {"synack", classOpening, true, 120 * time.Second},

	UDPNormal: {"udp", classUDP, false, 300 * time.Second},

	SCTPNone:             {"none", classOpening, false, 2 * time.Second},
	SCTPInit1:            {"init1", classOpening, false, 4 * time.Second},
	SCTPInit:             {"init", classOpening, false, 61 * time.Second},
	SCTPCookieSent:       {"cookie_sent", classOpening, false, 61 * time.Second},
	SCTPCookieReplied:    {"cookie_replied", classKept, false, 61 * time.Second},
	SCTPEstablished:      {"established", classKept, true, 900 * time.Second},
	SCTPShutdownSent:     {"shutdown_sent", classKept, false, 61 * time.Second},
	SCTPShutdownReceived: {"shutdown_received", classKept, false, 61 * time.Second},
	SCTPShutdownAckSent:  {"shutdown_ack_sent", classClosed, false, 61 * time.Second},
	SCTPRejected:         {"rejected", classClosed, false, 4 * time.Second},
	SCTPClosed:           {"closed", classClosed, false, 61 * time.Second},

	TemplateNone:    {name: "none", class: classTemplate},
	TemplateAssured: {name: "assured", class: classKept},
}

func (s State) String() string { return states[s].name }

// lifetimes is how long a flow of each state is kept without a packet, in
// ticks of the table's clock.
type lifetimes [numStates]uint32

func (t Timeouts) lifetimes() *lifetimes {
	var l lifetimes
	for s := range l {
		l[s] = ticks(states[s].timeout)
	}
	set := func(s State, d time.Duration) {
		if d > 0 {
			l[s] = ticks(d)
		}
	}
	set(TCPEstablished, t.TCP)
	set(SCTPEstablished, t.TCP)
	set(TCPFinWait, t.TCPFin)
	set(UDPNormal, t.UDP)
	return &l
}

// An event is what one packet means to the state of its flow.
type event uint8

const (
	eventPeek event = iota // nothing: an ICMP error
	eventKeep              // only that the flow lives: UDP, a later fragment
	tcpNoFlag
	tcpACK
	tcpFIN
	tcpSYN
	tcpRST
	sctpData
	sctpInit
	sctpInitAck
	sctpCookieEcho
	sctpCookieAck
	sctpShutdown
	sctpShutdownAck
	sctpShutdownComplete
	sctpAbort
)

// eventOf reads the event from p and says whether p may open a flow.
func eventOf(p *packet.Packet) (e event, opens bool) {
	if p.IsICMPError() {
		return eventPeek, false
	}
	if p.Fragment().Offset > 0 || !p.WholeTransport() {
		return eventKeep, false
	}
	switch p.Tuple.Proto {
	case packet.TCP:
		return tcpEvent(p.TCPFlags())
	case packet.SCTP:
		if chunk := p.SCTPChunk(); chunk != packet.NoChunk {
			return sctpEvent(chunk)
		}
		return eventKeep, false
	}
	return eventKeep, true
}

// first is the state of a flow before its first packet was looked at.
func first(proto uint8) State {
	switch proto {
	case packet.TCP:
		return TCPNone
	case packet.SCTP:
		return SCTPNone
	}
	return UDPNormal
}

// next is the state after e. oneSided flows are those whose replies do not
// cross the director.
func (s State) next(e event, d Direction, oneSided bool) State {
	switch {
	case e <= eventKeep:
		return s
	case e <= tcpRST:
		return s.tcpNext(e, d, oneSided)
	}
	return s.sctpNext(e, d, oneSided)
}

// reopens says whether a packet that may open a flow opens a new one although
// there is one in state s: IPVS's conn_reuse_mode 1.
func (s State) reopens() bool {
	return s == TCPTimeWait || s == TCPClose || s == SCTPClosed || s == SCTPRejected
}
