package health

import (
	"container/heap"
	"context"
	"time"
)

// A job is what is to be done for one member at a time: its check, another
// question to it, or what ends its ejection.
type job struct {
	of    *member
	do    func(*Monitor, context.Context, *job)
	index int // in the queue; notQueued: it is not there
}

const notQueued = -1

// A queue has the jobs that wait, the one that is due first in front. The times
// stand beside each other: to compare those of ten thousand jobs where the
// jobs are would be a tenth of what their checks cost.
type queue []queued

type queued struct {
	due time.Time
	job *job
}

var _ heap.Interface = (*queue)(nil)

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, k int) bool { return q[i].due.Before(q[k].due) }

func (q queue) Swap(i, k int) {
	q[i], q[k] = q[k], q[i]
	q[i].job.index, q[k].job.index = i, k
}

// Push takes a *queued, since a pointer fits an interface without an
// allocation that outlives the call.
func (q *queue) Push(e any) {
	*q = append(*q, *e.(*queued))
	last := len(*q) - 1
	(*q)[last].job.index = last
}

// Pop returns the *job.
func (q *queue) Pop() any {
	last := len(*q) - 1
	j := (*q)[last].job
	(*q)[last] = queued{}
	*q = (*q)[:last]
	j.index = notQueued
	return j
}
