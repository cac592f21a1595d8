package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
)

// idents number the IPv4 packets that uvs itself makes and that may be
// fragmented. They are shared by all queues, as two packets between the same
// addresses must not have the same number while their fragments are under way;
// they are several, hashed by the addresses, so that each wraps later and
// queues seldom meet on one. The kernel does the same (ip_idents).
var idents [64]struct {
	next atomic.Uint32
	_    [60]byte // a cache line each
}

// flowKey seeds the hash behind the source port of GUE, so that nobody outside
// can aim many flows at one path, and is where identifications start.
var flowKey = rand.Uint64()

// ident is the next identification for a packet between the IPv4 addresses.
func ident(src, dst *Addr) uint16 {
	pair := uint64(binary.BigEndian.Uint32(src[:4]))<<32 | uint64(binary.BigEndian.Uint32(dst[:4]))
	return uint16(idents[pair*0x9e3779b97f4a7c15>>58].next.Add(1) + uint32(flowKey))
}
