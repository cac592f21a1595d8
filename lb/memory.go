//go:build !race

package lb

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reserve gives n zeroed values of T, which must hold no pointers. They take
// address space at once and memory page by page as they are touched, and the
// garbage collector does not know of them: ten million flows must not double
// by GOGC nor be walked.
func reserve[T any](n int) ([]T, error) {
	if n == 0 {
		return nil, nil
	}
	size := (n*int(unsafe.Sizeof(*new(T))) + hugePage - 1) / hugePage * hugePage
	b, err := unix.MmapPtr(-1, 0, nil, uintptr(size+hugePage), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes for the flow table: %w", size, err)
	}
	// What sticks out before and after whole huge pages goes back.
	before := -uintptr(b) % hugePage
	unmap(b, before)
	unmap(unsafe.Add(b, before+uintptr(size)), hugePage-before)
	return unsafe.Slice((*T)(unsafe.Add(b, before)), n), nil
}

// populate has the kernel back s with huge pages now, which save a TLB miss on
// nearly every lookup. What s holds stays as it is, so others may use it
// meanwhile.
func populate[T any](s []T) {
	if len(s) == 0 {
		return
	}
	// A kernel without huge pages, or older than 5.14, says no, and all works
	// the same.
	_ = unix.Madvise(bytesOf(s), unix.MADV_HUGEPAGE)
	_ = unix.Madvise(bytesOf(s), unix.MADV_POPULATE_WRITE)
}

// unreserve gives back what reserve gave, whole.
func unreserve[T any](s []T) {
	if len(s) > 0 {
		size := uintptr(len(s)) * unsafe.Sizeof(s[0])
		unmap(unsafe.Pointer(unsafe.SliceData(s)), (size+hugePage-1)/hugePage*hugePage)
	}
}

func unmap(b unsafe.Pointer, size uintptr) {
	if size == 0 {
		return
	}
	if err := unix.MunmapPtr(b, size); err != nil {
		panic(fmt.Sprintf("lb: unmapping what was mapped: %v", err))
	}
}

func bytesOf[T any](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(s[0])))
}
