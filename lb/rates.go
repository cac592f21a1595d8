package lb

import (
	"fmt"
	"slices"
	"time"
)

// Rates are what happens in a second, as IPVS estimates it: the average of
// samples of two seconds, of which the last ones weigh most, so that it looks
// back over some eight seconds.
type Rates struct {
	Flows                        uint64
	RequestPackets, ReplyPackets uint64
	RequestBytes, ReplyBytes     uint64
}

func (r *Rates) add(o Rates) {
	r.Flows += o.Flows
	r.RequestPackets += o.RequestPackets
	r.ReplyPackets += o.ReplyPackets
	r.RequestBytes += o.RequestBytes
	r.ReplyBytes += o.ReplyBytes
}

// A meter reads the counters of one real server, of a service or of all.
// Balancer.mu guards it.
type meter struct {
	base Traffic // what Balancer.Zero found
	last Traffic // what the last sample found

	// Averages per second, scaled by 2^10 for flows and packets and by 2^5 for
	// bytes as in IPVS (ip_vs_est.c).
	flows, requests, replies, requestBytes, replyBytes uint64
}

const (
	sampleEvery = 2 * time.Second
	countScale  = 10
	bytesScale  = 5
)

// sample takes the counters sampleEvery after the last time.
func (m *meter) sample(now Traffic) {
	average(&m.flows, now.Flows-m.last.Flows, countScale)
	average(&m.requests, now.RequestPackets-m.last.RequestPackets, countScale)
	average(&m.replies, now.ReplyPackets-m.last.ReplyPackets, countScale)
	average(&m.requestBytes, now.RequestBytes-m.last.RequestBytes, bytesScale)
	average(&m.replyBytes, now.ReplyBytes-m.last.ReplyBytes, bytesScale)
	m.last = now
}

// average moves avg a quarter of the way to n per two seconds.
func average(avg *uint64, n uint64, scale int) {
	*avg = uint64(int64(*avg) + (int64(n<<(scale-1))-int64(*avg))>>2)
}

// rates rounds as ip_vs_read_estimator does.
func (m *meter) rates() Rates {
	count := func(n uint64) uint64 { return (n + 1<<(countScale-1) - 1) >> countScale }
	bytes := func(n uint64) uint64 { return (n + 1<<(bytesScale-1) - 1) >> bytesScale }
	return Rates{
		Flows:          count(m.flows),
		RequestPackets: count(m.requests),
		ReplyPackets:   count(m.replies),
		RequestBytes:   bytes(m.requestBytes),
		ReplyBytes:     bytes(m.replyBytes),
	}
}

// zero makes now the baseline and forgets the rates.
func (m *meter) zero(now Traffic) { *m = meter{base: now, last: now} }

// sampledAtOnce is how many services are sampled while the lock is held: some
// hundred microseconds, so that a reload does not wait for thousands.
const sampledAtOnce = 256

// sample brings the rates of everything up to date. It is called every
// sampleEvery and off the packets' road.
func (b *Balancer) sample() {
	for some := range slices.Chunk(b.state.Load().services, sampledAtOnce) {
		b.mu.Lock()
		for _, p := range some {
			if a := b.accounts[p.Load().name]; a != nil {
				a.sample()
			}
		}
		b.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.gone
	for name, a := range b.accounts {
		if b.byName[name] == nil {
			a.sample()
		}
		all.add(a.meter.last)
	}
	b.all.sample(all)
}

func (a *account) sample() {
	sum := a.former()
	for _, rs := range a.servers {
		now := rs.counted()
		rs.meter.sample(now)
		sum.add(now)
	}
	a.meter.sample(sum)
}

// former is the traffic of the records that were freed.
func (a *account) former() (sum Traffic) {
	for _, t := range a.retired {
		sum.add(t)
	}
	return sum
}

// counted is the traffic of the service since it was made.
func (a *account) counted() Traffic {
	sum := a.former()
	for _, rs := range a.servers {
		sum.add(rs.counted())
	}
	return sum
}

// Zero makes SinceZero of a service and its real servers begin at nothing
// again, and their rates, as ipvsadm -Z does. An empty name is for all
// services and for the total.
func (b *Balancer) Zero(service string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if service != "" && b.byName[service] == nil {
		return fmt.Errorf("there is no service %q", service)
	}
	all := b.gone
	for name, a := range b.accounts {
		if service == "" || service == name {
			a.zero()
		}
		all.add(a.counted())
	}
	if service == "" {
		b.all.zero(all)
	}
	return nil
}

func (a *account) zero() {
	for _, rs := range a.servers {
		rs.meter.zero(rs.counted())
	}
	a.meter.zero(a.counted())
}
