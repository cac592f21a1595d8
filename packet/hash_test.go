package packet_test

import (
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/uvs-project/uvs/packet"
)

// Each bit of a tuple must turn each bit of its hash half of the time.
func TestHashAvalanche(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	flip := func(tu *packet.Tuple, bit int) {
		switch {
		case bit < 128:
			tu.Src[bit/8] ^= 1 << (bit % 8)
		case bit < 256:
			tu.Dst[bit/8-16] ^= 1 << (bit % 8)
		case bit < 272:
			tu.SrcPort ^= 1 << (bit - 256)
		case bit < 288:
			tu.DstPort ^= 1 << (bit - 272)
		default:
			tu.Proto ^= 1 << (bit - 288)
		}
	}
	const rounds = 400
	for bit := range 296 {
		turned := 0
		for range rounds {
			tu := tuple(packet.TCP, client6, vip6)
			tu.SrcPort = uint16(rnd.Uint32())
			tu.Src[15] = byte(rnd.Uint32())
			seed := rnd.Uint64()
			before := tu.Hash(seed)
			flip(&tu, bit)
			turned += bits.OnesCount64(before ^ tu.Hash(seed))
		}
		if mean := float64(turned) / rounds; mean < 30 || mean > 34 {
			t.Errorf("bit %d of the tuple turns %.1f bits of the hash, want 32", bit, mean)
		}
	}
}

// The tuples of a real attack or test differ in few low bits; they must spread
// evenly over the buckets of a table.
func TestHashSpread(t *testing.T) {
	const buckets = 1024
	var low, high [buckets]int
	n := 0
	for host := range 64 {
		for port := range 1024 {
			tu := tuple(packet.TCP, client4, vip4)
			tu.Src[3], tu.SrcPort = byte(host), uint16(1024+port)
			h := tu.Hash(0x1234567)
			low[h%buckets]++
			high[h>>54]++
			n++
		}
	}
	mean := n / buckets
	for i := range low {
		if low[i] < mean/2 || low[i] > 2*mean || high[i] < mean/2 || high[i] > 2*mean {
			t.Errorf("bucket %d: %d by low bits, %d by high bits, mean %d", i, low[i], high[i], mean)
		}
	}
}

func TestHashDependsOnSeed(t *testing.T) {
	a, b := tuple(packet.TCP, client4, vip4), tuple(packet.TCP, client4, vip4).Reverse()
	if a.Hash(1) == a.Hash(2) || a.Hash(1) == b.Hash(1) {
		t.Error("hashes are equal")
	}
}

func BenchmarkHash(b *testing.B) {
	tu := tuple(packet.TCP, client6, vip6)
	var h uint64
	for b.Loop() {
		h += tu.Hash(h)
	}
}
