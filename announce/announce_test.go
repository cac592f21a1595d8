package announce

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	vip1 = netip.MustParseAddr("203.0.113.1")
	vip2 = netip.MustParseAddr("203.0.113.2")
)

// web is a service of ten real servers on vip1.
func web(healthy int) Service {
	return Service{Name: "web", VIPs: []netip.Addr{vip1, vip1}, Weight: 10, Healthy: healthy, Quorum: 1}
}

func named(name string, s Service) Service {
	s.Name = name
	return s
}

func quorum(s Service, quorum, hysteresis int) Service {
	s.Quorum, s.Hysteresis = quorum, hysteresis
	return s
}

func answered(s Service, by string) Service {
	s.Answers = by
	return s
}

// A step is what the Decider is told at a time and what it must answer.
type step struct {
	at       time.Duration
	services []Service
	want     string // VIPs announced, each with its MED where that is not 0, and its level where that is not whole
	next     time.Duration
}

func show(verdicts []Verdict) string {
	var out []string
	for _, v := range verdicts {
		if !v.Announce {
			continue
		}
		s := v.VIP.String()
		if v.MED != 0 {
			s += fmt.Sprintf("+%d", v.MED)
		}
		if v.Level != Whole {
			s += " " + v.Level.String()
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestDecide(t *testing.T) {
	one, none := []Service{web(1)}, []Service{web(0)}
	const up = "203.0.113.1"
	tests := []struct {
		name    string
		options Options
		steps   []step
	}{
		{"a VIP is announced while a real server is fit", Options{}, []step{
			{0, none, "", 0}, {1, one, up, 0}, {2, []Service{web(10)}, up, 0}, {3, none, "", 0}, {4, one, up, 0}}},
		{"below the quorum it is withdrawn", Options{}, []step{
			{0, []Service{quorum(web(4), 5, 0)}, "", 0}, {1, []Service{quorum(web(5), 5, 0)}, up, 0}, {2, []Service{quorum(web(4), 5, 0)}, "", 0}}},
		{"hysteresis keeps it as it is near the quorum", Options{}, []step{
			{0, []Service{quorum(web(5), 5, 2)}, "", 0}, {1, []Service{quorum(web(7), 5, 2)}, up, 0}, {2, []Service{quorum(web(3), 5, 2)}, up, 0},
			{3, []Service{quorum(web(2), 5, 2)}, "", 0}, {4, []Service{quorum(web(6), 5, 2)}, "", 0}, {5, []Service{quorum(web(7), 5, 2)}, up, 0}}},
		{"any of its services is enough", Options{}, []step{
			{0, []Service{web(1), named("mail", web(0))}, up, 0}, {1, []Service{web(0), named("mail", web(1))}, up, 0}, {2, []Service{web(0), named("mail", web(0))}, "", 0}}},
		{"or all of its services are needed", Options{All: true}, []step{
			{0, []Service{web(1), named("mail", web(0))}, "", 0}, {1, []Service{web(1), named("mail", web(1))}, up, 0}, {2, []Service{web(0), named("mail", web(1))}, "", 0}}},
		{"a sorry server keeps it announced", Options{}, []step{{0, []Service{answered(web(0), "the sorry server answers")}, up + " backup", 0}}},
		{"VIPs are told apart", Options{}, []step{
			{0, []Service{web(0), {Name: "mail", VIPs: []netip.Addr{vip2}, Weight: 1, Healthy: 1, Quorum: 1}}, "203.0.113.2", 0}}},
		{"a VIP that no service has any more is forgotten", Options{HoldDown: time.Hour}, []step{
			{0, one, up, 0}, {1, none, "", 0}, {2, nil, "", 0}, {3, one, up, 0}}},
		{"the MED grows as real servers fail", Options{Span: 100}, []step{
			{0, []Service{web(10)}, up, 0}, {1, []Service{web(9)}, up + "+10", 0}, {2, []Service{web(1)}, up + "+90", 0},
			{3, []Service{web(10), named("mail", web(5))}, up + "+25", 0}, {4, []Service{answered(web(0), "sorry")}, up + "+100 backup", 0},
			{5, []Service{answered(Service{Name: "web", VIPs: []netip.Addr{vip1}, Quorum: 1}, "sorry")}, up + "+100 backup", 0}}},
		{"a VIP with less than its share of healthy weight is degraded", Options{Degraded: 50}, []step{
			{0, []Service{web(5)}, up, 0}, {1, []Service{web(4)}, up + " degraded", 0}, {2, []Service{web(4), named("mail", web(6))}, up, 0},
			{3, []Service{web(3), named("mail", web(6))}, up + " degraded", 0}, {4, none, "", 0}}},
		{"one that only a sorry server answers is so, until a service is up by itself", Options{Degraded: 50}, []step{
			{0, []Service{answered(quorum(web(2), 3, 0), "sorry")}, up + " backup", 0}, {1, []Service{answered(quorum(web(3), 3, 0), "sorry")}, up + " degraded", 0},
			{2, []Service{answered(quorum(web(2), 3, 0), "sorry"), named("mail", web(10))}, up, 0},
			{3, []Service{answered(quorum(web(2), 3, 0), "sorry"), named("mail", quorum(web(2), 3, 0))}, up + " backup", 0}}},
		{"hold-down: the first announcement is at once, the next one after its time", Options{HoldDown: time.Second}, []step{
			{0, one, up, 0},
			{5 * time.Second, none, "", 0},
			{6 * time.Second, one, "", 7 * time.Second},
			{6500 * time.Millisecond, one, "", 7 * time.Second},
			{7 * time.Second, one, up, 0}}},
		{"hold-down begins again when the VIP goes down meanwhile", Options{HoldDown: time.Second}, []step{
			{0, one, up, 0}, {time.Second, none, "", 0}, {2 * time.Second, one, "", 3 * time.Second},
			{2500 * time.Millisecond, none, "", 0}, {4 * time.Second, one, "", 5 * time.Second}, {5 * time.Second, one, up, 0}}},
		{"hold-down doubles for what flaps, and is forgotten after ten times its time", Options{HoldDown: time.Second}, []step{
			{0, one, up, 0}, {time.Second, none, "", 0}, {2 * time.Second, one, "", 3 * time.Second}, {3 * time.Second, one, up, 0},
			{4 * time.Second, none, "", 0}, {5 * time.Second, one, "", 7 * time.Second}, {7 * time.Second, one, up, 0},
			{8 * time.Second, none, "", 0}, {9 * time.Second, one, "", 13 * time.Second}, {13 * time.Second, one, up, 0},
			{23 * time.Second, one, up, 0}, {24 * time.Second, none, "", 0}, {25 * time.Second, one, "", 26 * time.Second}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDecider()
			for _, s := range tt.steps {
				verdicts, next := d.Decide(s.at, tt.options, s.services)
				if got := show(verdicts); got != s.want || next != s.next {
					t.Errorf("at %v: %q and again at %v, want %q and %v; %+v", s.at, got, next, s.want, s.next, verdicts)
				}
			}
		})
	}
}

func TestAVIPIsAnnouncedOnceItIsProven(t *testing.T) {
	fault, asked := "no answer", 0
	o := Options{HoldDown: time.Minute, Fault: func(netip.Addr) string { asked++; return fault }}
	d := NewDecider()
	for i, step := range []struct {
		name    string
		healthy int
		fault   string
		want    string
		asked   int
	}{
		{"one that is down is not asked for", 0, "no answer", "web: weight 0 of 10 is healthy, 1 is needed", 0},
		{"it waits for the answer", 1, "no answer", "self-probe: no answer", 1},
		{"whatever the fault", 2, "another", "self-probe: another", 2},
		{"is announced at once with it, no withdrawal having been", 2, "", "", 3},
		{"and not asked again", 2, "no answer", "", 3},
		{"nor when it comes back", 0, "no answer", "web: weight 0 of 10 is healthy, 1 is needed", 3},
		{"after its hold-down", 1, "no answer", "", 3},
	} {
		fault = step.fault
		verdicts, _ := d.Decide(time.Duration(i)*time.Hour, o, []Service{web(step.healthy)})
		if i == 6 { // the hold-down begins with the return
			verdicts, _ = d.Decide(time.Duration(i+1)*time.Hour, o, []Service{web(step.healthy)})
		}
		v := verdicts[0]
		if v.Announce != (step.want == "") || !v.Announce && v.Reason != step.want || asked != step.asked {
			t.Errorf("%s: %+v after %d questions, want %q after %d", step.name, v, asked, step.want, step.asked)
		}
	}
	d.Decide(10*time.Hour, o, nil)
	if verdicts, _ := d.Decide(11*time.Hour, o, []Service{web(1)}); verdicts[0].Announce {
		t.Error("a VIP that is new again is announced without an answer")
	}
}

func TestReasons(t *testing.T) {
	tests := []struct {
		name     string
		options  Options
		services []Service
		want     string
	}{
		{"up", Options{}, []Service{web(3)}, "web: weight 3 of 10 is healthy"},
		{"down", Options{}, []Service{quorum(web(3), 5, 1)}, "web: weight 3 of 10 is healthy, 6 is needed"},
		{"what keeps it up is told, not what is down", Options{}, []Service{web(0), named("mail", web(2))}, "mail: weight 2 of 10 is healthy"},
		{"what keeps it down is told, not what is up", Options{All: true}, []Service{web(0), named("mail", web(2))}, "web: weight 0 of 10 is healthy, 1 is needed"},
		{"somebody answers", Options{}, []Service{answered(web(0), "the sorry server answers")}, "web: the sorry server answers"},
		{"of many services a few", Options{}, []Service{web(1), named("a", web(2)), named("b", web(3)), named("c", web(4)), named("d", web(5))},
			"web: weight 1 of 10 is healthy; a: weight 2 of 10 is healthy; b: weight 3 of 10 is healthy; and 2 more"},
		{"somebody would answer", Options{}, []Service{answered(web(1), "the sorry server answers")}, "web: weight 1 of 10 is healthy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			verdicts, _ := NewDecider().Decide(0, tt.options, tt.services)
			if len(verdicts) != 1 || verdicts[0].Reason != tt.want {
				t.Errorf("%+v, want %q", verdicts, tt.want)
			}
		})
	}
	d := NewDecider()
	o := Options{HoldDown: time.Minute}
	for i, healthy := range []int{1, 0, 1} {
		verdicts, _ := d.Decide(time.Duration(i)*time.Second, o, []Service{web(healthy)})
		if want := "held down for 1m0s more, withdrawals lately: 1"; i == 2 && verdicts[0].Reason != want {
			t.Errorf("%q, want %q", verdicts[0].Reason, want)
		}
	}
}

// TestInvariants walks at random and holds what must always be so.
func TestInvariants(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		d := NewDecider()
		o := Options{All: r.IntN(2) == 0, HoldDown: time.Duration(r.IntN(3)) * time.Second, Span: r.IntN(2) * 100}
		quorumOf, hysteresis := 1+r.IntN(5), 0
		if quorumOf > 1 {
			hysteresis = r.IntN(quorumOf)
		}
		var now, withdrawn time.Duration
		before, ever := false, false
		for range 200 {
			now += time.Duration(r.IntN(2000)) * time.Millisecond
			healthy := r.IntN(11)
			verdicts, next := d.Decide(now, o, []Service{quorum(web(healthy), quorumOf, hysteresis)})
			v := verdicts[0]
			switch {
			case v.Announce && healthy < quorumOf-hysteresis:
				t.Fatalf("announced with %d healthy, quorum %d, hysteresis %d", healthy, quorumOf, hysteresis)
			case o.HoldDown == 0 && v.Announce && !before && healthy < quorumOf+hysteresis:
				t.Fatalf("came up with %d healthy, quorum %d, hysteresis %d", healthy, quorumOf, hysteresis)
			case v.Announce && !before && ever && now < withdrawn+o.HoldDown:
				t.Fatalf("back after %v, hold-down is %v", now-withdrawn, o.HoldDown)
			case !v.Announce && healthy >= quorumOf+hysteresis && next == 0:
				t.Fatalf("neither announced nor to be looked at again: %+v", v)
			case next != 0 && (next <= now || v.Announce):
				t.Fatalf("at %v to be looked at again at %v: %+v", now, next, v)
			case v.MED < 0 || v.MED > o.Span || v.Reason == "":
				t.Fatalf("%+v", v)
			}
			if before && !v.Announce {
				withdrawn = now
			}
			before, ever = v.Announce, ever || v.Announce
		}
	}
}
