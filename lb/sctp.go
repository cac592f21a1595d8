package lb

import "github.com/uvs-project/uvs/packet"

// SCTP chunk types, RFC 9260 section 3.2.
const (
	chunkInit             = 1
	chunkInitAck          = 2
	chunkAbort            = 6
	chunkShutdown         = 7
	chunkShutdownAck      = 8
	chunkError            = 9
	chunkCookieEcho       = 10
	chunkCookieAck        = 11
	chunkShutdownComplete = 14
)

// sctpEvent reads the first chunk's type; what it does not know counts as
// data, as in IPVS. INIT comes from a client that starts anew.
func sctpEvent(chunk uint8) (e event, anew bool) {
	switch chunk {
	case chunkInit:
		return sctpInit, true
	case chunkInitAck:
		return sctpInitAck, false
	case chunkAbort:
		return sctpAbort, false
	case chunkShutdown:
		return sctpShutdown, false
	case chunkShutdownAck:
		return sctpShutdownAck, false
	case chunkError:
		return sctpError, false
	case chunkCookieEcho:
		return sctpCookieEcho, false
	case chunkCookieAck:
		return sctpCookieAck, false
	case chunkShutdownComplete:
		return sctpShutdownComplete, false
	case packet.NoChunk:
		return eventKeep, false
	}
	return sctpData, false
}

// Short names of the states for the tables below, in the order of their
// columns.
const (
	pNO, pI1, pIN, pCS, pCR = SCTPNone, SCTPInit1, SCTPInit, SCTPCookieSent, SCTPCookieReplied
	pCW, pCO, pCE, pES      = SCTPCookieWait, SCTPCookie, SCTPCookieEchoed, SCTPEstablished
	pSS, pSR, pSA, pRJ, pCL = SCTPShutdownSent, SCTPShutdownReceived, SCTPShutdownAckSent, SCTPRejected, SCTPClosed
)

const (
	numSCTPStates = SCTPClosed - SCTPNone + 1
	numSCTPEvents = sctpAbort - sctpData + 1
)

// sctpTable has a row per event.
type sctpTable [numSCTPEvents][numSCTPStates]State

// The tables of IPVS (ip_vs_proto_sctp.c sctp_states). Either end may set up
// the association; the states are those of the real server.
var sctpTables = [numWays]sctpTable{
	fromClient: {
		//  NO   I1   IN   CS   CR   CW   CO   CE   ES   SS   SR   SA   RJ   CL
		{pES, pI1, pIN, pCS, pCR, pCW, pCO, pCE, pES, pSS, pSR, pSA, pRJ, pCL}, // data
		{pI1, pIN, pIN, pCS, pCR, pCW, pCO, pCE, pES, pSS, pSR, pSA, pIN, pIN}, // init
		{pCW, pCW, pCW, pCS, pCR, pCO, pCO, pCE, pES, pSS, pSR, pSA, pRJ, pCL}, // init ack
		{pCR, pIN, pIN, pCR, pCR, pCW, pCO, pCE, pES, pSS, pSR, pSA, pRJ, pCL}, // cookie echo
		{pES, pI1, pIN, pCS, pCR, pCW, pCO, pES, pES, pSS, pSR, pSA, pRJ, pCL}, // cookie ack
		{pSR, pI1, pIN, pCS, pCR, pCW, pCO, pCE, pSR, pSS, pSR, pSA, pRJ, pCL}, // shutdown
		{pCL, pIN, pIN, pCS, pCR, pCW, pCO, pCE, pES, pCL, pSR, pCL, pRJ, pCL}, // shutdown ack
		{pCL, pCL, pCL, pCS, pCR, pCW, pCO, pCE, pES, pSS, pSR, pCL, pRJ, pCL}, // shutdown complete
		{pCL, pI1, pIN, pCS, pCR, pCW, pCO, pCL, pES, pSS, pSR, pSA, pRJ, pCL}, // error
		{pCL, pCL, pCL, pCL, pCL, pRJ, pCL, pCL, pCL, pCL, pCL, pCL, pCL, pCL}, // abort
	},
	fromServer: {
		{pES, pI1, pIN, pCS, pCR, pCW, pCO, pCE, pES, pSS, pSR, pSA, pRJ, pCL},
		{pCW, pCW, pCW, pCW, pCW, pCW, pCW, pCW, pES, pCW, pCW, pCW, pCW, pCW},
		{pCS, pCS, pCS, pCS, pCR, pCW, pCO, pCE, pES, pSS, pSR, pSA, pRJ, pCL},
		{pCE, pCE, pCE, pCE, pCE, pCE, pCE, pCE, pES, pSS, pSR, pSA, pRJ, pCL},
		{pES, pES, pES, pES, pES, pES, pES, pES, pES, pSS, pSR, pSA, pRJ, pCL},
		{pSS, pSS, pSS, pSS, pSS, pSS, pSS, pSS, pSS, pSS, pSR, pSA, pRJ, pCL},
		{pSA, pSA, pSA, pSA, pSA, pCW, pCO, pCE, pES, pSA, pSA, pSA, pRJ, pCL},
		{pCL, pI1, pIN, pCS, pCR, pCW, pCO, pCE, pES, pSS, pSR, pSA, pRJ, pCL},
		{pCL, pCL, pCL, pCL, pCL, pCW, pCO, pCE, pES, pSS, pSR, pSA, pRJ, pCL},
		{pCL, pRJ, pCL, pCL, pCL, pCL, pCL, pCL, pCL, pCL, pCL, pCL, pCL, pCL},
	},
	fromClientOnly: {
		{pES, pI1, pIN, pCS, pCR, pES, pCO, pCE, pES, pSS, pSR, pSA, pRJ, pCL},
		{pI1, pIN, pIN, pIN, pIN, pIN, pCO, pCE, pES, pSS, pSR, pSA, pIN, pIN},
		{pCE, pCE, pCE, pCE, pCE, pCE, pCO, pCE, pES, pSS, pSR, pSA, pRJ, pCL},
		{pES, pES, pES, pES, pES, pES, pCO, pCE, pES, pSS, pSR, pSA, pRJ, pCL},
		{pES, pI1, pIN, pES, pES, pCW, pES, pES, pES, pSS, pSR, pSA, pRJ, pCL},
		{pSR, pI1, pIN, pCS, pCR, pCW, pCO, pCE, pSR, pSS, pSR, pSA, pRJ, pCL},
		{pCL, pIN, pIN, pCS, pCR, pCW, pCO, pCE, pCL, pCL, pSR, pCL, pRJ, pCL},
		{pCL, pCL, pCL, pCL, pCL, pCW, pCO, pCE, pES, pSS, pCL, pCL, pRJ, pCL},
		{pCL, pI1, pIN, pCS, pCR, pCW, pCO, pCE, pES, pSS, pSR, pSA, pRJ, pCL},
		{pCL, pCL, pCL, pCL, pCL, pRJ, pCL, pCL, pCL, pCL, pCL, pCL, pCL, pCL},
	},
}

func (s State) sctpNext(e event, w way) State {
	return sctpTables[w][e-sctpData][s-SCTPNone]
}
