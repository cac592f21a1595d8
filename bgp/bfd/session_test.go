package bfd

import (
	"math/rand/v2"
	"testing"
	"time"
)

const ms = time.Millisecond

func testRandom() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// A line joins two sessions and lets time pass.
type line struct {
	t       *testing.T
	ends    [2]*session
	now     time.Duration
	cut     [2]bool            // what the end of that number sends is lost
	sent    [2][]time.Duration // when
	flags   [2][]packet        // what
	latency time.Duration
	flight  []flying
}

type flying struct {
	at time.Duration
	to int
	p  packet
}

func newLine(t *testing.T, a, b *session) *line {
	return &line{t: t, ends: [2]*session{a, b}, latency: ms}
}

// run lets d pass, a millisecond at a time.
func (l *line) run(d time.Duration) {
	for end := l.now + d; l.now < end; l.now += ms {
		rest := l.flight[:0]
		arrived := []flying{}
		for _, f := range l.flight {
			if f.at > l.now {
				rest = append(rest, f)
			} else {
				arrived = append(arrived, f)
			}
		}
		l.flight = rest
		for _, f := range arrived {
			s := l.ends[f.to]
			if answer, final := s.receive(f.p, l.now); answer {
				reply := s.packet()
				reply.poll, reply.final = false, final
				l.send(f.to, reply)
			}
		}
		for i, s := range l.ends {
			if s.due(l.now) {
				l.send(i, s.packet())
			}
		}
	}
}

func (l *line) send(from int, p packet) {
	// What is sent must be what a peer takes.
	if got, err := parsePacket(p.append(nil)); err != nil || got != p {
		l.t.Fatalf("%v: sent %+v: %v", l.now, p, err)
	}
	l.sent[from] = append(l.sent[from], l.now)
	l.flags[from] = append(l.flags[from], p)
	if !l.cut[from] {
		l.flight = append(l.flight, flying{l.now + l.latency, 1 - from, p})
	}
}

func (l *line) states() [2]State { return [2]State{l.ends[0].state, l.ends[1].state} }

func (l *line) want(a, b State) {
	l.t.Helper()
	if got := l.states(); got != [2]State{a, b} {
		l.t.Fatalf("after %v: %v, want %v %v", l.now, got, a, b)
	}
}

// upLine is a line whose sessions are up and have agreed on their speed.
func upLine(t *testing.T) *line {
	l := newLine(t, newSession(300*ms, 3, 1, testRandom()), newSession(300*ms, 3, 2, testRandom()))
	l.run(5 * time.Second)
	l.want(Up, Up)
	return l
}

func TestSessionsComeUp(t *testing.T) {
	l := newLine(t, newSession(300*ms, 3, 1, testRandom()), newSession(300*ms, 3, 2, testRandom()))
	l.run(2 * time.Second)
	l.want(Up, Up)
	polls, finals := 0, 0
	for _, end := range l.flags {
		for _, p := range end {
			if p.poll && p.final {
				t.Error("a packet with both bits")
			}
			if p.poll {
				polls++
			}
			if p.final {
				finals++
			}
		}
	}
	if polls == 0 || finals == 0 || l.ends[0].polling || l.ends[1].polling {
		t.Errorf("%d polls, %d finals, still polling: %v %v", polls, finals, l.ends[0].polling, l.ends[1].polling)
	}
}

func TestPacketsAreSlowUntilUpAndJittered(t *testing.T) {
	l := newLine(t, newSession(300*ms, 3, 1, testRandom()), newSession(300*ms, 3, 2, testRandom()))
	l.cut = [2]bool{true, true}
	l.run(20 * time.Second)
	check := func(times []time.Duration, least, most time.Duration) {
		t.Helper()
		seen := map[time.Duration]bool{}
		for i := 1; i < len(times); i++ {
			gap := times[i] - times[i-1]
			if gap < least || gap > most {
				t.Errorf("%v between two packets, want %v to %v", gap, least, most)
			}
			seen[gap] = true
		}
		if len(seen) < 5 {
			t.Errorf("%d packets, %d different gaps: no jitter", len(times), len(seen))
		}
	}
	check(l.sent[0], 750*ms, 1001*ms)
	l = upLine(t)
	l.sent = [2][]time.Duration{}
	l.run(20 * time.Second)
	check(l.sent[0], 225*ms, 301*ms)
	l = newLine(t, newSession(300*ms, 1, 1, testRandom()), newSession(300*ms, 3, 2, testRandom()))
	l.cut = [2]bool{true, true}
	l.run(20 * time.Second)
	check(l.sent[0], 750*ms, 901*ms)
}

func TestSilenceIsDetectedInTime(t *testing.T) {
	tests := []struct {
		name        string
		a, b        *session
		least, most time.Duration // at a, when b falls silent
	}{
		{name: "three intervals of 300 ms", a: newSession(300*ms, 3, 1, testRandom()), b: newSession(300*ms, 3, 2, testRandom()), least: 600 * ms, most: 902 * ms},
		{name: "the peer's multiplier counts", a: newSession(300*ms, 3, 1, testRandom()), b: newSession(300*ms, 5, 2, testRandom()), least: 1200 * ms, most: 1502 * ms},
		{name: "the slower side sets the speed", a: newSession(100*ms, 3, 1, testRandom()), b: newSession(400*ms, 3, 2, testRandom()), least: 800 * ms, most: 1202 * ms},
		{name: "also where that is the receiver", a: newSession(400*ms, 3, 1, testRandom()), b: newSession(100*ms, 3, 2, testRandom()), least: 800 * ms, most: 1202 * ms},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLine(t, tt.a, tt.b)
			l.run(5 * time.Second)
			l.want(Up, Up)
			l.cut[1] = true
			start := l.now
			for l.ends[0].state == Up && l.now < start+5*time.Second {
				l.run(ms)
			}
			if took := l.now - start; took < tt.least || took > tt.most {
				t.Errorf("detected after %v, want %v to %v", took, tt.least, tt.most)
			}
			if l.ends[0].diag != TimeExpired {
				t.Errorf("reason %v", l.ends[0].diag)
			}
			// The other side hears of it.
			l.run(100 * ms)
			l.want(Down, Down)
			if l.ends[1].diag != NeighborDown {
				t.Errorf("the other's reason %v", l.ends[1].diag)
			}
			l.cut[1] = false
			l.run(5 * time.Second)
			l.want(Up, Up)
		})
	}
}

func TestOneLostPacketIsNoFailure(t *testing.T) {
	l := upLine(t)
	for range 20 {
		l.cut = [2]bool{true, true}
		l.run(300 * ms)
		l.cut = [2]bool{}
		l.run(700 * ms)
		l.want(Up, Up)
	}
}

func TestPeerThatRestartsIsNoticed(t *testing.T) {
	l := upLine(t)
	l.ends[1] = newSession(300*ms, 3, 99, testRandom())
	l.ends[1].sendAt = l.now
	noticed := false
	for range 10 {
		l.run(ms)
		noticed = noticed || l.ends[0].state != Up
	}
	if !noticed {
		t.Error("up all the time")
	}
	l.run(3 * time.Second)
	l.want(Up, Up)
	if l.ends[0].yours != 99 {
		t.Errorf("discriminator %d", l.ends[0].yours)
	}
}

func TestPeerThatIsDisabled(t *testing.T) {
	l := upLine(t)
	p := l.ends[1].packet()
	p.state, p.diag = AdminDown, Disabled
	l.ends[0].receive(p, l.now)
	if s := l.ends[0]; s.state != Down || s.remote != AdminDown || s.diag != NeighborDown {
		t.Errorf("%v, peer %v, reason %v", s.state, s.remote, s.diag)
	}
}

func TestPeerThatWantsNoPacketsGetsNone(t *testing.T) {
	l := upLine(t)
	p := l.ends[1].packet()
	p.requiredMinRx = 0
	l.ends[0].receive(p, l.now)
	for range 10 {
		l.now += 80 * ms
		if l.ends[0].due(l.now) {
			t.Fatal("sent one")
		}
	}
}

func TestPeerThatWantsThemFasterGetsThemSoon(t *testing.T) {
	s := newSession(300*ms, 3, 1, testRandom())
	slow := packet{state: Down, multiplier: 3, mine: 2, desiredMinTx: time.Second, requiredMinRx: time.Minute}
	s.receive(slow, 0)
	s.due(0)
	fast := slow
	fast.requiredMinRx = 300 * ms
	s.receive(fast, time.Second)
	if next := s.next(); next > 2*time.Second {
		t.Errorf("the next packet comes at %v", next)
	}
}
