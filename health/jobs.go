package health

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

// takeDue takes what is due from the queue, mere handshakes apart from the
// rest, and says when to look again.
func (m *Monitor) takeDue(now time.Time) (due []*job, shakes []*handshake, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.queue) > 0 && !m.queue[0].due.After(now) {
		j := heap.Pop(&m.queue).(*job)
		if j == &j.of.job {
			if shake := j.of.handshake(); shake != nil {
				shakes = append(shakes, shake)
				continue
			}
		}
		due = append(due, j)
	}
	wait = idle
	if len(m.queue) > 0 {
		wait = max(grain, m.queue[0].due.Sub(now))
	}
	m.next = now.Add(wait)
	return due, shakes, wait
}

// check does a job once and queues it for the next time.
func (m *Monitor) check(ctx context.Context, j *job) {
	m.mu.Lock()
	mb := j.of
	check, to, timing := mb.Check, mb.To, mb.Timing
	m.mu.Unlock()

	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, timing.Timeout)
	err := check.Check(limited, to)
	cancel()
	took := time.Since(start)
	if ctx.Err() != nil {
		return // we are stopping, which says nothing of the real server
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checkedLocked(j, err, timing.Timeout, start, took)
}

// shake begins handshakes, takes the results of those that are over, and says
// how soon it must be called again; below 0: not for those under way.
func (m *Monitor) shake(all []*handshake) (again time.Duration) {
	if m.shaker == nil {
		if len(all) == 0 {
			return -1
		}
		var err error
		if m.shaker, err = newHandshaker(cap(m.slots)); err != nil {
			for _, s := range all {
				s.err, s.start = err, time.Now()
			}
			m.shaken(all)
			return -1
		}
	}
	m.shaker.begin(all)
	over, again := m.shaker.look()
	if len(over) > 0 {
		m.shaken(over)
	}
	return again
}

// shaken takes handshakes that are over.
func (m *Monitor) shaken(over []*handshake) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range over {
		m.checkedLocked(s.job, s.err, s.timeout, s.start, s.took)
	}
}

// checkedLocked takes the result of a check that began at start and took so
// long, and queues the next one.
func (m *Monitor) checkedLocked(j *job, err error, limit time.Duration, start time.Time, took time.Duration) {
	mb := j.of
	if mb.gone || mb.Check == nil {
		return
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("no answer within %v: %w", limit, err)
	}
	if !mb.verdict.known {
		m.settleLocked(1)
	}
	mb.note(err, took)
	m.showLocked(mb, "")
	m.queueLocked(j, start.Add(jittered(mb.verdict.interval(&mb.Timing))))
}

// askAgent does so once and queues the question for the next time.
func (m *Monitor) askAgent(ctx context.Context, j *job) {
	m.mu.Lock()
	mb := j.of
	agent := mb.Agent
	m.mu.Unlock()

	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, agent.Timeout)
	line, err := agent.ask(limited)
	cancel()
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if mb.gone {
		return
	}
	less, maxFlows := mb.asked.less, mb.asked.maxFlows
	if err == nil {
		err = mb.asked.hear(line)
	}
	mb.agentErr = err
	m.showLocked(mb, "")
	if mb.asked.less != less {
		m.log.Info("real server wants another share", "service", mb.Service, "real_server", serverText(mb.Server), "percent", 100-mb.asked.less)
		m.changedLocked(mb)
	}
	if mb.asked.maxFlows != maxFlows {
		m.log.Info("real server wants another limit", "service", mb.Service, "real_server", serverText(mb.Server), "max_flows", mb.asked.maxFlows)
		m.changedLocked(mb)
	}
	m.queueLocked(j, start.Add(jittered(agent.Interval)))
}

// queueLocked queues a job for a time.
func (m *Monitor) queueLocked(j *job, due time.Time) {
	heap.Push(&m.queue, &queued{due, j})
	if due.Before(m.next) {
		m.wakeUp()
	}
}

// dequeueLocked takes a job from the queue, if it is there.
func (m *Monitor) dequeueLocked(j *job) {
	if j.index != notQueued {
		heap.Remove(&m.queue, j.index)
	}
}

// jittered is d or up to a twentieth more or less, so that checks that fire
// together once, such as after a pause of the whole host, drift apart.
func jittered(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*float64(d)/10)
}
