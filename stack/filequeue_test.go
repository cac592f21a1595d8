package stack

import (
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWaitHoldsUpNoCollection: a goroutine that waits for packets, and does not
// tell the scheduler, must not keep the collection of garbage waiting.
func TestWaitHoldsUpNoCollection(t *testing.T) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	q, err := newFileQueue(fd)
	if err != nil {
		t.Fatal(err)
	}
	woke, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer close(woke)
		var count [8]byte
		for {
			if err := q.Wait(); err != nil {
				ended <- err
				return
			}
			if _, err := unix.Read(fd, count[:]); errors.Is(err, unix.EAGAIN) {
				continue
			}
			if count[0] > 1 {
				ended <- nil
				return
			}
			woke <- struct{}{} // and waits anew while main collects
		}
	}()
	wake := func(by byte) {
		if _, err := unix.Write(fd, []byte{by, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
	}
	// Each would take most of attentive if it had to wait; on a busy machine
	// some may by chance.
	var took []time.Duration
	for range 20 {
		wake(1)
		<-woke
		start := time.Now()
		runtime.GC()
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	if typical := took[len(took)/2]; typical > attentive/2 {
		t.Errorf("a collection takes %v while a queue waits", typical)
	}
	wake(2)
	if err := errors.Join(<-ended, q.close()); err != nil {
		t.Error(err)
	}
}
