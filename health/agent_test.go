package health

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestWhatAnAgentSays(t *testing.T) {
	type said struct {
		line    string
		want    State
		percent int
		most    int // flows
	}
	tests := []struct {
		name  string
		lines []said
	}{
		{"a share of the weight, until it says another", []said{{"75%", Up, 75, 0}, {"up", Up, 75, 0}, {"100%", Up, 100, 0}, {"0%", Up, 0, 0}, {"150%", Up, 150, 0}}},
		{"drain, until ready", []said{{"drain", Draining, 100, 0}, {"up", Draining, 100, 0}, {"ready", Up, 100, 0}}},
		{"maint, until ready", []said{{"maint", Maintenance, 100, 0}, {"50%", Maintenance, 50, 0}, {"ready", Up, 50, 0}}},
		{"drain in place of maint", []said{{"maint", Maintenance, 100, 0}, {"drain", Draining, 100, 0}}},
		{"down, until up", []said{{"down", Down, 100, 0}, {"ready", Down, 100, 0}, {"up", Up, 100, 0}}},
		{"the other words for down, with why", []said{{"failed # no space left", Down, 100, 0}, {"up", Up, 100, 0}, {"stopped", Down, 100, 0}}},
		{"several words at once", []said{{"up ready 75%", Up, 75, 0}, {"drain,10%", Draining, 10, 0}, {"\tready\t100%", Up, 100, 0}}},
		{"nothing", []said{{"", Up, 100, 0}, {"drain", Draining, 100, 0}, {"", Draining, 100, 0}}},
		{"down wins over drain", []said{{"down drain", Down, 100, 0}, {"up", Draining, 100, 0}}},
		{"a limit, until it says another", []said{{"maxconn:30 up", Up, 100, 30}, {"ready", Up, 100, 30}, {"maxconn:7,50%", Up, 50, 7}, {"maxconn:0", Up, 50, 0}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMember(memberOf("web", &scripted{}), nil, time.Now())
			m.note(nil, 0)
			for _, s := range tt.lines {
				if err := m.asked.hear(s.line); err != nil {
					t.Errorf("%q: %v", s.line, err)
				}
				m.shown = m.state()
				if got := m.status(time.Now()); got.State != s.want || got.Percent != s.percent || got.MaxFlows != s.most {
					t.Errorf("after %q: %v at %d %% of at most %d, want %v at %d %% of at most %d", s.line, got.State, got.Percent, got.MaxFlows, s.want, s.percent, s.most)
				}
			}
		})
	}
	for line, want := range map[string]string{
		"fine":                                   `the agent says "fine", which means nothing`,
		"75% -1% 5000%":                          `the agent says "-1% 5000%", which means nothing`,
		"maxconn:-1 up":                          `the agent says "maxconn:-1", which means nothing`,
		"maxconn: 4294967296 maxconn:4294967296": `the agent says "maxconn: 4294967296 maxconn:4294967296", which means nothing`,
	} {
		var a asked
		if err := a.hear(line); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", line, err, want)
		}
	}
}

func FuzzHear(f *testing.F) {
	f.Add("up 75% down#why,drain maint\tready maxconn:30")
	f.Fuzz(func(t *testing.T, line string) {
		var a asked
		_ = a.hear(line)
		if n := 100 - a.less; n < 0 || n > maxPercent || a.maxFlows < 0 || a.drain && a.maintenance {
			t.Errorf("%+v", a)
		}
	})
}

// TestAnAgentIsAsked: over a connection for each question, by a program that
// may wait for a word of ours.
func TestAnAgentIsAsked(t *testing.T) {
	var line atomic.Value
	line.Store("drain 50%\n")
	l, at := listen(t, "127.0.0.1:0")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func(c net.Conn) {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				if await(c, []byte("how are you?")) == nil {
					_, _ = io.WriteString(c, line.Load().(string))
				}
			}(c)
		}
	}()
	changed := make(chan struct{}, 1)
	mb := Member{Service: "web", Server: netip.MustParseAddrPort("192.0.2.1:80"), Options: Options{Type: None},
		Agent: Agent{Addr: at, Send: "how are you?", Interval: 20 * time.Millisecond, Timeout: patience}}
	m := run(t, MonitorOptions{Changed: func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}}, mb)
	wait := func(what string, ok func(Status) bool) {
		t.Helper()
		deadline := time.After(patience)
		for !ok(stateOf(t, m, "web")) {
			select {
			case <-deadline:
				t.Fatalf("never %s: %+v", what, stateOf(t, m, "web"))
			case <-changed:
			case <-time.After(time.Millisecond):
			}
		}
	}
	wait("draining", func(s Status) bool { return s.State == Draining && s.Percent == 50 && s.Cause == "the agent says so" })
	line.Store("ready 100%\r\nwhatever follows")
	wait("up again", func(s Status) bool { return s.State == Up && s.Percent == 100 })
	line.Store("down#on fire\n")
	wait("down", func(s Status) bool { return s.State == Down && s.Cause == "the agent says down: on fire" })
	line.Store("gibberish\n")
	wait("not understood", func(s Status) bool { return strings.Contains(s.AgentError, "gibberish") && s.State == Down })
	l.Close()
	wait("not there, which changes nothing", func(s Status) bool { return strings.Contains(s.AgentError, "refused") && s.State == Down })
}

func TestAnAgentThatDoesNotStop(t *testing.T) {
	at := answering(t, "", strings.Repeat("x", maxAnswer+1000))
	a := Agent{Addr: at}
	if line, err := a.ask(limited(t, patience)); err == nil || !strings.Contains(err.Error(), "no line in the first") {
		t.Errorf("%d bytes, %v", len(line), err)
	}
}
