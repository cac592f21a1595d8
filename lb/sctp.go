package lb

// SCTP chunk types, RFC 9260 section 3.2.
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

// sctpEvent reads the first chunk's type; what it does not know counts as
// data, as in IPVS. A flow is opened by INIT.
func sctpEvent(chunk uint8) (e event, opens bool) {
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
	case chunkCookieEcho:
		return sctpCookieEcho, false
	case chunkCookieAck:
		return sctpCookieAck, false
	case chunkShutdownComplete:
		return sctpShutdownComplete, false
	}
	return sctpData, false
}

// sctpNext follows an association by the road of IPVS (ip_vs_proto_sctp.c):
// INIT, INIT ACK, COOKIE ECHO, COOKIE ACK, and SHUTDOWN, SHUTDOWN ACK,
// SHUTDOWN COMPLETE. A chunk that is out of place changes nothing, so a
// forged one cannot open or close.
func (s State) sctpNext(e event, d Direction, oneSided bool) State {
	switch e {
	case sctpInit:
		switch {
		case d == Reply:
			return s
		case s == SCTPInit1:
			return SCTPInit
		case s == SCTPNone || s.reopens():
			return SCTPInit1
		}
	case sctpInitAck:
		if d == Reply && (s == SCTPInit1 || s == SCTPInit) {
			return SCTPCookieSent
		}
	case sctpCookieEcho:
		switch {
		case d == Reply || s == SCTPEstablished:
			return s
		case oneSided && (s == SCTPInit1 || s == SCTPInit):
			return SCTPEstablished // the COOKIE ACK will not be seen
		case s == SCTPCookieSent:
			return SCTPCookieReplied
		}
	case sctpCookieAck:
		if d == Reply && (s == SCTPCookieSent || s == SCTPCookieReplied) {
			return SCTPEstablished
		}
	case sctpShutdown:
		if s != SCTPEstablished {
			return s
		}
		if d == Request {
			return SCTPShutdownReceived
		}
		return SCTPShutdownSent
	case sctpShutdownAck:
		if s == SCTPShutdownSent || s == SCTPShutdownReceived || s == SCTPEstablished {
			return SCTPShutdownAckSent
		}
	case sctpShutdownComplete:
		if s == SCTPShutdownAckSent || s == SCTPShutdownReceived || s == SCTPShutdownSent {
			return SCTPClosed
		}
	case sctpAbort:
		if d == Reply && s == SCTPInit1 {
			return SCTPRejected
		}
		return SCTPClosed
	}
	return s
}
