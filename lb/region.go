package lb

import (
	"sync"
	"unsafe"
)

// A region hands out the parts of one large reservation, and keeps some of it
// ready in huge pages.
//
// A packet loop must not be the first to touch a huge page: to clear one takes
// milliseconds on a virtual machine whose host has to find the memory too. So
// the sweeper takes pages out of the raw memory, populates them and only then
// offers them; who comes when none is ready gets raw memory, which the kernel
// backs with small pages.
type region[T any] struct {
	all   []T
	raw   int    // all[raw:] was neither handed out nor populated
	ready []span // to be handed out first
	used  int    // handed out
}

// A span is all[from:to].
type span struct{ from, to int }

// hugePage is the size in bytes of a huge page of amd64, and of arm64 with
// small pages of 4 KiB.
const hugePage = 2 << 20

// pageOf is how many values of T a huge page has.
func pageOf[T any]() int { return hugePage / int(unsafe.Sizeof(*new(T))) }

// take hands out n values, a power of two that fits a huge page, and says where
// in all they begin; false where there are no more. While the sweeper populates
// a page, nobody can have it. The caller guards r.
func (r *region[T]) take(n int) (from int, ok bool) {
	for len(r.ready) > 0 {
		s := &r.ready[len(r.ready)-1]
		if s.to-s.from >= n {
			from = s.from
			s.from += n
			r.used += n
			return from, true
		}
		r.ready = r.ready[:len(r.ready)-1]
	}
	if len(r.all)-r.raw < n {
		return 0, false
	}
	from = r.raw
	r.raw += n
	r.used += n
	return from, true
}

// fill populates raw memory until an eighth more than is used is ready, within
// 2 and 32 MiB. Only the sweeper calls it. mu is what guards r; it is not held
// while the kernel works.
func (r *region[T]) fill(mu *sync.Mutex) {
	page := pageOf[T]()
	for {
		mu.Lock()
		have := 0
		for _, s := range r.ready {
			have += s.to - s.from
		}
		from := (r.raw + page - 1) / page * page
		enough := have >= min(max(r.used/8, page), 16*page)
		if enough || from+page > len(r.all) {
			mu.Unlock()
			return
		}
		if r.raw < from {
			r.ready = append(r.ready, span{r.raw, from})
		}
		r.raw = from + page
		mu.Unlock()

		populate(r.all[from : from+page])

		mu.Lock()
		r.ready = append(r.ready, span{from, from + page})
		mu.Unlock()
	}
}

// warm populates the first n values, before anybody else uses r.
func (r *region[T]) warm(n int) {
	n = min(n, len(r.all))
	populate(r.all[:n])
	r.raw = n
	r.ready = []span{{0, n}}
}
