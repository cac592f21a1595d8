// Package announce decides which VIPs routers are told of, and how warmly.
//
//	healthy weight ─► quorum ─► service up ─► any or all ─► proven ─► VIP up ─► hold-down ─► Verdict
//
// A [Decider] is told the health of all services and answers for all VIPs. It
// announces nothing itself and reads no clock: time is an argument, so what it
// does can be replayed.
package announce

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Options are what holds for all VIPs. The zero value is any service, without
// hold-down and grades.
type Options struct {
	// All says that a VIP is announced only while all of its services are up.
	All bool

	// HoldDown is how long a VIP that was withdrawn must be up before it is
	// announced again. It doubles with each further withdrawal, up to 64-fold,
	// until the VIP was announced for ten times HoldDown. Zero: none.
	HoldDown time.Duration

	// Span is what is added to the MED of a VIP of whose real servers none is
	// fit; one whose real servers all are gets nothing added. Zero: no grades.
	Span int

	// Degraded is the share of healthy weight, in per cent, below which a VIP
	// is Degraded. Zero: none ever is.
	Degraded int

	// Fault is asked about a VIP that would be announced for the first time,
	// until it returns an empty text: what keeps it from being so, such as
	// that it does not answer. Nil: nothing does.
	Fault func(vip netip.Addr) string
}

// A Service is one service that wants its VIPs announced.
type Service struct {
	Name    string // a service keeps its state by its name
	VIPs    []netip.Addr
	Weight  int // of all real servers
	Healthy int // of those that are fit

	// Quorum is the healthy weight that it needs, give or take Hysteresis: it
	// comes up at Quorum + Hysteresis and goes down below Quorum - Hysteresis.
	Quorum, Hysteresis int

	// Answers says, where the weight is not enough, who answers all the same,
	// such as a sorry server. Empty: nobody.
	Answers string
}

// A Level says how much of what is behind a VIP is there.
type Level int

// The levels, the best first.
const (
	Whole    Level = iota
	Degraded       // less than Options.Degraded of the weight is healthy
	Backup         // nobody is fit: those answer that do where the weight is not enough
)

func (l Level) String() string { return [...]string{"whole", "degraded", "backup"}[l] }

// A Verdict is what is decided about one VIP.
type Verdict struct {
	VIP      netip.Addr
	Announce bool
	MED      int    // to be added to that of the configuration
	Level    Level  // of one that is announced
	Reason   string // for an operator
}

// A Decider remembers what it has decided. It is for one goroutine at a time.
type Decider struct {
	up   map[string]bool // services, by their names
	vips map[netip.Addr]*history
}

// A history is what is known of one VIP.
type history struct {
	up        bool
	since     time.Duration // of up
	announced bool
	at        time.Duration // when it was announced
	strikes   int           // withdrawals that hold-down has not forgotten
	proven    bool          // Options.Fault has found none
}

// NewDecider makes a Decider that has announced nothing.
func NewDecider() *Decider {
	return &Decider{up: map[string]bool{}, vips: map[netip.Addr]*history{}}
}

// Decide judges all VIPs of the services at the time now, which never goes
// back. The verdicts are sorted by VIP. Where one changes by time alone, next
// is when; zero: none does.
func (d *Decider) Decide(now time.Duration, o Options, services []Service) (verdicts []Verdict, next time.Duration) {
	byVIP := map[netip.Addr][]*Service{}
	up := make(map[string]bool, len(services))
	for i := range services {
		s := &services[i]
		up[s.Name] = s.up(d.up[s.Name])
		for _, vip := range s.VIPs {
			if !slices.Contains(byVIP[vip], s) {
				byVIP[vip] = append(byVIP[vip], s)
			}
		}
	}
	d.up = up
	vips := make(map[netip.Addr]*history, len(byVIP))
	for vip, of := range byVIP {
		h := d.vips[vip]
		if h == nil {
			h = new(history)
		}
		vips[vip] = h
		isUp, reason := d.vipUp(o, of)
		if isUp && !h.proven {
			if fault := o.fault(vip); fault != "" {
				isUp, reason = false, "self-probe: "+fault
			}
			h.proven = isUp
		}
		h.set(isUp, now, o.HoldDown)
		v := Verdict{VIP: vip, Announce: h.announced, Reason: reason}
		if wait := h.wait(now, o.HoldDown); isUp && !h.announced {
			v.Reason = fmt.Sprintf("held down for %v more, withdrawals lately: %d", wait, h.strikes)
			if next == 0 || now+wait < next {
				next = now + wait
			}
		}
		if v.Announce {
			v.MED, v.Level = grade(o.Span, of), d.level(o.Degraded, of)
		}
		verdicts = append(verdicts, v)
	}
	d.vips = vips
	slices.SortFunc(verdicts, func(a, b Verdict) int { return a.VIP.Compare(b.VIP) })
	return verdicts, next
}

func (o *Options) fault(vip netip.Addr) string {
	if o.Fault == nil {
		return ""
	}
	return o.Fault(vip)
}

// up says whether the service is up, which it was before.
func (s *Service) up(before bool) bool {
	switch {
	case s.Answers != "":
		return true
	case before:
		return s.Healthy >= s.Quorum-s.Hysteresis
	}
	return s.Healthy >= s.Quorum+s.Hysteresis
}

// vipUp says whether a VIP of the services is up, and why.
func (d *Decider) vipUp(o Options, of []*Service) (up bool, reason string) {
	var good, bad []string
	for _, s := range of {
		switch {
		case s.Healthy < s.Quorum && s.Answers != "":
			good = append(good, fmt.Sprintf("%s: %s", s.Name, s.Answers))
		case d.up[s.Name]:
			good = append(good, fmt.Sprintf("%s: weight %d of %d is healthy", s.Name, s.Healthy, s.Weight))
		default:
			bad = append(bad, fmt.Sprintf("%s: weight %d of %d is healthy, %d is needed", s.Name, s.Healthy, s.Weight, s.Quorum+s.Hysteresis))
		}
	}
	up = len(good) > 0 && (len(bad) == 0 || !o.All)
	if up {
		return up, some(good)
	}
	return up, some(bad)
}

// some joins the first few reasons, and counts the others.
func some(reasons []string) string {
	const few = 3
	if n := len(reasons); n > few {
		return fmt.Sprintf("%s; and %d more", strings.Join(reasons[:few], "; "), n-few)
	}
	return strings.Join(reasons, "; ")
}

// set notes whether the VIP is up now, and announces or withdraws it.
func (h *history) set(up bool, now, holdDown time.Duration) {
	if h.announced && now-h.at >= 10*holdDown {
		h.strikes = 0
	}
	if up != h.up {
		h.up, h.since = up, now
	}
	switch {
	case h.announced && !up:
		h.announced = false
		h.strikes++
	case !h.announced && up && h.wait(now, holdDown) == 0:
		h.announced, h.at = true, now
	}
}

// maxDoublings bounds the hold-down of a VIP that never stops flapping.
const maxDoublings = 6

// wait is how long a VIP that is up is still held down.
func (h *history) wait(now, holdDown time.Duration) time.Duration {
	if h.strikes == 0 {
		return 0
	}
	hold := holdDown << min(h.strikes-1, maxDoublings)
	return max(0, h.since+hold-now)
}

// grade is what is added to the MED of a VIP of the services.
func grade(span int, of []*Service) int {
	weight, healthy := weights(of)
	if weight == 0 {
		return span
	}
	return int(math.Round(float64(span) * float64(weight-healthy) / float64(weight)))
}

// level is that of a VIP of the services, of which one is up at least.
func (d *Decider) level(degraded int, of []*Service) Level {
	fit := func(s *Service) bool { return d.up[s.Name] && (s.Answers == "" || s.Healthy >= s.Quorum) }
	weight, healthy := weights(of)
	switch {
	case !slices.ContainsFunc(of, fit):
		return Backup
	case healthy*100 < weight*degraded:
		return Degraded
	}
	return Whole
}

func weights(of []*Service) (all, healthy int) {
	for _, s := range of {
		all += s.Weight
		healthy += min(s.Healthy, s.Weight)
	}
	return all, healthy
}
