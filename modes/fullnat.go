package modes

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// fullNAT replaces both ends: the real server sees a connection from one of
// the director's local addresses (LIP), so its replies come back by themselves
// wherever it stands, and it may be of the other address family.
//
// The flow table is the allocator of LIP:lport. Local proposes one, the table
// refuses it while another flow has the same replies, that is the same LIP,
// lport, real server and port. So each LIP has numPorts ports for every port of
// every real server, and they outlive reloads as the flows do.
type fullNAT struct {
	pool []localRange // of the real server's family, not empty
	size uint64       // addresses in pool
}

// A localRange is a part of the pool: the addresses base to base+count-1, of
// which only the last two bytes differ.
type localRange struct {
	base  packet.Addr
	count uint64
}

var _ lb.Mode = &fullNAT{}

const (
	firstPort = 1024 // below it real servers may grant privileges
	numPorts  = 1<<16 - firstPort

	// maxTries bounds the search: it fails for one flow in ten thousand where
	// 93 % of all ports are in use.
	maxTries = 128

	// maxLocals is how many LIPs of a family are used: Flow.Local has 16 bits
	// for the LIP and 16 for the port. What a pool has more is left alone.
	maxLocals = 1 << 16
)

// portSeed keeps clients from aiming at ports in use.
var portSeed = rand.Uint64()

func newFullNAT(o *Options) (lb.Mode, error) {
	m := new(fullNAT)
	rip := o.RealServer.Addr()
	for _, p := range o.Locals {
		if p.Addr().Is4() != rip.Is4() {
			continue
		}
		base, _ := packet.AddrFrom(p.Masked().Addr())
		count := uint64(1) << min(16, p.Addr().BitLen()-p.Bits())
		count = min(count, maxLocals-m.size)
		if count > 0 {
			m.pool = append(m.pool, localRange{base, count})
			m.size += count
		}
	}
	if m.size == 0 {
		return nil, fmt.Errorf("fullnat's pool has no %s address", familyName(rip))
	}
	return m, nil
}

func familyName(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

func (*fullNAT) String() string { return "fullnat" }
func (*fullNAT) Crosses() bool  { return true }

// Local proposes LIPs in turn and ports by double hashing, starting where the
// client's tuple says.
func (m *fullNAT) Local(f lb.Flow, try int) (uint32, bool) {
	if try >= maxTries {
		return 0, false
	}
	h := f.Tuple.Hash(portSeed)
	start, step, lip := uint32(h)%numPorts, uint32(h>>32)%numPorts|1, h>>16
	port := firstPort + (uint64(start)+uint64(try)*uint64(step))%numPorts
	return uint32((lip+uint64(try))%m.size)<<16 | uint32(port), true
}

// local is the LIP and port that f.Local stands for.
func (m *fullNAT) local(f *lb.Flow) packet.Endpoint {
	e := packet.Endpoint{Port: uint16(f.Local), Family: f.Server.Endpoint.Family}
	i := uint64(f.Local >> 16)
	for _, r := range m.pool {
		if i < r.count {
			e.Addr = r.base
			last := e.Addr[14:]
			if e.Family == packet.IPv4 {
				last = e.Addr[2:4]
			}
			binary.BigEndian.PutUint16(last, binary.BigEndian.Uint16(last)+uint16(i))
			return e
		}
		i -= r.count
	}
	panic("modes: a flow has a local address that its mode never proposed")
}

func (m *fullNAT) ReplyTuple(f lb.Flow) (packet.Tuple, bool) {
	rs, local := f.Server, m.local(&f)
	return packet.Tuple{
		Src: rs.Endpoint.Addr, SrcPort: rs.DestinationPort(f.Tuple.DstPort),
		Dst: local.Addr, DstPort: local.Port,
		Proto: f.Tuple.Proto, Family: rs.Endpoint.Family,
	}, true
}

func (m *fullNAT) Rewrite(f *lb.Flow, d lb.Direction, rw *packet.Rewrite) {
	if d == lb.Reply {
		setDestination(&rw.Src, &f.Tuple)
		setSource(&rw.Dst, &f.Tuple)
		return
	}
	rw.Src = m.local(f)
	setRealServer(&rw.Dst, f)
}
