package lb

import (
	"fmt"
	"sync"
)

// arenas hold the indexes of all shards, one arena per size. Shards grow at
// about the same time, so an arena fills while the one before it empties, and
// few are alive at once.
type arenas struct {
	shards int

	mu      sync.Mutex // taken with a shard's lock held; never the other way round
	bySize  [32]*arena // nil: no shard has an index of the size
	retired [][]uint64 // left by the last shard; unmapping takes long, so the sweeper does it
}

// An arena has room for the indexes of all shards at one size, and for the page
// that the sweeper may hold.
type arena struct {
	region[uint64]
	users int // shards that have an index here
}

// take gives a shard its index of 1<<size slots, all free.
func (a *arenas) take(size int) ([]uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, err := a.arenaLocked(size)
	if err != nil {
		return nil, err
	}
	from, ok := r.take(1 << size)
	if !ok {
		return nil, fmt.Errorf("more than %d indexes of 2^%d slots", a.shards, size)
	}
	r.users++
	return r.all[from : from+1<<size : from+1<<size], nil
}

// arenaLocked is the arena of a size, made where there is none.
func (a *arenas) arenaLocked(size int) (*arena, error) {
	if size >= len(a.bySize) {
		return nil, fmt.Errorf("a shard's index of 2^%d slots", size)
	}
	if a.bySize[size] == nil {
		slots, err := reserve[uint64](a.shards<<size + pageOf[uint64]())
		if err != nil {
			return nil, err
		}
		a.bySize[size] = &arena{region: region[uint64]{all: slots}}
	}
	return a.bySize[size], nil
}

// leave is called by a shard that took a larger index.
func (a *arenas) leave(size int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.bySize[size]
	if r.users--; r.users == 0 {
		a.retired = append(a.retired, r.all)
		a.bySize[size] = nil
	}
}

// outgrown is the size from which an eighth of the shards has grown on, 0 where
// there is none. The others are made to follow, so that the arena can be given
// back.
func (a *arenas) outgrown() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for size := len(a.bySize) - 1; size > minSlotBits; size-- {
		if r := a.bySize[size]; r != nil && r.users > a.shards/8 && a.bySize[size-1] != nil {
			return size - 1
		}
	}
	return 0
}

// tidy gives back the arenas that no shard uses, and populates what will be
// taken next, the beginning of the next size too. Only the sweeper calls it.
func (a *arenas) tidy() {
	a.mu.Lock()
	retired := a.retired
	a.retired = nil
	var filling []*arena
	for size := minSlotBits; size < len(a.bySize)-1; size++ {
		r := a.bySize[size]
		if r == nil {
			continue
		}
		if r.users < a.shards {
			filling = append(filling, r)
		}
		if r.users > a.shards/2 {
			_, _ = a.arenaLocked(size + 1) // where there is no memory, who needs it will be told
		}
	}
	a.mu.Unlock()
	for _, slots := range retired {
		unreserve(slots)
	}
	for _, r := range filling {
		r.fill(&a.mu)
	}
}

func (a *arenas) close() {
	for _, slots := range a.retired {
		unreserve(slots)
	}
	for i, r := range a.bySize {
		if r != nil {
			unreserve(r.all)
			a.bySize[i] = nil
		}
	}
	a.retired = nil
}
