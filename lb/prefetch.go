//go:build amd64 || arm64

package lb

// prefetch asks the processor for the cache line at an address and does not wait
// for it. Unlike a load it needs no lock: it tells nothing of what is there, and
// it is ignored where nothing is mapped.
//
//go:noescape
func prefetch(addr uintptr)
