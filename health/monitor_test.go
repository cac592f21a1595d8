package health

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A scripted is a Check whose results are given: one letter each, g good or b
// bad, the last one for ever. It notes when it was asked.
type scripted struct {
	mu      sync.Mutex
	results string
	at      []time.Duration // since begin
	begin   time.Time
	takes   time.Duration
}

var errBad = errors.New("bad")

func (s *scripted) Check(ctx context.Context, _ Target) error {
	s.mu.Lock()
	s.at = append(s.at, time.Since(s.begin))
	result := s.results[0]
	if len(s.results) > 1 {
		s.results = s.results[1:]
	}
	s.mu.Unlock()
	if s.takes > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(s.takes):
		}
	}
	if result == 'b' {
		return errBad
	}
	return nil
}

func (s *scripted) asked() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

var timing = Timing{Interval: 10 * time.Second, Fast: time.Second, Timeout: time.Second, Rise: 2, Fall: 3}

func memberOf(service string, c Check) Member {
	return Member{Service: service, Server: netip.MustParseAddrPort("192.0.2.1:80"), Check: c, Options: Options{Type: "tcp"}, Timing: timing}
}

// run runs a Monitor in a bubble of synctest for the time of the test.
func run(t *testing.T, o MonitorOptions, members ...Member) *Monitor {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := NewMonitor(o)
	m.Set(members)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return m
}

func stateOf(t *testing.T, m *Monitor, service string) Status {
	t.Helper()
	for _, s := range m.Status() {
		if s.Service == service {
			return s
		}
	}
	t.Fatalf("no status of %s", service)
	return Status{}
}

func TestStates(t *testing.T) {
	tests := []struct {
		name    string
		results string
		want    []State // after each
	}{
		{"the first good check brings a real server up", "g", []State{Up}},
		{"the first bad check brings it down", "b", []State{Down}},
		{"as many bad checks as fall bring it down", "gbbb", []State{Up, Up, Up, Down}},
		{"as many good checks as rise bring it up", "bgg", []State{Down, Down, Up}},
		{"bad checks that are not consecutive do not count", "gbbgbbgbbb", []State{Up, Up, Up, Up, Up, Up, Up, Up, Up, Down}},
		{"good checks that are not consecutive do not count", "bgbgbgg", []State{Down, Down, Down, Down, Down, Down, Up}},
		{"it goes down again after as many checks as the first time", "gbbbggbbb", []State{Up, Up, Up, Down, Down, Up, Up, Up, Down}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMember(memberOf("web", &scripted{}), nil, time.Now())
			if m.state() != Checking {
				t.Fatalf("before the first check: %v", m.state())
			}
			for i, r := range tt.results {
				var err error
				if r == 'b' {
					err = errBad
				}
				m.note(err, 0)
				if m.state() != tt.want[i] {
					t.Errorf("after %s: %v, want %v", tt.results[:i+1], m.state(), tt.want[i])
				}
			}
		})
	}
}

func TestWhatIsNotCheckedIsUp(t *testing.T) {
	m := NewMonitor(MonitorOptions{})
	m.Set([]Member{{Service: "web", Options: Options{Type: None}}})
	if s := stateOf(t, m, "web"); s.State != Up {
		t.Errorf("%v", s.State)
	}
	select {
	case <-m.Settled():
	default:
		t.Error("not settled, but there is no check to wait for")
	}
}

func TestChecksComeFasterWhileInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{results: "ggbgbbbbbg", begin: time.Now()}
		m := run(t, MonitorOptions{}, memberOf("web", s))
		time.Sleep(90 * time.Second)
		// What the interval before each check must have been: 10 s, but 1 s
		// after a result that speaks against the state.
		wantFast := []bool{false, false, false, true, false, true, true, false, false, false, true}
		at := s.asked()
		if len(at) < len(wantFast) {
			t.Fatalf("only %d checks: %v", len(at), at)
		}
		for i, fast := range wantFast {
			if i == 0 {
				continue
			}
			want := timing.Interval
			if fast {
				want = timing.Fast
			}
			if d := at[i] - at[i-1]; d < want*94/100 || d > want*106/100 {
				t.Errorf("check %d came %v after the one before, want %v within a twentieth", i, d, want)
			}
		}
		if got := stateOf(t, m, "web"); got.State != Up || got.Transitions != 3 {
			t.Errorf("%+v", got)
		}
	})
}

func TestACheckWithoutAnswerIsBadAfterItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{results: "g", begin: time.Now(), takes: time.Minute}
		m := run(t, MonitorOptions{}, memberOf("web", s))
		<-m.Settled()
		got := stateOf(t, m, "web")
		if got.State != Down || got.LastTook != timing.Timeout || !strings.Contains(got.Cause, "no answer within 1s") {
			t.Errorf("%+v", got)
		}
	})
}

func TestTenThousandChecksDoNotFireTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var members []Member
		var scripts []*scripted
		for i := range 10_000 {
			s := &scripted{results: "g", begin: begin}
			scripts = append(scripts, s)
			mb := memberOf("web", s)
			mb.Server = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i+1))
			mb.Timing.Interval = 2 * time.Second
			members = append(members, mb)
		}
		m := run(t, MonitorOptions{}, members...)
		<-m.Settled()
		time.Sleep(20 * time.Second)
		var each [250]int // checks of every 100 ms
		for _, s := range scripts {
			at := s.asked()
			if len(at) < 9 || len(at) > 13 {
				t.Errorf("%d checks of one real server in 20 s", len(at))
			}
			for _, a := range at {
				each[a/(100*time.Millisecond)]++
			}
		}
		for i, n := range each[1:199] {
			if n > 750 {
				t.Errorf("%d checks in the %dth tenth of a second; 500 are an even share", n, i+1)
			}
		}
	})
}

func TestChangesAreToldAndLoggedOnceWithTheirCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		changes := 0
		s := &scripted{results: "gbbbbbbg", begin: time.Now()}
		m := run(t, MonitorOptions{
			Changed: func() { changes++ }, // from one goroutine: there is one check
			Log:     slog.New(slog.NewTextHandler(&log, nil)),
		}, memberOf("web", s), memberOf("other", nil))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if changes != 3 {
			t.Errorf("told of %d changes, want 3: up, down, up", changes)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "down") || !strings.Contains(lines[0], "cause=bad") || !strings.Contains(lines[1], "up") {
			t.Errorf("logged:\n%s", log.String())
		}
		if got := stateOf(t, m, "web"); got.Cause != "check succeeded" {
			t.Errorf("cause %q", got.Cause)
		}
		if c := m.TakeChanged(); len(c) != 1 || len(c["web"]) != 1 || c["web"][0].State != Up {
			t.Errorf("changed: %+v", c)
		}
		if c := m.TakeChanged(); len(c) != 0 {
			t.Errorf("changed, taken again: %+v", c)
		}
	})
}

func TestAReloadKeepsStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, good := &scripted{results: "b", begin: time.Now()}, &scripted{results: "g", begin: time.Now()}
		m := run(t, MonitorOptions{}, memberOf("bad", bad), memberOf("good", good), memberOf("removed", good))
		<-m.Settled()
		since := stateOf(t, m, "bad").Since
		time.Sleep(time.Second)

		again := memberOf("bad", &scripted{results: "b", begin: time.Now()})
		otherCheck := memberOf("good", &scripted{results: "b", begin: time.Now(), takes: 500 * time.Millisecond})
		otherCheck.Options.Type = "http"
		m.Set([]Member{again, otherCheck, memberOf("new", good)})
		if s := stateOf(t, m, "bad"); s.State != Down || s.Since != since || s.Bad != 1 {
			t.Errorf("the same check: %+v", s)
		}
		if s := stateOf(t, m, "good"); s.State != Up {
			t.Errorf("another check, before its first result: %v", s.State)
		}
		if s := stateOf(t, m, "new"); s.State != Checking {
			t.Errorf("a new real server: %v", s.State)
		}
		time.Sleep(900 * time.Millisecond)
		if s := stateOf(t, m, "good"); s.State != Down {
			t.Errorf("another check, after its first result: %v", s.State)
		}
		n := len(good.asked())
		time.Sleep(11 * time.Second)
		if more := len(good.asked()) - n; more != 1 {
			t.Errorf("%d more checks in an interval, want 1: the removed ones are not checked", more)
		}
	})
}

func TestAReturnedServerIsInSlowStartForItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, back := memberOf("first", &scripted{results: "g", begin: time.Now()}), memberOf("back", &scripted{results: "bg", begin: time.Now()})
		first.SlowStart, back.SlowStart = time.Minute, time.Minute
		m := run(t, MonitorOptions{}, first, back)
		time.Sleep(15 * time.Second)
		if s := stateOf(t, m, "first").State; s != Up {
			t.Errorf("up since the start: %v", s)
		}
		if s := stateOf(t, m, "back").State; s != SlowStart {
			t.Errorf("just back: %v", s)
		}
		time.Sleep(time.Minute)
		if s := stateOf(t, m, "back").State; s != Up {
			t.Errorf("long back: %v", s)
		}
	})
}

func TestNoMoreChecksAtOnceThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{results: "g", begin: time.Now(), takes: 500 * time.Millisecond}
		var members []Member
		for i := range 10 {
			mb := memberOf("web", s)
			mb.Server = netip.AddrPortFrom(mb.Server.Addr(), uint16(i+1))
			members = append(members, mb)
		}
		m := run(t, MonitorOptions{Concurrency: 2}, members...)
		<-m.Settled()
		for i, at := range s.asked() {
			if want := time.Duration(i/2) * s.takes; at < want {
				t.Errorf("check %d began at %v, want not before %v", i, at, want)
			}
		}
	})
}
