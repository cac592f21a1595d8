package sched

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math/big"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// maglev is the consistent hash of the Maglev paper (Eisenbud and others, NSDI
// 2016), for directors of uvs alone where mh also agrees with IPVS. Which
// real server a flow gets depends on the addresses, ports and weights of the
// real servers and on nothing else: not on their order, not on the past.
//
// Invariant: of equal weights no real server has two slots more than another.
type maglev struct {
	set     []*lb.RealServer // usable, by address and port
	slots   []uint16         // index in set
	weights int64            // their sum
	settings
	balance
}

// Maglev are the settings of the scheduler maglev. Directors that shall agree
// need the same.
type Maglev struct {
	Slots  int      // size of the table, a prime; more slots follow the weights closer and move fewer flows; 0: 65537
	Fields []string // what of a flow's tuple is hashed, of MaglevFields; none: all
	Key    string   // keeps strangers from aiming at one real server

	// MaxLoad bounds the flows of a real server, in per cent of its fair share of
	// all flows at the time, above 100; a flow that it would exceed the bound by
	// goes elsewhere. 0: no bound, and the choice depends on the tuple alone.
	MaxLoad int
}

const (
	maglevSlots    = 65537
	maxMaglevSlots = 5_000_011 // as Envoy: 10 MB
)

type maglevSettings struct {
	slots   int
	key     sipKey
	mask    [tupleWords]uint64
	maxLoad int64
}

// tupleWords is how many words a tuple is hashed as: two for each address, one
// for the ports and the protocol.
const tupleWords = 5

// maglevFields are the words' bits of each field.
var maglevFields = map[string][tupleWords]uint64{
	"src":      {0: ^uint64(0), 1: ^uint64(0)},
	"dst":      {2: ^uint64(0), 3: ^uint64(0)},
	"src_port": {4: 0xffff << 48},
	"dst_port": {4: 0xffff << 32},
	"proto":    {4: 0xff},
}

// MaglevFields are the names of the fields of a tuple, in its order.
func MaglevFields() []string { return []string{"src", "src_port", "dst", "dst_port", "proto"} }

// Faults are what is wrong with m, by the key of the configuration.
func (m Maglev) Faults() map[string]string {
	faults := map[string]string{}
	if n := cmp.Or(m.Slots, maglevSlots); n < 2 || n > maxMaglevSlots || !big.NewInt(int64(n)).ProbablyPrime(0) {
		faults["slots"] = fmt.Sprintf("%d is not a prime up to %d", n, maxMaglevSlots)
	}
	if m.MaxLoad != 0 && m.MaxLoad <= 100 {
		faults["max_load"] = fmt.Sprintf("%d is not above 100, nor 0 for no bound", m.MaxLoad)
	}
	for _, name := range m.Fields {
		if _, ok := maglevFields[name]; !ok {
			faults["fields"] = fmt.Sprintf("%q is none of %s", name, strings.Join(MaglevFields(), ", "))
		}
	}
	return faults
}

func (m Maglev) settings() (maglevSettings, error) {
	s := maglevSettings{slots: cmp.Or(m.Slots, maglevSlots), maxLoad: int64(m.MaxLoad)}
	if faults := m.Faults(); len(faults) > 0 {
		key := slices.Min(slices.Collect(maps.Keys(faults)))
		return s, fmt.Errorf("%s: %s", key, faults[key])
	}
	fields := m.Fields
	if len(fields) == 0 {
		fields = MaglevFields()
	}
	for _, name := range fields {
		for i, mask := range maglevFields[name] {
			s.mask[i] |= mask
		}
	}
	sum := sha256.Sum256([]byte(m.Key))
	s.key = sipKey{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])}
	return s, nil
}

func newMaglev(o *settings, set []*lb.RealServer, before lb.Scheduler) lb.Scheduler {
	s := &maglev{set: usable(set), settings: *o}
	slices.SortFunc(s.set, byEndpoint)
	// One that cannot have a slot would never be picked.
	s.set = s.set[:min(len(s.set), o.maglev.slots, maxSlotServers)]
	for _, rs := range s.set {
		s.weights += int64(rs.Weight)
	}
	was, ok := before.(*maglev)
	switch {
	case ok && was.settings == s.settings && slices.EqualFunc(was.set, s.set, sameShare):
		s.slots = was.slots
	case len(s.set) > 0:
		s.slots = s.fill()
	}
	return s
}

func byEndpoint(a, b *lb.RealServer) int {
	return cmp.Or(
		cmp.Compare(a.Endpoint.Family, b.Endpoint.Family),
		bytes.Compare(a.Endpoint.Addr[:], b.Endpoint.Addr[:]),
		cmp.Compare(a.Endpoint.Port, b.Endpoint.Port))
}

func sameShare(a, b *lb.RealServer) bool {
	return a.Endpoint == b.Endpoint && a.Weight == b.Weight
}

func (s *maglev) fill() []uint16 {
	o := &s.settings.maglev
	wishes := make([]preference, len(s.set))
	weights := make([]int, len(s.set))
	for i, rs := range s.set {
		e := &rs.Endpoint
		h := o.key.sum(binary.LittleEndian.Uint64(e.Addr[:]), binary.LittleEndian.Uint64(e.Addr[8:]),
			uint64(e.Port)<<8|uint64(e.Family))
		wishes[i] = preference{
			first: uint32(h>>32) % uint32(o.slots),
			skip:  uint32(h)%uint32(o.slots-1) + 1,
		}
		weights[i] = rs.Weight
	}
	t := newSlotTable(o.slots, wishes)
	t.fillByWeight(weights)
	return t.slots
}

func (s *maglev) Pick(t *packet.Tuple, now time.Duration) *lb.RealServer {
	if len(s.slots) == 0 {
		return nil
	}
	home := s.home(t)
	if s.settings.maglev.maxLoad > 0 {
		return s.bounded(home, s.all(s.set, now))
	}
	return s.unbounded(home)
}

// Peek implements lb.Peeker.
func (s *maglev) Peek(t *packet.Tuple, now time.Duration) *lb.RealServer {
	if len(s.slots) == 0 {
		return nil
	}
	home := s.home(t)
	if s.settings.maglev.maxLoad > 0 {
		return s.bounded(home, s.peek(s.set, now))
	}
	return s.unbounded(home)
}

// home is the slot of t.
func (s *maglev) home(t *packet.Tuple) int {
	o := &s.settings.maglev
	m := &o.mask
	h := o.key.sum(
		binary.LittleEndian.Uint64(t.Src[:])&m[0], binary.LittleEndian.Uint64(t.Src[8:])&m[1],
		binary.LittleEndian.Uint64(t.Dst[:])&m[2], binary.LittleEndian.Uint64(t.Dst[8:])&m[3],
		(uint64(t.SrcPort)<<48|uint64(t.DstPort)<<32|uint64(t.Proto))&m[4])
	home, _ := bits.Mul64(h, uint64(len(s.slots)))
	return int(home)
}

// unbounded is the holder of slot home, or of the first after it that is not
// overloaded.
func (s *maglev) unbounded(home int) *lb.RealServer {
	if rs := s.set[s.slots[home]]; !rs.Overloaded() {
		return rs
	}
	return s.afterSlot(home)
}

// afterSlot is the holder of the first slot after home that is not overloaded;
// nil: all are.
func (s *maglev) afterSlot(home int) *lb.RealServer {
	if !anyTakesFlows(s.set) {
		return nil
	}
	for i := range s.slots {
		if rs := s.set[s.slots[(home+i)%len(s.slots)]]; !rs.Overloaded() {
			return rs
		}
	}
	return nil
}
