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
	due   time.Time
	index int // in the queue; notQueued: it is not there
}

const notQueued = -1

// A queue has the jobs that wait, the one that is due first in front.
type queue []*job

var _ heap.Interface = (*queue)(nil)

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, k int) bool { return q[i].due.Before(q[k].due) }

func (q queue) Swap(i, k int) {
	q[i], q[k] = q[k], q[i]
	q[i].index, q[k].index = i, k
}

func (q *queue) Push(j any) {
	j.(*job).index = len(*q)
	*q = append(*q, j.(*job))
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	j := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	j.index = notQueued
	return j
}
