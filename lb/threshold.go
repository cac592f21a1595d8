package lb

import "sync/atomic"

// thresholds keep new flows from a real server that has enough (ipvsadm -x and
// -y). They compare with all its flows, active or not; templates do not count.
//
// A real server is overloaded from the flow that makes upper on, until one
// ends that leaves fewer than lower. Between the two it stays what it was, so
// that it is not switched with every flow that comes and goes.
//
// They live in the load, beside the number that they bound: whoever counts a
// flow has the cache line already.
type thresholds struct {
	upper, lower atomic.Int64 // upper 0: no bound
	overloaded   atomic.Bool
}

// Overloaded says whether the real server has as many flows as it may have. A
// scheduler passes over it; a client that is known to it goes there even so.
func (r *RealServer) Overloaded() bool { return r.MaxFlows > 0 && r.limits.overloaded.Load() }

// TakesFlows says whether a scheduler may choose r.
func (r *RealServer) TakesFlows() bool { return r.Weight > 0 && !r.Overloaded() }

// lowerThreshold is below how many flows a real server with these bounds takes
// new ones again: without a bound of its own, three quarters of upper.
func lowerThreshold(upper, lower int) int64 {
	if lower == 0 {
		lower = upper - upper/4
	}
	return int64(lower)
}

// setThresholds brings new bounds into force for the flows that there are. As in
// IPVS, a real server that was overloaded stays so between the two new ones.
func (l *load) setThresholds(upper, lower int) {
	l.limits.upper.Store(int64(upper))
	l.limits.lower.Store(lowerThreshold(upper, lower))
	if upper == 0 {
		l.limits.overloaded.Store(false)
	}
	l.grown(l.flows.Load())
	l.shrunk(l.flows.Load())
}

// grown is called with the number of flows after one more.
func (l *load) grown(flows int64) {
	upper := l.limits.upper.Load()
	if upper == 0 || flows < upper {
		return
	}
	l.limits.overloaded.Store(true)
	// Others may have ended meanwhile, the last of them before the flag was
	// there to be taken back.
	l.shrunk(l.flows.Load())
}

// shrunk is called with the number of flows after one less.
func (l *load) shrunk(flows int64) {
	if l.limits.overloaded.Load() && flows < l.limits.lower.Load() {
		l.limits.overloaded.Store(false)
	}
}
