package fastlane

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespace puts the test into a network namespace of its own with a device,
// and gives its index. The thread ends with the test.
func namespace(t *testing.T) int {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	return device(t, "up0")
}

func device(t *testing.T, name string) int {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	return link.Index
}

// qdiscs counts the clsact disciplines of a device.
func qdiscs(t *testing.T, index int) (n int) {
	t.Helper()
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	all, err := netlink.QdiscList(link)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range all {
		if q.Type() == "clsact" {
			n++
		}
	}
	return n
}

func filters(t *testing.T, index int) []netlink.Filter {
	t.Helper()
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	all, err := netlink.FilterList(link, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAttachFollowsTheDevices(t *testing.T) {
	l := open(t)
	first := namespace(t)
	second := device(t, "up1")
	attached := func(want ...int) {
		t.Helper()
		if len(l.ports.attached) != len(want) {
			t.Errorf("attached to %d devices, want %v", len(l.ports.attached), want)
		}
		for _, index := range want {
			if p := l.ports.attached[index]; p == nil || !p.alive() {
				t.Errorf("not attached to device %d", index)
			}
		}
	}
	if err := l.Attach([]int{first, second}); err != nil {
		t.Fatal(err)
	}
	attached(first, second)
	if err := l.Attach([]int{second}); err != nil {
		t.Fatal(err)
	}
	attached(second)

	link, err := netlink.LinkByIndex(second)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	if l.ports.attached[second].alive() {
		t.Error("attached to a device that is gone")
	}
	if err := l.Attach([]int{first, second}); err == nil {
		t.Error("no error for a device that is gone")
	}
	attached(first)
}

func TestAFilterIsAttachedAndUndone(t *testing.T) {
	l := open(t)
	index := namespace(t)
	p, err := attachFilter(l.objects.Lane, index)
	if err != nil {
		t.Fatal(err)
	}
	if !p.alive() || len(filters(t, index)) != 1 {
		t.Fatalf("alive %v with %d filters, want one", p.alive(), len(filters(t, index)))
	}

	// As after a kill: what was left is replaced, and its clsact is not ours.
	again, err := attachFilter(l.objects.Lane, index)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(filters(t, index)); n != 1 {
		t.Errorf("%d filters after the second start, want one", n)
	}
	if err := again.close(); err != nil {
		t.Fatal(err)
	}
	if p.alive() || len(filters(t, index)) != 0 {
		t.Error("the filter is still there")
	}
	if err := p.close(); err != nil {
		t.Errorf("closing what somebody has removed: %v", err)
	}
	if n := qdiscs(t, index); n != 0 {
		t.Errorf("%d clsact disciplines are left", n)
	}
}

func TestFiltersOfOthersStay(t *testing.T) {
	l := open(t)
	index := namespace(t)
	p, err := attachFilter(l.objects.Lane, index)
	if err != nil {
		t.Fatal(err)
	}
	theirs := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd:          l.objects.Lane.FD(), Name: "theirs", DirectAction: true,
	}
	if err := netlink.FilterAdd(theirs); err != nil {
		t.Fatal(err)
	}
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	left := filters(t, index)
	if len(left) != 1 || left[0].(*netlink.BpfFilter).Name != "theirs" || qdiscs(t, index) != 1 {
		t.Errorf("%d filters and %d clsact are left, want theirs and its clsact", len(left), qdiscs(t, index))
	}
}

// TestCleanRemovesWhatAKilledUvsLeft: on every device, and nothing of others,
// be it of our name or at our priority.
func TestCleanRemovesWhatAKilledUvsLeft(t *testing.T) {
	l := open(t)
	first := namespace(t)
	second := device(t, "up1")
	device(t, "up2") // without a clsact
	for _, index := range []int{first, second} {
		if _, err := attachFilter(l.objects.Lane, index); err != nil {
			t.Fatal(err)
		}
	}
	attrs := netlink.FilterAttrs{LinkIndex: second, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL}
	for _, theirs := range []struct {
		name     string
		priority uint16
	}{{"theirs", 1}, {filterName, 2}, {"others", filterPriority + 1}} {
		attrs.Priority = theirs.priority
		if err := netlink.FilterAdd(&netlink.BpfFilter{FilterAttrs: attrs, Fd: l.objects.Lane.FD(), Name: theirs.name, DirectAction: true}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := Clean(); n != 2 || err != nil {
		t.Errorf("removed %d, %v; want ours at two devices", n, err)
	}
	if n := len(filters(t, first)); n != 0 {
		t.Errorf("%d filters are left at the first device", n)
	}
	if n := len(filters(t, second)); n != 3 {
		t.Errorf("%d filters of others are left, want all three", n)
	}
	if n, err := Clean(); n != 0 || err != nil {
		t.Errorf("with nothing to clean: %d, %v", n, err)
	}
}

func TestWhatSomebodyRemovedIsToldAndAttachedAnew(t *testing.T) {
	l := open(t)
	first, second := namespace(t), device(t, "up1")
	if err := l.Attach([]int{first, second}); err != nil {
		t.Fatal(err)
	}
	switch p := l.ports.attached[second].(type) {
	case tcx:
		if err := p.link.Detach(); err != nil {
			t.Fatal(err)
		}
	case *filter:
		if err := netlink.FilterDel(p.filter); err != nil {
			t.Fatal(err)
		}
	}
	err := l.Attach([]int{first, second})
	if !errors.Is(err, ErrRemoved) || !strings.HasPrefix(err.Error(), "up1: ") || strings.Contains(err.Error(), "up0") {
		t.Errorf("told %v, want that up1 was robbed", err)
	}
	if !l.ports.attached[second].alive() {
		t.Error("not attached anew")
	}
	if err := l.Attach([]int{first, second}); err != nil {
		t.Errorf("told again: %v", err)
	}
}
