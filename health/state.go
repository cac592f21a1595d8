package health

import "time"

// State is what a real server is in the eyes of a Monitor.
type State uint8

// Only in Up and SlowStart does a real server get new flows.
const (
	Checking    State = iota // no result yet
	Up                       //
	SlowStart                // up again, not for long: see Member.SlowStart
	Down                     // checks fail, or its agent says so
	Draining                 // keeps its flows
	Maintenance              // set apart by an operator or its agent, whatever the checks say
	numStates
)

var stateNames = [numStates]string{"checking", "up", "slow_start", "down", "draining", "maintenance"}

func (s State) String() string { return stateNames[s] }

// States are all states, in the order of their numbers.
func States() []State {
	all := make([]State, numStates)
	for i := range all {
		all[i] = State(i)
	}
	return all
}

// Usable says whether a real server in state s gets new flows.
func (s State) Usable() bool { return s == Up || s == SlowStart }

// Timing says how often a real server is checked and how many results change
// its state.
type Timing struct {
	Interval time.Duration // from the start of one check to that of the next
	Fast     time.Duration // the interval while results speak against the state; 0: Interval
	Timeout  time.Duration // of one check
	Rise     int           // consecutive good checks that bring a real server up
	Fall     int           // consecutive bad ones that bring it down
}

// A verdict is what checks have said about one real server. Its zero value is
// that of one that was never checked.
type verdict struct {
	known   bool // there was a result
	untried bool // of the check that is in use now there was none
	up      bool
	against int // latest results in a row that speak against up
}

// add takes the result of one check. The first result decides alone: nothing
// else is known.
func (v *verdict) add(good bool, t *Timing) {
	switch {
	case !v.known || v.untried:
		*v = verdict{known: true, up: good}
		return
	case good == v.up:
		v.against = 0
		return
	}
	v.against++
	need := t.Fall
	if good {
		need = t.Rise
	}
	if v.against >= need {
		*v = verdict{known: true, up: good}
	}
}

// interval is the time from the latest check to the next.
func (v *verdict) interval(t *Timing) time.Duration {
	if v.against > 0 && t.Fast > 0 {
		return t.Fast
	}
	return t.Interval
}
