package stack

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"

	"github.com/uvs-project/uvs/integration/lab"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// A wire is a sender, and what comes out at the server.
type wire struct {
	*scene
	*sender
	dev     netlink.Link // towards the server
	mac     MAC          // of the server
	capture *lab.Capture
}

func newWire(t *testing.T) *wire {
	t.Helper()
	w := &wire{scene: newScene(t, 1, true)}
	w.mac = MAC(w.server.MAC("director"))
	var err error
	if w.dev, err = w.director.Netlink().LinkByName("server"); err != nil {
		t.Fatal(err)
	}
	if w.capture, err = w.server.Capture("director", func(f *lab.Frame) bool {
		udp, ok := f.Packet(false).TransportLayer().(*layers.UDP)
		return ok && udp.DstPort == 9
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.director.Do(func() (err error) {
		w.sender, err = openSender(new(tally), new(counters))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.sender.close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// frame is a datagram for the server with the payload.
func (w *wire) frame(t *testing.T, payload ...packettest.Option) []byte {
	t.Helper()
	p := packettest.Parsed(t, packettest.UDP("192.0.2.2:1", "198.51.100.2:9", payload...))
	return putFrame(p, MAC(w.dev.Attrs().HardwareAddr), w.mac)
}

// arrived are the payloads that have come once last is there.
func (w *wire) arrived(t *testing.T, last string) []string {
	t.Helper()
	if _, err := w.capture.Wait(within(t), last, func(f *lab.Frame) bool { return payload(f) == last }); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range w.capture.Frames() {
		all = append(all, payload(&f))
	}
	return all
}

func payload(f *lab.Frame) string {
	return string(f.Packet(false).TransportLayer().LayerPayload())
}

func (w *wire) lost() uint64 { return w.count.lost[packet.SendFailed].Load() }

func TestSenderKeepsOrderAroundFramesAtFault(t *testing.T) {
	w := newWire(t)
	index := w.dev.Attrs().Index
	bad := w.frame(t, packettest.Data("a virtio-net header that lies"))
	bad[0] = packet.VNetNeedsCsum
	binary.NativeEndian.PutUint16(bad[6:], 5000)
	long := string(make([]byte, 1472)) // the most that fits: still small enough for a slot
	super := w.frame(t, packettest.Data("by the batch"))
	for _, f := range []struct {
		frame   []byte
		ifindex int
		plain   bool
	}{
		{w.frame(t, packettest.Data("first")), index, true},
		{bad, index, true},
		{w.frame(t, packettest.Data("second")), index, true},
		{w.frame(t, packettest.Pad(9000)), index, true}, // too long for slot and device
		{w.frame(t, packettest.Data("third")), index, true},
		{w.frame(t, packettest.Data("nowhere")), 1 << 20, true},
		{super, index, false},
		{w.frame(t, packettest.Data(long)), index, true},
		{w.frame(t, packettest.Data("last")), index, true},
	} {
		w.send(f.frame, f.ifindex, f.plain)
	}
	w.flush()
	want := []string{"first", "second", "third", "by the batch", long, "last"}
	if diff := cmp.Diff(want, w.arrived(t, "last")); diff != "" {
		t.Errorf("what arrived (-want +got):\n%s", diff)
	}
	if w.lost() != 3 || w.tally.byLink != 6 {
		t.Errorf("%d frames lost and %d sent, want the 3 at fault and 6", w.lost(), w.tally.byLink)
	}
}

func TestSenderGoesRoundItsRing(t *testing.T) {
	w := newWire(t)
	const n = 3*ringSlots + 7
	for i := range n {
		w.send(w.frame(t, packettest.Data(fmt.Sprint(i))), w.dev.Attrs().Index, true)
		if i%50 == 49 {
			w.flush()
		}
	}
	w.flush()
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i))
	}
	if diff := cmp.Diff(want, w.arrived(t, fmt.Sprint(n-1))); diff != "" {
		t.Errorf("what arrived (-want +got):\n%s", diff)
	}
	if w.lost() != 0 || w.tally.byLink != n {
		t.Errorf("%d frames lost and %d sent, want none and %d", w.lost(), w.tally.byLink, n)
	}
}

func TestSenderSurvivesTheDevice(t *testing.T) {
	w := newWire(t)
	nl, index := w.director.Netlink(), w.dev.Attrs().Index
	two := func(data string) {
		w.send(w.frame(t, packettest.Data(data+" 1")), index, true)
		w.send(w.frame(t, packettest.Data(data+" 2")), index, true)
		w.flush()
	}
	two("up")
	if err := nl.LinkSetDown(w.dev); err != nil {
		t.Fatal(err)
	}
	two("down")
	if w.lost() != 2 {
		t.Errorf("%d frames lost while the device was down, want 2", w.lost())
	}
	if err := nl.LinkSetUp(w.dev); err != nil {
		t.Fatal(err)
	}
	two("up again")
	if diff := cmp.Diff([]string{"up 1", "up 2", "up again 1", "up again 2"}, w.arrived(t, "up again 2")); diff != "" {
		t.Errorf("what arrived (-want +got):\n%s", diff)
	}
	if err := nl.LinkDel(w.dev); err != nil {
		t.Fatal(err)
	}
	two("gone")
	if w.lost() != 4 {
		t.Errorf("%d frames lost in all, want 4 when the device is gone", w.lost())
	}
	for _, r := range w.rings {
		if r.ifindex != 0 {
			t.Errorf("a ring still belongs to device %d", r.ifindex)
		}
	}
}

func TestSenderHasNoRingForManyDevices(t *testing.T) {
	w := newWire(t)
	for i := range maxRings {
		w.rings[i].ifindex = 1000 + i
	}
	w.send(w.frame(t, packettest.Data("without a ring")), w.dev.Attrs().Index, true)
	w.flush()
	w.arrived(t, "without a ring")
	if w.tally.byLink != 1 {
		t.Errorf("%d frames sent, want 1", w.tally.byLink)
	}
}

func TestFramesThatWaitedAreSent(t *testing.T) {
	w := newWire(t)
	index, socket := w.dev.Attrs().Index, w.batch.socket
	n := NewNeighbour(sceneRIPs[0])
	late := w.frame(t, packettest.Data("late"))
	copy(late[packet.VNetLen:], make([]byte, 6))
	n.wait(waitingFrame{frame: late, ifindex: index, socket: socket, count: w.count})
	clear(late) // what waits is a copy
	n.Set(w.mac)
	w.arrived(t, "late")

	// One that is resolved only when the queue is gone is lost, not sent to
	// whatever has the socket's number then.
	closed := &linkSocket{fd: -1, closed: true}
	n.Fail()
	n.wait(waitingFrame{frame: w.frame(t, packettest.Data("too late")), ifindex: index, socket: closed, count: w.count})
	n.Set(w.mac)
	if w.lost() != 1 {
		t.Errorf("%d frames lost, want the one after the end", w.lost())
	}
}
