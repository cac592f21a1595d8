package sched

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// sipHash is SipHash as its paper has it, with c rounds a word and d at the
// end, over bytes.
func sipHash(c, d int, k0, k1 uint64, msg []byte) uint64 {
	v := [4]uint64{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	rounds := func(n int) {
		for range n {
			v[0] += v[1]
			v[1] = bits.RotateLeft64(v[1], 13)
			v[1] ^= v[0]
			v[0] = bits.RotateLeft64(v[0], 32)
			v[2] += v[3]
			v[3] = bits.RotateLeft64(v[3], 16)
			v[3] ^= v[2]
			v[0] += v[3]
			v[3] = bits.RotateLeft64(v[3], 21)
			v[3] ^= v[0]
			v[2] += v[1]
			v[1] = bits.RotateLeft64(v[1], 17)
			v[1] ^= v[2]
			v[2] = bits.RotateLeft64(v[2], 32)
		}
	}
	last := uint64(len(msg)) << 56
	for len(msg) >= 8 {
		m := binary.LittleEndian.Uint64(msg)
		v[3] ^= m
		rounds(c)
		v[0] ^= m
		msg = msg[8:]
	}
	for i, b := range msg {
		last |= uint64(b) << (8 * i)
	}
	v[3] ^= last
	rounds(c)
	v[0] ^= last
	v[2] ^= 0xff
	rounds(d)
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}

func TestSipHash(t *testing.T) {
	var msg [15]byte
	for i := range msg {
		msg[i] = byte(i)
	}
	// The vector of SipHash's paper holds the twin.
	if got := sipHash(2, 4, 0x0706050403020100, 0x0f0e0d0c0b0a0908, msg[:]); got != 0xa129ca6149be45e5 {
		t.Fatalf("SipHash-2-4 of the paper's message: %x", got)
	}
	for range 1000 {
		k := sipKey{rand.Uint64(), rand.Uint64()}
		words := make([]uint64, rand.IntN(6))
		var b []byte
		for i := range words {
			words[i] = rand.Uint64()
			b = binary.LittleEndian.AppendUint64(b, words[i])
		}
		if got, want := k.sum(words...), sipHash(1, 3, k[0], k[1], b); got != want {
			t.Fatalf("key %x, words %x: %x, want %x", k, words, got, want)
		}
		x := rand.Uint32()
		if got, want := k.sum32(x), uint32(sipHash(1, 3, k[0], k[1], binary.LittleEndian.AppendUint32(nil, x))); got != want {
			t.Fatalf("key %x of %x: %x, want %x", k, x, got, want)
		}
	}
}

// TestClientHashes: numbers computed from IPVS's source by others.
func TestClientHashes(t *testing.T) {
	tests := []struct {
		client   string
		mh       uint32 // with the first key
		slot     uint32 // of mh
		portSlot uint32 // of mh with port 12345; 0: not given
		bucket   uint8  // of sh
		portB    uint8
	}{
		{client: "192.0.2.1", mh: 0x92889c88, slot: 2891, portSlot: 1302, bucket: 50, portB: 145},
		{client: "192.0.2.2", mh: 0xf919356d, slot: 746, portSlot: 3107, bucket: 148, portB: 243},
		{client: "198.51.100.7", mh: 0xadb98ab6, slot: 924, portSlot: 222, bucket: 171, portB: 9},
		{client: "2001:db8::1", mh: 0xcdc3f189, slot: 3457},
	}
	for _, tt := range tests {
		a, family := packet.AddrFrom(netip.MustParseAddr(tt.client))
		tuple := packet.Tuple{Src: a, SrcPort: 12345, Family: family}
		if got := mhFirstKey.sum32(client(&tuple, 0)); got != tt.mh || got%mhSlots != tt.slot {
			t.Errorf("%s: mh %x, slot %d, want %x, %d", tt.client, got, got%mhSlots, tt.mh, tt.slot)
		}
		if tt.portSlot == 0 {
			continue
		}
		if got := mhFirstKey.sum32(client(&tuple, withPort)) % mhSlots; got != tt.portSlot {
			t.Errorf("%s with its port: slot %d, want %d", tt.client, got, tt.portSlot)
		}
		if got, withPort := hash256(client(&tuple, 0)), hash256(client(&tuple, withPort)); got != tt.bucket || withPort != tt.portB {
			t.Errorf("%s: buckets %d, %d with its port, want %d, %d", tt.client, got, withPort, tt.bucket, tt.portB)
		}
	}
}

// TestMaglevHashTable: the head of a table computed from IPVS's source by
// others, and what weights it makes of some.
func TestMaglevHashTable(t *testing.T) {
	set := make([]*lb.RealServer, 3) // .3, .2, .1
	for i := range set {
		set[i] = &lb.RealServer{
			Endpoint: packet.EndpointFrom(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(3 - i)}), 80)),
			Weight:   1, LastWeight: 1,
		}
	}
	s := mustBuild(t, "mh", Options{}, set, nil).(*maglevHash)
	var head []byte
	for _, n := range s.slots[:16] {
		head = append(head, set[n].Endpoint.Addr[3])
	}
	if want := []byte{1, 2, 2, 3, 3, 1, 2, 3, 3, 1, 1, 2, 2, 1, 1, 3}; !slices.Equal(head, want) {
		t.Errorf("the first slots have %v, want %v", head, want)
	}
	if got, want := counts(s.slots, 3), []int{1365, 1364, 1364}; !slices.Equal(got, want) {
		t.Errorf("slots %v, want %v", got, want)
	}
	for i, w := range []int{1, 200, 0} {
		set[i].LastWeight = w
	}
	if got, want := mhTurns(set), []int{1, 50, 0}; !slices.Equal(got, want) {
		t.Errorf("weights 1 200 0 make turns %v, want %v", got, want)
	}
	if got, want := counts(mustBuild(t, "mh", Options{}, set[:2], nil).(*maglevHash).slots, 2), []int{81, 4012}; !slices.Equal(got, want) {
		t.Errorf("weights 1 and 200 get slots %v, want %v", got, want)
	}
}
