package health

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ejectable is a Member that is not checked.
func ejectable(service string) Member {
	mb := memberOf(service, nil)
	mb.Options.Type = None
	mb.Ejection = 10 * time.Second
	return mb
}

var ejected = ejectable("web").Server

// lasts waits until the only Member of web is in a state, and says for how
// long it was not.
func lasts(t *testing.T, m *Monitor, s State) time.Duration {
	t.Helper()
	begin := time.Now()
	for stateOf(t, m, "web").State != s {
		if time.Since(begin) > time.Hour {
			t.Fatalf("never %v", s)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(begin).Round(100 * time.Millisecond)
}

func TestEachEjectionLastsLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := run(t, MonitorOptions{}, ejectable("web"))
		for i, want := range []time.Duration{10, 20, 40, 80, 160, 320, 320} {
			m.Eject("web", ejected, "it fails")
			m.Eject("web", ejected, "it fails again meanwhile")
			s := stateOf(t, m, "web")
			if s.State != Down || !strings.HasPrefix(s.Cause, "it fails; ejected for ") || time.Until(s.Ejected) != want*time.Second || s.Ejections != uint64(i+1) {
				t.Errorf("ejected: %+v", s)
			}
			if got := lasts(t, m, Up); got != want*time.Second {
				t.Errorf("ejection %d lasted %v, want %v", i+1, got, want*time.Second)
			}
			if s := stateOf(t, m, "web"); s.Cause != "its ejection is over" || !s.Ejected.IsZero() {
				t.Errorf("back: %+v", s)
			}
			time.Sleep(99 * time.Second)
		}
		time.Sleep(time.Second)
		m.Eject("web", ejected, "it fails")
		if got := lasts(t, m, Up); got != 10*time.Second {
			t.Errorf("after ten times that without another, an ejection lasted %v", got)
		}
	})
}

func TestAnEjectedServerMustPassItsChecksToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mb := ejectable("web")
		mb.Check = &scripted{results: "gbbbbbbbbgg", begin: time.Now()}
		m := run(t, MonitorOptions{}, mb)
		lasts(t, m, Up)
		m.Eject("web", ejected, "it fails")
		time.Sleep(15 * time.Second)
		if s := stateOf(t, m, "web"); s.State != Down || !s.Ejected.IsZero() {
			t.Errorf("after its ejection, with checks that fail: %+v", s)
		}
		lasts(t, m, Up)
		if s := stateOf(t, m, "web"); s.Cause != "check succeeded" {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhatIsNotEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plain, bad := ejectable("plain"), ejectable("bad")
		plain.Ejection = 0
		bad.Check = &scripted{results: "b", begin: time.Now()}
		m := run(t, MonitorOptions{}, ejectable("web"), plain, bad)
		<-m.Settled()
		for _, service := range []string{"plain", "bad", "nobody"} {
			m.Eject(service, ejected, "it fails")
			m.Spare(service, ejected, "it fails", "the others are needed")
		}
		m.Eject("web", netip.MustParseAddrPort("192.0.2.2:80"), "it fails")
		for _, s := range m.Status() {
			if s.Ejections != 0 || s.Spared != 0 || !s.Ejected.IsZero() {
				t.Errorf("%+v", s)
			}
		}
	})
}

func TestAServerThatIsSparedIsLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		m := run(t, MonitorOptions{Log: slog.New(slog.NewTextHandler(&log, nil))}, ejectable("web"))
		for range 100 {
			m.Spare("web", ejected, "it fails", "no other is fit")
			time.Sleep(200 * time.Millisecond)
		}
		if s := stateOf(t, m, "web"); s.State != Up || s.Spared != 100 {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(log.String(), `cause="it fails" because="no other is fit"`); n != 2 {
			t.Errorf("logged %d times in 20 s:\n%s", n, &log)
		}
	})
}

func TestAReloadKeepsAnEjectionThatItStillWants(t *testing.T) {
	other := ejectable("web")
	other.Check, other.Options.Type = &scripted{results: "g"}, "tcp"
	without := ejectable("web")
	without.Ejection = 0
	for name, tt := range map[string]struct {
		to   Member
		want time.Duration // that it still lasts
	}{
		"the same":             {ejectable("web"), 6 * time.Second},
		"with another check":   {other, 6 * time.Second},
		"without any ejection": {without, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := run(t, MonitorOptions{}, ejectable("web"))
				m.Eject("web", ejected, "it fails")
				time.Sleep(4 * time.Second)
				m.Set([]Member{tt.to})
				if got := lasts(t, m, Up); got != tt.want {
					t.Errorf("lasted %v more, want %v", got, tt.want)
				}
			})
		})
	}
}
