package lb

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A Defence says what is given up so that the director survives a flood. Its
// zero value gives up nothing; a full table makes room all the same, see evict.
//
// The three defences and their modes are those of IPVS (sysctls drop_entry,
// drop_packet, secure_tcp and amemthresh), which looks at free memory only.
type Defence struct {
	DropEntry  DefenceMode // end flows that a flood may have made, at random
	DropPacket DefenceMode // drop a part of the packets that would open a flow
	SecureTCP  DefenceMode // Policy.SecureTCP for every service

	// DropRate is N where DropPacket always drops every Nth packet
	// (am_droprate); 0: 10. With DefenceAuto it follows the pressure.
	DropRate int

	// FreeFlows and FreeMemory are the least that leaves DefenceAuto alone:
	// flows that the table still takes, and bytes (amemthresh). 0: a tenth of
	// the table's limit, and 64 MiB.
	FreeFlows  int
	FreeMemory int64
}

// DefenceMode says when a defence is on.
type DefenceMode uint8

const (
	DefenceOff    DefenceMode = iota // never (0 of IPVS)
	DefenceAuto                      // under pressure (1 and 2)
	DefenceAlways                    // always (3)
	numDefenceModes
)

const (
	defaultDropRate   = 10       // as IPVS
	defaultFreeMemory = 64 << 20 // IPVS: 1024 pages, which a director in a container is dead at
	defendEvery       = time.Second
)

// A DefenceState is what the Defence does now.
type DefenceState struct {
	DropEntry, SecureTCP bool
	DropRate             int  // every so many'th packet that would open a flow is dropped; 0: none
	FewFlows             bool // the table takes fewer than FreeFlows more
	LowMemory            bool // fewer bytes than FreeMemory are free
}

// is says whether the same defences are on for the same reasons; the rate may
// differ.
func (s DefenceState) is(o DefenceState) bool {
	s.DropRate, o.DropRate = min(s.DropRate, 1), min(o.DropRate, 1)
	return s == o
}

// A defence is the Defence of a Balancer at work. Every second it looks at the
// pressure; while packets are handled only its atomics are read.
type defence struct {
	memory func() (free int64, ok bool) // nil: unknown
	notify func(DefenceState)           // nil: nobody wants to know

	dropRate  atomic.Uint64 // 0: drop none
	wouldOpen atomic.Uint64 // packets while dropRate was not 0
	entries   atomic.Bool   // DropEntry is on

	mu    sync.Mutex // guards what follows; Table is below it
	want  Defence
	state DefenceState

	looked time.Duration // Tick's own, as is the rest
	random *rand.Rand
	spared [todropPackets + 1]int8
}

// drops says whether the packet that is to open a flow is one of those that
// are dropped: the first, and then every Nth (ip_vs_todrop).
func (d *defence) drops() bool {
	rate := d.dropRate.Load()
	return rate != 0 && (d.wouldOpen.Add(1)-1)%rate == 0
}

// SetDefence replaces the Defence. What it switches off, or on always, takes
// effect at once.
func (b *Balancer) SetDefence(want Defence) error {
	for _, m := range []DefenceMode{want.DropEntry, want.DropPacket, want.SecureTCP} {
		if m >= numDefenceModes {
			return fmt.Errorf("defence: mode %d is not known", m)
		}
	}
	if want.DropRate < 0 || want.FreeFlows < 0 || want.FreeMemory < 0 {
		return fmt.Errorf("defence: a negative rate or threshold: %+v", want)
	}
	if want.DropRate == 0 {
		want.DropRate = defaultDropRate
	}
	if want.FreeFlows == 0 {
		want.FreeFlows = b.table.Limit() / 10
	}
	if want.FreeMemory == 0 {
		want.FreeMemory = defaultFreeMemory
	}
	b.defence.mu.Lock()
	b.defence.want = want
	b.defence.mu.Unlock()
	b.defend()
	return nil
}

// defend looks at the pressure and switches the defences.
func (b *Balancer) defend() {
	d := &b.defence
	d.mu.Lock()
	was := d.state
	is := d.judgeLocked(b.table)
	d.state = is
	d.dropRate.Store(uint64(is.DropRate))
	d.entries.Store(is.DropEntry)
	b.table.secure.Store(is.SecureTCP)
	d.mu.Unlock()
	if d.notify != nil && !is.is(was) {
		d.notify(is)
	}
}

// judgeLocked says what is to be on.
func (d *defence) judgeLocked(t *Table) (s DefenceState) {
	w := &d.want
	if w.DropEntry == DefenceAuto || w.DropPacket == DefenceAuto || w.SecureTCP == DefenceAuto {
		flows := int64(t.Limit() - t.Len())
		s.FewFlows = below(flows, int64(w.FreeFlows), d.state.FewFlows)
		if s.FewFlows {
			// A full table makes room by itself, and better than at random. So
			// half of those who come are let in whatever happens.
			s.DropRate = max(2, share(flows, int64(w.FreeFlows)))
		}
		if free, ok := d.free(); ok && below(free, w.FreeMemory, d.state.LowMemory) {
			s.LowMemory = true
			if rate := share(free, w.FreeMemory); s.DropRate == 0 || rate < s.DropRate {
				s.DropRate = rate
			}
		}
	}
	on := func(m DefenceMode) bool { return m == DefenceAlways || m == DefenceAuto && (s.FewFlows || s.LowMemory) }
	s.DropEntry, s.SecureTCP = on(w.DropEntry), on(w.SecureTCP)
	switch w.DropPacket {
	case DefenceOff:
		s.DropRate = 0
	case DefenceAlways:
		s.DropRate = w.DropRate
	}
	return s
}

func (d *defence) free() (bytes int64, ok bool) {
	if d.memory == nil {
		return 0, false
	}
	return d.memory()
}

// below says whether free is below the threshold, or was and has not risen
// above it by a quarter since, so that nothing flutters.
func below(free, threshold int64, was bool) bool {
	if was {
		threshold += threshold / 4
	}
	return free < threshold
}

// share is one packet in how many is dropped while free is below the
// threshold, as update_defense_level of IPVS computes it.
func share(free, threshold int64) int { return int(threshold / max(1, threshold-free)) }

// A flow that was idle for todropIdle and that had at most todropPackets
// requests may be dropped though it is established (todrop_entry of IPVS).
const (
	todropIdle    = 60 * time.Second
	todropPackets = 8
)

// dropEntries ends the flows that a flood may have made in some thirty-second
// part of the table, chosen at random (ip_vs_random_dropentry).
func (b *Balancer) dropEntries(now time.Duration) {
	chunks := b.table.numChunks()
	for range (chunks + 31) / 32 {
		b.table.dropFrom(b.defence.random.IntN(chunks), tickOf(now), &b.defence.spared)
	}
}

// dropFrom ends the flows in one chunk that are to be dropped. spared counts
// down to the next established one, by its packets.
func (t *Table) dropFrom(chunk int, now uint32, spared *[todropPackets + 1]int8) {
	var replies [chunkEntries]hint
	dropped := 0
	t.eachInChunk(chunk, func(s *shard, n uint32, e *entry) {
		if t.todrop(e, now, spared) {
			replies[dropped] = t.removeLocked(s, n)
			dropped++
			s.dropped++
		}
	})
	for _, r := range replies[:dropped] {
		t.removeReply(r)
	}
}

// todrop says whether the flow of entry e, whose lock is held, is one that a
// flood may have made.
func (t *Table) todrop(e *entry, now uint32, spared *[todropPackets + 1]int8) bool {
	switch e.state {
	case TCPSynRecv, TCPSynAck, SCTPInit1, SCTPInit:
		return true
	case TCPEstablished, SCTPEstablished, UDPNormal:
	case TemplateNone:
		return e.local == 0 && !t.servers.get(e.server).service.policy.OnePacket
	default:
		return false
	}
	n := e.requests()
	if n < 1 || n > todropPackets {
		return false
	}
	t.followLocked(e, now)
	lifetime := t.servers.get(e.server).service.lifetimes[e.state]
	if idle := int32(lifetime - (e.deadline - now)); idle < int32(ticks(todropIdle)) {
		return false
	}
	// One in n of those with n packets.
	if spared[n]--; spared[n] > 0 {
		return false
	}
	spared[n] = int8(n)
	return true
}
