package lb

import (
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"github.com/uvs-project/uvs/packet"
)

// TestWhereaboutsNameTheSlot: what is fetched without the lock is where the
// probing under the lock begins, also after the index has grown.
func TestWhereaboutsNameTheSlot(t *testing.T) {
	table, set := newTestTable(t, 100_000, fakeMode{})
	for i := range uint32(50_000) {
		key := clientTuple(i, packet.UDP)
		table.add(set[0], key, UDPNormal, 0)
		if i%100 != 0 {
			continue
		}
		hash := key.Hash(table.seed)
		s := &table.shards[table.shardOf(hash)]
		if got, want := table.where[table.shardOf(hash)].slot(hash), uintptr(unsafe.Pointer(&s.slots[s.first(hash)])); got != want {
			t.Fatalf("flow %d: slot at %#x, want %#x of %d slots", i, got, want, len(s.slots))
		}
	}
}

// TestPrepareChangesNothing prepares packets whose flows come, stay, grow the
// index and go between Prepare and Handle, while others do the same.
func TestPrepareChangesNothing(t *testing.T) {
	table, set := newTestTable(t, 20_000, fakeMode{})
	q := &Queue{b: &Balancer{table: table}}
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		for range 200 {
			table.Sweep(400*time.Second, sweepBudget)
		}
	}()
	batch := make([]packet.Packet, 32)
	for range 2000 {
		for i := range batch {
			batch[i].Tuple = clientTuple(rand.Uint32N(10_000), packet.UDP)
			if i%2 == 1 {
				batch[i].Tuple, _ = set[0].Mode.ReplyTuple(Flow{Tuple: batch[i].Tuple, Server: set[0]})
			}
		}
		q.Prepare(batch)
		for i := range batch {
			p := &batch[i]
			if want := p.Tuple.Hash(table.seed); p.Hash != want {
				t.Fatalf("hash %#x, want %#x", p.Hash, want)
			}
			if _, _, ok := table.find(p.Tuple, eventKeep, true, 0); !ok && i%2 == 0 {
				table.add(set[0], p.Tuple, UDPNormal, 0)
			}
		}
	}
	<-swept
	table.sweepAll(ticks(400 * time.Second))
	if n := table.Len(); n != 0 {
		t.Errorf("%d flows are left", n)
	}
}
