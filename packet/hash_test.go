package packet_test

import (
	"math/bits"
	"math/rand/v2"
	"net/netip"
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

// TestHashSpreadsWithEverySeed: whatever part of a tuple differs and whichever bits of the
// hash are taken, 40 000 tuples fall on as many of 65 536 places as if drawn by lot,
// with every seed.
func TestHashSpreadsWithEverySeed(t *testing.T) {
	const tuples, byLot, tolerance = 40_000, 29_938, 500 // 65536 (1 - exp(-40000/65536)), and more than five deviations
	base := packet.Tuple{SrcPort: 4000, DstPort: 80, Proto: packet.TCP, Family: packet.IPv4}
	base.Src, _ = packet.AddrFrom(netip.MustParseAddr("198.51.100.7"))
	base.Dst, _ = packet.AddrFrom(netip.MustParseAddr("203.0.113.10"))
	seeds := rand.New(rand.NewPCG(1, 2))
	for _, part := range []struct {
		name string
		set  func(*packet.Tuple, int)
	}{
		{"the source port", func(u *packet.Tuple, i int) { u.SrcPort = uint16(i) }},
		{"the destination port", func(u *packet.Tuple, i int) { u.DstPort = uint16(i) }},
		{"the source address", func(u *packet.Tuple, i int) { u.Src[2], u.Src[3] = byte(i>>8), byte(i) }},
	} {
		t.Run(part.name, func(t *testing.T) {
			for range 20 {
				seed := seeds.Uint64()
				for _, shift := range []int{0, 16, 24, 40, 48} {
					var taken [1 << 16]bool
					places := 0
					for i := range tuples {
						u := base
						part.set(&u, i)
						if at := uint16(u.Hash(seed) >> shift); !taken[at] {
							taken[at] = true
							places++
						}
					}
					if places < byLot-tolerance || places > byLot+tolerance {
						t.Errorf("seed %#x, bits from %d: %d places, want about %d", seed, shift, places, byLot)
					}
				}
			}
		})
	}
}
