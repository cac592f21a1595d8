package sched

import (
	"encoding/binary"
	"math/bits"

	"github.com/uvs-project/uvs/packet"
)

// fold is an address as the number that IPVS hashes: the XOR of its four
// 32-bit words, which for IPv4 is the address itself.
func fold(a *packet.Addr) uint32 {
	return binary.BigEndian.Uint32(a[0:]) ^ binary.BigEndian.Uint32(a[4:]) ^
		binary.BigEndian.Uint32(a[8:]) ^ binary.BigEndian.Uint32(a[12:])
}

// hash256 is the top 8 bits of a multiplicative hash (the kernel's hash_32
// with the golden ratio).
func hash256(x uint32) uint8 { return uint8(x * 0x61c88647 >> 24) }

// A sipKey is a key of SipHash-1-3.
type sipKey [2]uint64

// sum32 hashes the four bytes of x as a 64-bit kernel's hsiphash does.
func (k *sipKey) sum32(x uint32) uint32 {
	v0, v1, v2, v3 := k.start()
	return uint32(sipFinish(v0, v1, v2, v3, 4<<56|uint64(x)))
}

// sum hashes words as their bytes in little-endian order.
func (k *sipKey) sum(words ...uint64) uint64 {
	v0, v1, v2, v3 := k.start()
	for _, w := range words {
		v3 ^= w
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
		v0 ^= w
	}
	return sipFinish(v0, v1, v2, v3, uint64(len(words))*8<<56)
}

func (k *sipKey) start() (v0, v1, v2, v3 uint64) {
	return k[0] ^ 0x736f6d6570736575, k[1] ^ 0x646f72616e646f6d, k[0] ^ 0x6c7967656e657261, k[1] ^ 0x7465646279746573
}

// sipFinish takes the last word, whose top byte is the length.
func sipFinish(v0, v1, v2, v3, last uint64) uint64 {
	v3 ^= last
	v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	v0 ^= last
	v2 ^= 0xff
	v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	return v0 ^ v1 ^ v2 ^ v3
}

func sipRound(v0, v1, v2, v3 uint64) (uint64, uint64, uint64, uint64) {
	v0 += v1
	v2 += v3
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 = bits.RotateLeft64(v0, 32)
	v2 += v1
	v0 += v3
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v2 = bits.RotateLeft64(v2, 32)
	return v0, v1, v2, v3
}
