package lb

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// TestRegion takes parts of a region while a sweeper fills it. Each must be all
// zero, its own, and all together the whole but for the page that the sweeper may
// hold.
func TestRegion(t *testing.T) {
	const pages = 12
	all, err := reserve[uint64](pages * pageOf[uint64]())
	if err != nil {
		t.Fatal(err)
	}
	defer unreserve(all)
	r := region[uint64]{all: all}
	r.warm(1 << 12)
	var mu sync.Mutex
	done := make(chan struct{})
	var sweeper sync.WaitGroup
	sweeper.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				r.fill(&mu)
			}
		}
	})
	rnd := rand.New(rand.NewPCG(1, 1))
	taken := 0
	for part := uint64(1); ; part++ {
		n := 1 << (9 + rnd.IntN(5))
		mu.Lock()
		from, ok := r.take(n)
		mu.Unlock()
		if !ok {
			break
		}
		taken += n
		for i := from; i < from+n; i++ {
			if all[i] != 0 {
				t.Fatalf("part %d: value %d belongs to part %d", part, i, all[i])
			}
			all[i] = part
		}
	}
	close(done)
	sweeper.Wait()
	if r.used != taken {
		t.Errorf("%d values counted, %d taken", r.used, taken)
	}
	if taken < len(all)-pageOf[uint64]()-pages<<13 { // what is too short at the end of a page is lost
		t.Errorf("%d of %d values could be taken", taken, len(all))
	}
}

// TestArenaHasAnIndexForEveryShard: the page that the sweeper holds is not
// missing in the end.
func TestArenaHasAnIndexForEveryShard(t *testing.T) {
	const size, shards = 15, 64 // eight huge pages
	for range 20 {
		a := arenas{shards: shards}
		if _, err := a.take(size); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		var sweeper sync.WaitGroup
		sweeper.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					a.tidy()
				}
			}
		})
		for i := 1; i < shards; i++ {
			if _, err := a.take(size); err != nil {
				t.Errorf("index %d: %v", i, err)
			}
		}
		close(done)
		sweeper.Wait()
		a.close()
	}
}
