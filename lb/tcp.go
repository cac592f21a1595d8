package lb

import "github.com/uvs-project/uvs/packet"

// tcpEvent ranks the flags as IPVS does: RST, SYN, FIN, ACK. A flow is opened
// by SYN without RST, whatever else is set.
func tcpEvent(flags uint8) (e event, opens bool) {
	switch {
	case flags&packet.RST != 0:
		return tcpRST, false
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

// The tables of IPVS (ip_vs_proto_tcp.c tcp_states): packets of the client,
// packets of the real server, packets of the client where the real server's
// are not seen.
var (
	tcpRequest = tcpTable{
		//  NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA
		{sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES}, // ack
		{sCL, sCW, sSS, sTW, sTW, sTW, sCL, sCW, sLA, sLI, sTW}, // fin
		{sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR}, // syn
		{sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sSR}, // rst
	}
	tcpReply = tcpTable{
		{sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sLA, sES, sES},
		{sTW, sFW, sSS, sTW, sFW, sTW, sCL, sTW, sLA, sLI, sTW},
		{sSS, sES, sSS, sSR, sSS, sSS, sSS, sSS, sSS, sLI, sSR},
		{sCL, sCL, sSS, sCL, sCL, sTW, sCL, sCL, sCL, sCL, sCL},
	}
	tcpRequestOnly = tcpTable{
		{sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
		{sCL, sFW, sSS, sTW, sFW, sTW, sCL, sCW, sLA, sLI, sTW},
		{sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR},
		{sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL},
	}
)

func (s State) tcpNext(e event, d Direction, oneSided bool) State {
	if e == tcpNoFlag {
		return TCPClose
	}
	t := &tcpRequest
	switch {
	case d == Reply:
		t = &tcpReply
	case oneSided:
		t = &tcpRequestOnly
	}
	return t[e-tcpACK][s]
}
