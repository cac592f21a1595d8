package health

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// An Agent is a program on the real server that is asked how the real server
// is and how much it can take, by the protocol of HAProxy's agent-check: it
// answers a connection by one line of words. An agent that cannot be asked
// changes nothing, since that is what the check is for.
type Agent struct {
	Addr     netip.AddrPort // not valid: there is none
	Send     string         // before it answers
	Interval time.Duration
	Timeout  time.Duration
}

// asked is what an agent has said up to now. Its zero value is that of one that
// has not said anything.
type asked struct {
	down, drain, maintenance bool
	why                      string // it is down
	maxFlows                 int    // that it is to have; 0: as configured
	less                     int    // per cent that the weight is below the configured one; below 0: above it
}

// ask asks the agent and returns its line.
func (a *Agent) ask(ctx context.Context) (line string, err error) {
	conn, err := Target{Addr: a.Addr}.dial(ctx, "tcp")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, a.Send); err != nil {
		return "", err
	}
	var said []byte
	buf := make([]byte, 256)
	for {
		n, err := conn.Read(buf)
		said = append(said, buf[:n]...)
		line, _, complete := strings.Cut(strings.ReplaceAll(string(said), "\r", "\n"), "\n")
		switch {
		case complete || err == io.EOF && len(said) > 0:
			return line, nil
		case err != nil:
			return "", err
		case len(said) > maxAnswer:
			return "", fmt.Errorf("no line in the first %d bytes", maxAnswer)
		}
	}
}

// maxPercent bounds the share of its weight that an agent can ask for.
const maxPercent = 1000

// maxConn is what an agent says before the number of connections that the real
// server is to have at most. As with HAProxy each director applies it by itself.
const maxConn = "maxconn:"

// hear takes a line of the agent; what follows a # is for people. The words that it does not know it names in
// the error, and follows the others.
func (s *asked) hear(line string) error {
	var unknown []string
	words, why, _ := strings.Cut(line, "#")
	for _, word := range strings.FieldsFunc(words, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' }) {
		switch word {
		case "up":
			s.down, s.why = false, ""
		case "down", "failed", "stopped":
			s.down, s.why = true, word
			if why != "" {
				s.why += ": " + strings.TrimSpace(why)
			}
		case "drain":
			s.drain, s.maintenance = true, false
		case "maint":
			s.drain, s.maintenance = false, true
		case "ready":
			s.drain, s.maintenance = false, false
		default:
			if !s.hearNumber(word) {
				unknown = append(unknown, word)
			}
		}
	}
	if unknown != nil {
		return fmt.Errorf("the agent says %q, which means nothing", strings.Join(unknown, " "))
	}
	return nil
}

// hearNumber takes a word with a number, and is false for any other.
func (s *asked) hearNumber(word string) bool {
	if number, ok := strings.CutPrefix(word, maxConn); ok {
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil {
			return false
		}
		s.maxFlows = int(n)
		return true
	}
	number, ok := strings.CutSuffix(word, "%")
	n, err := strconv.ParseUint(number, 10, 31)
	if !ok || err != nil || n > maxPercent {
		return false
	}
	s.less = 100 - int(n)
	return true
}
