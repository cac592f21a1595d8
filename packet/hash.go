package packet

import (
	"encoding/binary"
	"math/bits"
)

// Hash mixes t with a seed of the process; the same for every queue.
//
// Each operand of the 64x64 to 128 bit multiplications, the mixing step of
// wyhash, is masked by bits that come from the seed, so whoever does not know
// the seed cannot choose tuples that collide. The last multiplication spreads what
// differs in the ports alone: without it their hashes lie on a lattice, which
// for one client in a hundred is a narrow one.
func (t *Tuple) Hash(seed uint64) uint64 {
	const k0, k1, k2, k3 = 0xa0761d6478bd642f, 0xe7037ed1a0b428db, 0x8ebc6af09c88c6e3, 0x589965cc75374cc3
	turned := bits.RotateLeft64(seed, 32)
	a := mix(binary.LittleEndian.Uint64(t.Src[0:8])^seed^k0, binary.LittleEndian.Uint64(t.Src[8:16])^turned^k1)
	b := mix(binary.LittleEndian.Uint64(t.Dst[0:8])^seed^k2, binary.LittleEndian.Uint64(t.Dst[8:16])^turned^k3)
	rest := uint64(t.SrcPort)<<48 | uint64(t.DstPort)<<32 | uint64(t.Proto)<<8 | uint64(t.Family)
	h := mix(a^bits.RotateLeft64(b, 29)^turned^k1, b^rest^seed^k3)
	return mix(h^k0, k2)
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
