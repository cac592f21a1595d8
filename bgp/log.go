package bgp

import (
	"fmt"
	"log/slog"

	gobgp "github.com/osrg/gobgp/v3/pkg/log"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// A logger takes what GoBGP logs. GoBGP tells a session's state by events, but
// why it ended, or never began, only here; so this is where reasons are found.
// Nothing else that it says of a session is passed on, and of a message only
// chosen fields are read: none can hold a password.
type logger struct {
	log   *slog.Logger
	peers *peerTable
}

var _ gobgp.Logger = (*logger)(nil)

func (l *logger) Panic(msg string, f gobgp.Fields) { l.fault(msg, f) }
func (l *logger) Fatal(msg string, f gobgp.Fields) { l.fault(msg, f) }
func (l *logger) Error(msg string, f gobgp.Fields) { l.fault(msg, f) }
func (l *logger) Warn(msg string, f gobgp.Fields)  { l.reason(msg, f) }
func (l *logger) Info(msg string, f gobgp.Fields)  { l.reason(msg, f) }
func (l *logger) Debug(msg string, f gobgp.Fields) { l.reason(msg, f) }
func (l *logger) SetLevel(gobgp.LogLevel)          {}

// GetLevel is debug: why a connection failed is said there only.
func (l *logger) GetLevel() gobgp.LogLevel { return gobgp.DebugLevel }

// fault is something wrong with the speaker itself. It is no reason to stop
// carrying packets, whatever level GoBGP gives it.
func (l *logger) fault(msg string, f gobgp.Fields) {
	args := []any{"problem", msg}
	for _, key := range []string{"Key", "Error", "Err", "State"} {
		if v, ok := f[key]; ok {
			args = append(args, key, v)
		}
	}
	l.log.Error("BGP speaker", args...)
}

// reason finds why there is no session.
func (l *logger) reason(msg string, f gobgp.Fields) {
	key, _ := f["Key"].(string)
	switch msg {
	case "failed to connect":
		l.peers.failed(l.log, key, fmt.Sprintf("cannot connect: %v", f["Error"]))
	case "failed to resolve local address":
		l.peers.failed(l.log, key, "the local address is of no use")
	case "Session will be reset due to malformed BGP Header", "Session will be reset due to malformed BGP message":
		l.peers.failed(l.log, key, fmt.Sprintf("malformed message from the peer: %v", f["Error"]))
	case "Session will be reset due to malformed BGP update message":
		l.peers.failed(l.log, key, fmt.Sprintf("malformed update from the peer: %v", f["error"]))
	case "prefix limit reached":
		if _, warning := f["Pct"]; !warning {
			l.peers.failed(l.log, key, "the peer sends more routes than max_received; have it send none")
		}
	case "sent notification":
		if why, ok := f["Data"].(error); ok {
			l.peers.failed(l.log, key, fmt.Sprintf("refused: %v", why))
		}
	case "received notification":
		why := "the peer closed the session: " + notification(f)
		if said, _ := f["Communicated-Reason"].(string); said != "" {
			why += fmt.Sprintf(" (%q)", said)
		}
		l.peers.failed(l.log, key, why)
	case "Peer Down":
		l.peers.broke(key, downReason(f["Reason"]))
	case "state changed":
		switch {
		case f["new"] == "BGP_FSM_ACTIVE":
			l.peers.tries(key)
		case f["new"] == "BGP_FSM_IDLE" && f["old"] != "BGP_FSM_ESTABLISHED":
			// Before a session is established its end is not called Peer Down.
			if why := beforeUp[fmt.Sprint(f["reason"])]; why != "" {
				l.peers.ended(l.log, key, why)
			}
		}
	}
}

// beforeUp is what ended a session before it was established, by GoBGP's word
// for it. What a notification said that came then GoBGP does not tell.
var beforeUp = map[string]string{
	"invalid-msg":        "the peer refused the session, as one does that expects another AS of us; its log says why",
	"read-failed":        "the peer closed the connection before the session was established",
	"write-failed":       "the connection broke before the session was established",
	"hold-timer-expired": "the peer was silent before the session was established",
}

// brokenConnection is GoBGP's word for what ends a session without a
// notification.
var brokenConnection = map[string]string{
	"read-failed":        "the peer closed the connection",
	"write-failed":       "the connection broke",
	"hold-timer-expired": "the peer was silent for the hold time",
}

func downReason(reason any) string {
	if why := brokenConnection[fmt.Sprint(reason)]; why != "" {
		return why
	}
	return fmt.Sprint(reason)
}

// notification names what a notification says.
func notification(f gobgp.Fields) string {
	code, _ := f["Code"].(uint8)
	subcode, _ := f["Subcode"].(uint8)
	return bgp.NewNotificationErrorCode(code, subcode).String()
}
