package main

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uvs-project/uvs/health"
)

// A selfProbe finds out whether packets to VIPs come to us and our answers get
// out again: it sends an echo request from the host to each VIP, which the
// kernel must steer into the device, the road must answer and the kernel must
// take back. That works in every mode, and without a real server.
type selfProbe struct {
	echo health.Check
	log  *slog.Logger
	wake chan struct{} // holds one token after a VIP has come

	good, bad atomic.Uint64 // probes

	mu     sync.Mutex
	faults map[netip.Addr]string // guarded by mu; of each VIP that was asked for, empty once it has answered
}

const (
	probeTimeout = time.Second
	probeAgain   = time.Second // after those that failed
	probesAtOnce = 16          // within the burst that limits.answers lets pass

	notYetProbed = "it was not yet probed"
)

func newSelfProbe(log *slog.Logger) (*selfProbe, error) {
	echo, err := health.New(health.Options{Type: "icmp"})
	if err != nil {
		return nil, err
	}
	return &selfProbe{echo: echo, log: log, wake: make(chan struct{}, 1), faults: map[netip.Addr]string{}}, nil
}

// fault is why a VIP is not known to answer, empty where it is. One that was
// never asked for is probed from now on, until it answers.
func (p *selfProbe) fault(vip netip.Addr) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	fault, known := p.faults[vip]
	if !known {
		fault = notYetProbed
		p.faults[vip] = fault
		signalOne(p.wake)
	}
	return fault
}

// keep forgets all VIPs but these.
func (p *selfProbe) keep(vips []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := make(map[netip.Addr]string, len(p.faults))
	for _, vip := range vips {
		if fault, known := p.faults[vip]; known {
			kept[vip] = fault
		}
	}
	p.faults = kept
}

// run probes until ctx ends. It calls answered when VIPs have answered.
func (p *selfProbe) run(ctx context.Context, answered func()) error {
	for {
		var again <-chan time.Time
		if waiting := p.waiting(); len(waiting) > 0 {
			if p.probeAll(ctx, waiting) {
				answered()
			}
			again = time.After(probeAgain)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-again:
		}
	}
}

// waiting are the VIPs that have not answered yet.
func (p *selfProbe) waiting() (vips []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for vip, fault := range p.faults {
		if fault != "" {
			vips = append(vips, vip)
		}
	}
	return vips
}

// probeAll says whether a VIP has answered.
func (p *selfProbe) probeAll(ctx context.Context, vips []netip.Addr) bool {
	var answered atomic.Bool
	var underWay sync.WaitGroup
	slots := make(chan struct{}, probesAtOnce)
	for _, vip := range vips {
		slots <- struct{}{}
		underWay.Go(func() {
			limited, cancel := context.WithTimeout(ctx, probeTimeout)
			err := p.echo.Check(limited, health.Target{Addr: netip.AddrPortFrom(vip, 0)})
			cancel()
			if ctx.Err() == nil && p.note(vip, err) {
				answered.Store(true)
			}
			<-slots
		})
	}
	underWay.Wait()
	return answered.Load()
}

// note keeps the result of a probe, and says whether the VIP has answered.
func (p *selfProbe) note(vip netip.Addr, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was, known := p.faults[vip]
	if !known {
		return false // it was forgotten meanwhile
	}
	if err == nil {
		p.good.Add(1)
		p.faults[vip] = ""
		return true
	}
	p.bad.Add(1)
	p.faults[vip] = err.Error()
	if was != err.Error() {
		p.log.Warn("VIP does not answer the self-probe, so it is not announced", "vip", vip, "error", err)
	}
	return false
}
