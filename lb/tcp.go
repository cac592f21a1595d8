package lb

import "github.com/uvs-project/uvs/packet"

// tcpEvent ranks the flags as IPVS does: RST, SYN, FIN, ACK. Any packet with SYN
// comes from a client that starts anew.
func tcpEvent(flags uint8) (e event, anew bool) {
	switch {
	case flags&packet.RST != 0:
		return tcpRST, flags&packet.SYN != 0
	case flags&packet.SYN != 0:
		return tcpSYN, true
	case flags&packet.FIN != 0:
		return tcpFIN, false
	case flags&packet.ACK != 0:
		return tcpACK, false
	}
	return tcpNoFlag, false
}

// Short names of the states for the tables below, in the order of their
// columns.
const (
	sNO, sES, sSS, sSR = TCPNone, TCPEstablished, TCPSynSent, TCPSynRecv
	sFW, sTW, sCL, sCW = TCPFinWait, TCPTimeWait, TCPClose, TCPCloseWait
	sLA, sLI, sSA      = TCPLastAck, TCPListen, TCPSynAck
)

const numTCPStates = TCPSynAck + 1

// tcpTable has a row per event of ack, fin, syn, rst.
type tcpTable [4][numTCPStates]State

// The tables of IPVS (ip_vs_proto_tcp.c tcp_states).
var tcpTables = [numWays]tcpTable{
	fromClient: {
		//  NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA
		{sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES}, // ack
		{sCL, sCW, sSS, sTW, sTW, sTW, sCL, sCW, sLA, sLI, sTW}, // fin
		{sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR}, // syn
		{sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sSR}, // rst
	},
	fromServer: {
		{sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sLA, sES, sES},
		{sTW, sFW, sSS, sTW, sFW, sTW, sCL, sTW, sLA, sLI, sTW},
		{sSS, sES, sSS, sSR, sSS, sSS, sSS, sSS, sSS, sLI, sSR},
		{sCL, sCL, sSS, sCL, sCL, sTW, sCL, sCL, sCL, sCL, sCL},
	},
	fromClientOnly: {
		{sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
		{sCL, sFW, sSS, sTW, sFW, sTW, sCL, sCW, sLA, sLI, sTW},
		{sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR},
		{sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL},
	},
}

// secureTCPTables are those of secure_tcp (tcp_states_dos): the real server's
// SYN ACK leads to SYNACK, and only an ACK of the real server's out of it.
var secureTCPTables = [numWays]tcpTable{
	fromClient: {
		//  NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA
		{sES, sES, sSS, sSR, sFW, sTW, sCL, sCW, sCL, sLI, sSA}, // ack
		{sCL, sCW, sSS, sTW, sTW, sTW, sCL, sCW, sLA, sLI, sSA}, // fin
		{sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSA}, // syn
		{sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL}, // rst
	},
	fromServer: {
		{sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sLA, sES, sES},
		{sTW, sFW, sSS, sTW, sFW, sTW, sCL, sTW, sLA, sLI, sTW},
		{sSS, sES, sSS, sSA, sSS, sSS, sSS, sSS, sSS, sLI, sSA},
		{sCL, sCL, sSS, sCL, sCL, sTW, sCL, sCL, sCL, sCL, sCL},
	},
	fromClientOnly: {
		{sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
		{sCL, sFW, sSS, sTW, sFW, sTW, sCL, sCW, sLA, sLI, sTW},
		{sSA, sES, sES, sSR, sSA, sSA, sSA, sSA, sSA, sSA, sSA},
		{sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL},
	},
}

func (s State) tcpNext(e event, w way, secure bool) State {
	if e == tcpNoFlag {
		return TCPClose
	}
	if secure {
		return secureTCPTables[w][e-tcpACK][s]
	}
	return tcpTables[w][e-tcpACK][s]
}
