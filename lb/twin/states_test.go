package twin

import (
	"cmp"
	"strings"
	"time"

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

// tcpNext is tcpRows by table, event and state.
var tcpNext = func() map[[3]string]string {
	next := map[[3]string]string{}
	for table, rows := range tcpRows {
		for event, row := range rows {
			for i, state := range strings.Fields(row) {
				next[[3]string{table, event, strings.Fields(tcpColumns)[i]}] = state
			}
		}
	}
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

// SCTP chunk types.
const (
	chunkInit             = 1
	chunkInitAck          = 2
	chunkAbort            = 6
	chunkShutdown         = 7
	chunkShutdownAck      = 8
	chunkCookieEcho       = 10
	chunkCookieAck        = 11
	chunkShutdownComplete = 14
)

// after is the state of a flow after one of its packets.
func (f *flow) after(p *pkt, reply bool) string {
	if p.later() {
		return f.state
	}
	switch p.proto {
	case packet.TCP:
		event := tcpEvent(p.flags)
		if event == "none" {
			return "CL"
		}
		table := "request"
		switch {
		case reply:
			table = "reply"
		case f.server.oneSided():
			table = "request only"
		}
		return tcpNext[[3]string{table, event, cmp.Or(f.state, "NO")}]
	case packet.SCTP:
		return f.afterChunk(p.chunk, reply)
	}
	return "UDP"
}

// timeouts are IPVS's, in seconds.
var timeouts = map[string]int{
	"NO": 2, "ES": 900, "SS": 120, "SR": 60, "FW": 120, "TW": 120, "CL": 10, "CW": 60, "LA": 30, "LI": 120, "SA": 120,
	"UDP":    300,
	"s none": 2, "s init1": 4, "s init": 61, "s cookie sent": 61, "s cookie replied": 61, "s established": 900,
	"s shutdown sent": 61, "s shutdown received": 61, "s shutdown ack sent": 61, "s rejected": 4, "s closed": 61,
}

// lifetime is how long a flow of a service is kept in a state.
func (s *service) lifetime(state string) time.Duration {
	set := time.Duration(0)
	switch state {
	case "ES", "s established":
		set = s.timeouts.TCP
	case "FW":
		set = s.timeouts.TCPFin
	case "UDP":
		set = s.timeouts.UDP
	}
	if set > 0 {
		return set
	}
	return time.Duration(timeouts[state]) * time.Second
}

// afterChunk follows the first chunk of an SCTP packet. A chunk that is out of
// place changes nothing.
func (f *flow) afterChunk(chunk uint8, reply bool) string {
	in := func(states ...string) bool {
		for _, s := range states {
			if cmp.Or(f.state, "s none") == "s "+s {
				return true
			}
		}
		return false
	}
	switch {
	case chunk == chunkInit && !reply && in("none", "closed", "rejected"):
		return "s init1"
	case chunk == chunkInit && !reply && in("init1"):
		return "s init"
	case chunk == chunkInitAck && reply && in("init1", "init"):
		return "s cookie sent"
	case chunk == chunkCookieEcho && !reply && f.server.oneSided() && in("init1", "init"):
		return "s established"
	case chunk == chunkCookieEcho && !reply && in("cookie sent"):
		return "s cookie replied"
	case chunk == chunkCookieAck && reply && in("cookie sent", "cookie replied"):
		return "s established"
	case chunk == chunkShutdown && in("established") && !reply:
		return "s shutdown received"
	case chunk == chunkShutdown && in("established"):
		return "s shutdown sent"
	case chunk == chunkShutdownAck && in("shutdown sent", "shutdown received", "established"):
		return "s shutdown ack sent"
	case chunk == chunkShutdownComplete && in("shutdown ack sent", "shutdown received", "shutdown sent"):
		return "s closed"
	case chunk == chunkAbort && reply && in("init1"):
		return "s rejected"
	case chunk == chunkAbort:
		return "s closed"
	}
	return f.state
}
