package lb

import (
	"slices"
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
	UDPBrief // opened by an ICMP error, or by a fragment where every datagram is scheduled by itself
	SCTPNone
	SCTPInit1 // one INIT of the client's seen
	SCTPInit  // more than one
	SCTPCookieSent
	SCTPCookieReplied
	SCTPCookieWait   // the real server's INIT seen
	SCTPCookie       // and the client's INIT ACK
	SCTPCookieEchoed // and the real server's COOKIE ECHO
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
	UDPBrief:  {"udp", classOpening, false, 3 * time.Second},

	SCTPNone:             {"none", classOpening, false, 2 * time.Second},
	SCTPInit1:            {"init1", classOpening, false, 4 * time.Second},
	SCTPInit:             {"init", classOpening, false, 61 * time.Second},
	SCTPCookieSent:       {"cookie_sent", classOpening, false, 61 * time.Second},
	SCTPCookieReplied:    {"cookie_replied", classKept, false, 61 * time.Second},
	SCTPCookieWait:       {"cookie_wait", classOpening, false, 61 * time.Second},
	SCTPCookie:           {"cookie", classKept, false, 61 * time.Second},
	SCTPCookieEchoed:     {"cookie_echoed", classKept, false, 61 * time.Second},
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
	for s, d := range t {
		if d == 0 {
			d = states[s].timeout
		}
		l[s] = ticks(d)
	}
	return &l
}

// An event is what one packet means to the state of its flow.
type event uint8

const (
	eventPeek event = iota // nothing: an ICMP error
	eventKeep              // only that the flow lives: a later fragment, a header that is cut short
	udpDatagram
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
	sctpError
	sctpAbort
)

// eventOf reads the event from p and says whether it comes from a client that
// starts anew, whatever flow there is: IPVS's is_new_conn.
func eventOf(p *packet.Packet) (e event, anew bool) {
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
		e, anew = sctpEvent(p.SCTPChunk())
		if (e == sctpCookieEcho || e == sctpCookieAck) && p.SCTPNextChunk() == chunkAbort {
			return sctpAbort, false
		}
		return e, anew
	}
	return udpDatagram, false
}

// opens says whether a packet that no flow has may open one.
func (e event) opens(sloppy bool) bool {
	switch {
	case e <= eventKeep:
		return false
	case e == udpDatagram || e == tcpSYN || e == sctpInit:
		return true
	}
	return sloppy && e != tcpRST && e != sctpAbort
}

// opensBehind says whether a sloppy service takes an ABORT that is not the first
// chunk of p: what may open a flow is decided by the first (sctp_conn_schedule).
func opensBehind(p *packet.Packet, e event, sloppy bool) bool {
	return sloppy && e == sctpAbort && p.SCTPChunk() != chunkAbort
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

// A way is how a packet reaches the state tables.
type way uint8

const (
	fromClient way = iota
	fromServer
	fromClientOnly // and the real server's packets do not cross the director; they are not looked for, so it stays so
	numWays
)

func wayOf(d Direction, oneSided bool) way {
	switch {
	case d == Reply:
		return fromServer
	case oneSided:
		return fromClientOnly
	}
	return fromClient
}

// next is the state after e. secure is Policy.SecureTCP.
func (s State) next(e event, w way, secure bool) State {
	switch {
	case e == udpDatagram && s == UDPBrief:
		return UDPNormal
	case e <= udpDatagram:
		return s
	case e <= tcpRST:
		return s.tcpNext(e, w, secure)
	}
	return s.sctpNext(e, w)
}

// StateNames are the names that states of flows and templates have, each once.
func StateNames() (names []string) {
	for _, s := range states {
		if !slices.Contains(names, s.name) {
			names = append(names, s.name)
		}
	}
	return names
}
