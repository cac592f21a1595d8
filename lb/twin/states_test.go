package twin

import (
	"cmp"
	"strings"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// TCP as IPVS follows it, one row per event, one column per state. A row of
// the real server's packets, of the client's, and of the client's where the
// real server's are not seen.
const tcpColumns = "NO ES SS SR FW TW CL CW LA LI SA"

var tcpRows = map[string]map[string]string{
	"request": {
		"syn": "SR ES ES SR SR SR SR SR SR SR SR",
		"fin": "CL CW SS TW TW TW CL CW LA LI TW",
		"ack": "ES ES SS ES FW TW CL CW CL LI ES",
		"rst": "CL CL CL SR CL CL CL CL LA LI SR",
	},
	"reply": {
		"syn": "SS ES SS SR SS SS SS SS SS LI SR",
		"fin": "TW FW SS TW FW TW CL TW LA LI TW",
		"ack": "ES ES SS ES FW TW CL CW LA ES ES",
		"rst": "CL CL SS CL CL TW CL CL CL CL CL",
	},
	"request only": {
		"syn": "SR ES ES SR SR SR SR SR SR SR SR",
		"fin": "CL FW SS TW FW TW CL CW LA LI TW",
		"ack": "ES ES SS ES FW TW CL CW CL LI ES",
		"rst": "CL CL CL SR CL CL CL CL LA LI CL",
	},
}

// tcpSecure is where secure_tcp differs, by table, event and state.
var tcpSecure = map[[3]string]string{
	{"request", "syn", "SA"}: "SA", {"request", "fin", "SA"}: "SA", {"request", "ack", "SR"}: "SR",
	{"request", "ack", "SA"}: "SA", {"request", "rst", "SA"}: "CL",
	{"reply", "syn", "SR"}: "SA", {"reply", "syn", "SA"}: "SA",
	{"request only", "syn", "NO"}: "SA", {"request only", "syn", "FW"}: "SA", {"request only", "syn", "TW"}: "SA",
	{"request only", "syn", "CL"}: "SA", {"request only", "syn", "CW"}: "SA", {"request only", "syn", "LA"}: "SA",
	{"request only", "syn", "LI"}: "SA", {"request only", "syn", "SA"}: "SA",
}

// SCTP likewise.
const sctpColumns = "sNO sI1 sIN sCS sCR sCW sCO sCE sES sSS sSR sSA sRJ sCL"

var sctpRows = map[string]map[string]string{
	"request": {
		"data":              "sES sI1 sIN sCS sCR sCW sCO sCE sES sSS sSR sSA sRJ sCL",
		"init":              "sI1 sIN sIN sCS sCR sCW sCO sCE sES sSS sSR sSA sIN sIN",
		"init ack":          "sCW sCW sCW sCS sCR sCO sCO sCE sES sSS sSR sSA sRJ sCL",
		"cookie echo":       "sCR sIN sIN sCR sCR sCW sCO sCE sES sSS sSR sSA sRJ sCL",
		"cookie ack":        "sES sI1 sIN sCS sCR sCW sCO sES sES sSS sSR sSA sRJ sCL",
		"shutdown":          "sSR sI1 sIN sCS sCR sCW sCO sCE sSR sSS sSR sSA sRJ sCL",
		"shutdown ack":      "sCL sIN sIN sCS sCR sCW sCO sCE sES sCL sSR sCL sRJ sCL",
		"shutdown complete": "sCL sCL sCL sCS sCR sCW sCO sCE sES sSS sSR sCL sRJ sCL",
		"error":             "sCL sI1 sIN sCS sCR sCW sCO sCL sES sSS sSR sSA sRJ sCL",
		"abort":             "sCL sCL sCL sCL sCL sRJ sCL sCL sCL sCL sCL sCL sCL sCL",
	},
	"reply": {
		"data":              "sES sI1 sIN sCS sCR sCW sCO sCE sES sSS sSR sSA sRJ sCL",
		"init":              "sCW sCW sCW sCW sCW sCW sCW sCW sES sCW sCW sCW sCW sCW",
		"init ack":          "sCS sCS sCS sCS sCR sCW sCO sCE sES sSS sSR sSA sRJ sCL",
		"cookie echo":       "sCE sCE sCE sCE sCE sCE sCE sCE sES sSS sSR sSA sRJ sCL",
		"cookie ack":        "sES sES sES sES sES sES sES sES sES sSS sSR sSA sRJ sCL",
		"shutdown":          "sSS sSS sSS sSS sSS sSS sSS sSS sSS sSS sSR sSA sRJ sCL",
		"shutdown ack":      "sSA sSA sSA sSA sSA sCW sCO sCE sES sSA sSA sSA sRJ sCL",
		"shutdown complete": "sCL sI1 sIN sCS sCR sCW sCO sCE sES sSS sSR sSA sRJ sCL",
		"error":             "sCL sCL sCL sCL sCL sCW sCO sCE sES sSS sSR sSA sRJ sCL",
		"abort":             "sCL sRJ sCL sCL sCL sCL sCL sCL sCL sCL sCL sCL sCL sCL",
	},
	"request only": {
		"data":              "sES sI1 sIN sCS sCR sES sCO sCE sES sSS sSR sSA sRJ sCL",
		"init":              "sI1 sIN sIN sIN sIN sIN sCO sCE sES sSS sSR sSA sIN sIN",
		"init ack":          "sCE sCE sCE sCE sCE sCE sCO sCE sES sSS sSR sSA sRJ sCL",
		"cookie echo":       "sES sES sES sES sES sES sCO sCE sES sSS sSR sSA sRJ sCL",
		"cookie ack":        "sES sI1 sIN sES sES sCW sES sES sES sSS sSR sSA sRJ sCL",
		"shutdown":          "sSR sI1 sIN sCS sCR sCW sCO sCE sSR sSS sSR sSA sRJ sCL",
		"shutdown ack":      "sCL sIN sIN sCS sCR sCW sCO sCE sCL sCL sSR sCL sRJ sCL",
		"shutdown complete": "sCL sCL sCL sCL sCL sCW sCO sCE sES sSS sCL sCL sRJ sCL",
		"error":             "sCL sI1 sIN sCS sCR sCW sCO sCE sES sSS sSR sSA sRJ sCL",
		"abort":             "sCL sCL sCL sCL sCL sRJ sCL sCL sCL sCL sCL sCL sCL sCL",
	},
}

// next is both tables by way, event and state.
var next = func() map[[3]string]string {
	next := map[[3]string]string{}
	enter := func(table map[string]map[string]string, columns string) {
		for way, rows := range table {
			for event, row := range rows {
				for i, state := range strings.Fields(row) {
					next[[3]string{way, event, strings.Fields(columns)[i]}] = state
				}
			}
		}
	}
	enter(tcpRows, tcpColumns)
	enter(sctpRows, sctpColumns)
	return next
}()

func tcpEvent(flags uint8) string {
	switch {
	case flags&packet.RST != 0:
		return "rst"
	case flags&packet.SYN != 0:
		return "syn"
	case flags&packet.FIN != 0:
		return "fin"
	case flags&packet.ACK != 0:
		return "ack"
	}
	return "none"
}

var sctpEvents = map[uint8]string{
	1: "init", 2: "init ack", 6: "abort", 7: "shutdown", 8: "shutdown ack", 9: "error",
	10: "cookie echo", 11: "cookie ack", 14: "shutdown complete",
}

// event is what the packet means to its flow.
func (p *pkt) event() string {
	switch {
	case p.isICMP():
		return "peek"
	case p.later():
		return "more"
	case p.proto == packet.TCP:
		return tcpEvent(p.flags)
	case p.proto == packet.SCTP:
		return cmp.Or(sctpEvents[p.chunk], "data")
	}
	return "datagram"
}

// anew says whether the client starts anew, whatever flow there is.
func (p *pkt) anew() bool {
	return !p.later() && (p.proto == packet.TCP && p.flags&packet.SYN != 0 || p.proto == packet.SCTP && p.chunk == 1)
}

// opens says whether p may open a flow where there is none.
func (p *pkt) opens(sloppy bool) bool {
	switch p.event() {
	case "datagram", "syn", "init":
		return true
	case "more", "peek", "rst", "abort":
		return false
	}
	return sloppy
}

// after is the state of a flow after one of its packets.
func (f *flow) after(p *pkt, reply bool) string {
	event, state := p.event(), f.state
	way := "request"
	switch {
	case reply:
		way = "reply"
	case f.server.oneSided():
		way = "request only"
	}
	if state == "" {
		state = map[uint8]string{packet.TCP: "NO", packet.SCTP: "sNO", packet.UDP: "UDP"}[f.client.proto]
	}
	switch {
	case event == "datagram":
		return "UDP"
	case event == "peek" || event == "more":
		return state
	case event == "none":
		return "CL"
	}
	at := [3]string{way, event, state}
	if to, ok := tcpSecure[at]; ok && f.server.service.policy.SecureTCP {
		return to
	}
	return next[at]
}

// lifetimes are IPVS's, in seconds.
var lifetimes = map[string]struct {
	state   lb.State
	seconds int
}{
	"NO": {lb.TCPNone, 2}, "ES": {lb.TCPEstablished, 900}, "SS": {lb.TCPSynSent, 120}, "SR": {lb.TCPSynRecv, 60},
	"FW": {lb.TCPFinWait, 120}, "TW": {lb.TCPTimeWait, 120}, "CL": {lb.TCPClose, 10}, "CW": {lb.TCPCloseWait, 60},
	"LA": {lb.TCPLastAck, 30}, "LI": {lb.TCPListen, 120}, "SA": {lb.TCPSynAck, 120},
	"UDP": {lb.UDPNormal, 300}, "brief": {lb.UDPBrief, 3},
	"sNO": {lb.SCTPNone, 2}, "sI1": {lb.SCTPInit1, 4}, "sIN": {lb.SCTPInit, 61}, "sCS": {lb.SCTPCookieSent, 61},
	"sCR": {lb.SCTPCookieReplied, 61}, "sCW": {lb.SCTPCookieWait, 61}, "sCO": {lb.SCTPCookie, 61}, "sCE": {lb.SCTPCookieEchoed, 61},
	"sES": {lb.SCTPEstablished, 900}, "sSS": {lb.SCTPShutdownSent, 61}, "sSR": {lb.SCTPShutdownReceived, 61},
	"sSA": {lb.SCTPShutdownAckSent, 61}, "sRJ": {lb.SCTPRejected, 4}, "sCL": {lb.SCTPClosed, 61},
}

// lifetime is how long a flow of a service is kept in a state.
func (s *service) lifetime(state string) time.Duration {
	l := lifetimes[state]
	if d := s.timeouts[l.state]; d > 0 {
		return d
	}
	return time.Duration(l.seconds) * time.Second
}
