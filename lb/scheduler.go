package lb

import (
	"time"

	"github.com/uvs-project/uvs/packet"
)

// A Scheduler picks the real server of each new flow. Package lb/sched has one
// file per scheduler.
//
// It is built for one set of real servers; a changed set means a new
// Scheduler.
type Scheduler interface {
	// Pick chooses for the client whose request is t, at the time now of the
	// packet loops' clock; nil: no real server can take the flow. It is called
	// from several goroutines at once and must not block.
	Pick(t *packet.Tuple, now time.Duration) *RealServer
}

// A Peeker is a Scheduler whose Pick leaves a trace, such as whose turn it is.
type Peeker interface {
	// Peek is what Pick would choose just now, and leaves none. It may lock
	// for a moment.
	Peek(t *packet.Tuple, now time.Duration) *RealServer
}

// A NewScheduler builds a Scheduler. set is in list order, the newest real
// server first, never empty, and the scheduler's to keep but not to change.
// before is the Scheduler that served the same clients until now, of whatever
// kind, or nil: a scheduler of the same kind can go on where it stood. It must
// not change before, which stays in use while the new one is built.
type NewScheduler func(set []*RealServer, before Scheduler) Scheduler
