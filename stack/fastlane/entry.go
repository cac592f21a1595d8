package fastlane

import (
	"encoding/binary"
	"net/netip"

	"github.com/uvs-project/uvs/packet"
)

// An Entry lets the lane carry the packets of one direction of a flow.
type Entry struct {
	Tuple   packet.Tuple   // of the packets as they arrive
	Rewrite packet.Rewrite // what is done to them
	Hop     Hop            // where they go
	Account uint32         // where they are counted, below Options.Accounts
}

// A Hop is a way out of the director.
type Hop struct {
	IfIndex int
	MTU     int        // bytes of IP packet that fit
	Addr    netip.Addr // of the neighbour: a gateway or the destination itself
}

// Bits of flow.change.
const (
	newSrc = 1
	newDst = 2
)

// Values of flow.encap are those of packet.EncapKind.
var _ = [1]struct{}{}[packet.NoEncap-0|packet.IPIP-1|packet.GUE-2|packet.GRE-3]

// Carries says whether the lane can do r to packets of family and proto.
// Checksums of outer headers cover what the program cannot sum, and it
// fragments nothing.
func Carries(r *packet.Rewrite, family, proto uint8) bool {
	if r.None || proto != packet.TCP && proto != packet.UDP {
		return false
	}
	if other(r.Src.Family, family) != other(r.Dst.Family, family) {
		return false // half an address pair of the other family
	}
	moved := r.Src.Family|r.Dst.Family != 0
	return r.Encap.Kind == packet.NoEncap || !r.Encap.Checksum && !r.Encap.Fragment && !moved
}

func other(family, than uint8) bool { return family != 0 && family != than }

// value is the entry as the program reads it.
func (e *Entry) value(generation, hop uint32) laneFlow {
	f := laneFlow{Generation: generation, Hop: hop, Account: e.Account}
	r := &e.Rewrite
	if r.Encap.Kind != packet.NoEncap {
		f.Encap, f.Family = uint8(r.Encap.Kind), r.Encap.Family
		f.Src, f.Dst = r.Encap.Src, r.Encap.Dst
		if r.Encap.Kind == packet.GUE {
			f.Sport, f.Dport = network(packet.GUESourcePort(&e.Tuple)), network(r.Encap.Port)
		}
		return f
	}
	f.Family = e.Tuple.Family
	if r.Src.Family != 0 {
		f.Change |= newSrc
		f.Family = r.Src.Family
		f.Src, f.Sport = r.Src.Addr, network(r.Src.Port)
	}
	if r.Dst.Family != 0 {
		f.Change |= newDst
		f.Dst, f.Dport = r.Dst.Addr, network(r.Dst.Port)
	}
	return f
}

// network is port in network order, as its bytes lie in memory.
func network(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

// value is the hop as the program reads it.
func (h Hop) value() laneHop {
	addr, family := packet.AddrFrom(h.Addr)
	return laneHop{Ifindex: uint32(h.IfIndex), Mtu: uint32(h.MTU), Family: uint32(family), Addr: addr}
}
