package bgp

import (
	"fmt"
	"log/slog"

	gobgp "github.com/osrg/gobgp/v3/pkg/log"
)

// A logger takes what GoBGP logs. GoBGP tells a session's state by events, but
// why it closed one only here, so this is where that is found. Nothing else
// that it says of a session is passed on, and of a message only chosen fields
// are read: none can hold a password.
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
func (l *logger) Debug(string, gobgp.Fields)       {}
func (l *logger) SetLevel(gobgp.LogLevel)          {}
func (l *logger) GetLevel() gobgp.LogLevel         { return gobgp.InfoLevel }

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

// reason finds why GoBGP closed a session.
func (l *logger) reason(msg string, f gobgp.Fields) {
	key, _ := f["Key"].(string)
	i := l.peers.index(key)
	if i < 0 {
		return
	}
	switch msg {
	case "sent notification":
		if why, ok := f["Data"].(error); ok {
			l.peers.failed(l.log, i, fmt.Sprintf("refused: %v", why))
		}
	case "hold timer expired":
		l.peers.failed(l.log, i, "the peer was silent for the hold time")
	}
}
