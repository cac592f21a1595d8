//go:build !race

package lb

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size in bytes of a huge page of amd64 and of arm64 with
// 4 KiB pages; below it asking for them is pointless.
const hugePage = 2 << 20

// reserve gives n zeroed values of T, which must hold no pointers. They take
// address space at once and memory page by page as they are touched, and the
// garbage collector does not know of them: ten million flows must not double
// by GOGC nor be walked. Huge pages save a TLB miss on nearly every lookup.
func reserve[T any](n int) ([]T, error) {
	if n == 0 {
		return nil, nil
	}
	size := n * int(unsafe.Sizeof(*new(T)))
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes for the flow table: %w", size, err)
	}
	if size >= hugePage {
		// A kernel without huge pages says no and works all the same.
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

// unreserve gives back what reserve gave, whole.
func unreserve[T any](s []T) {
	if len(s) == 0 {
		return
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(s[0])))
	if err := unix.Munmap(b); err != nil {
		panic(fmt.Sprintf("lb: unmapping what was mapped: %v", err))
	}
}
