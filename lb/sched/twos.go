package sched

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// twoChoices draws two real servers by their weights, maybe the same one
// twice, and picks the one with the less load for its weight. It needs no look
// at all the others' load, and a stale look does less harm than with wlc.
//
// As in IPVS the draw is from 0 to the sum of the weights with both ends, so
// the newest real server has one ticket more than its weight.
type twoChoices struct {
	set     []*lb.RealServer // usable
	last    []uint64         // the last ticket of each; ascending
	limited []*lb.RealServer // those with an upper threshold
	random  atomic.Uint64
}

func newTwoChoices(_ *settings, set []*lb.RealServer, _ lb.Scheduler) lb.Scheduler {
	s := &twoChoices{set: usable(set)}
	sum := uint64(0)
	for _, rs := range s.set {
		sum += uint64(rs.Weight)
		s.last = append(s.last, sum)
		if rs.MaxFlows > 0 {
			s.limited = append(s.limited, rs)
		}
	}
	s.random.Store(rand.Uint64())
	return s
}

// Pick ignores the tuple: chance has no affinity.
func (s *twoChoices) Pick(*packet.Tuple, time.Duration) *lb.RealServer {
	if slices.ContainsFunc(s.limited, (*lb.RealServer).Overloaded) {
		return s.pickAmong()
	}
	if len(s.set) == 0 {
		return nil
	}
	one, other := s.draw(), s.draw()
	return lighter(one, other)
}

// Peek implements lb.Peeker: it draws the tickets that the next Pick gets.
func (s *twoChoices) Peek(t *packet.Tuple, now time.Duration) *lb.RealServer {
	drawn := twoChoices{set: s.set, last: s.last, limited: s.limited}
	drawn.random.Store(s.random.Load())
	return drawn.Pick(t, now)
}

// lighter is the one with the less load for its weight, the first of equals.
func lighter(one, other *lb.RealServer) *lb.RealServer {
	if int64(other.Weight)*overhead(one) > int64(one.Weight)*overhead(other) {
		return other
	}
	return one
}

// draw is the holder of a ticket.
func (s *twoChoices) draw() *lb.RealServer {
	ticket, _ := bits.Mul64(s.next(), s.last[len(s.last)-1]+1)
	low, high := 0, len(s.last)-1
	for low < high {
		mid := int(uint(low+high) / 2)
		if s.last[mid] < ticket {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return s.set[low]
}

// pickAmong is Pick where some are overloaded and have no tickets.
func (s *twoChoices) pickAmong() *lb.RealServer {
	sum := uint64(0)
	for _, rs := range s.set {
		if !rs.Overloaded() {
			sum += uint64(rs.Weight)
		}
	}
	one, other := s.drawAmong(sum), s.drawAmong(sum)
	if one == nil || other == nil {
		return nil
	}
	return lighter(one, other)
}

// drawAmong is the holder of one of sum+1 tickets, which were counted a moment
// ago; nil where all are overloaded.
func (s *twoChoices) drawAmong(sum uint64) (holder *lb.RealServer) {
	ticket, _ := bits.Mul64(s.next(), sum+1)
	last := uint64(0)
	for _, rs := range s.set {
		if rs.Overloaded() {
			continue
		}
		holder = rs
		if last += uint64(rs.Weight); last >= ticket {
			break
		}
	}
	return holder
}

// next is a random number, of splitmix64: any goroutine takes the next step.
func (s *twoChoices) next() uint64 {
	x := s.random.Add(0x9e3779b97f4a7c15)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
