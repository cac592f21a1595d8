package stack

import (
	"bytes"
	"testing"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

func TestEmit(t *testing.T) {
	tun := NewMemTUN(2)
	r := start(t, tun, verdict(packet.Return), Options{})
	for range 3 { // the loop sleeps before each
		want := packettest.TCP("203.0.113.10:80", "198.51.100.7:40000", packettest.RST)
		p := packettest.Parsed(t, bytes.Clone(want))
		if !r.Emit(p) {
			t.Fatal("refused")
		}
		clear(p.Bytes()) // it is the caller's again
		if got := next(t, tun, 0)[packet.VNetLen:]; !bytes.Equal(got, want) {
			t.Errorf("sent %s\nwant %s", packettest.Dump(got), packettest.Dump(want))
		}
	}
	// What was emitted is no packet that was read.
	r.Emit(packettest.Parsed(t, packettest.UDP("[2001:db8::1]:1", "[2001:db8::2]:2")))
	next(t, tun, 0)
	tun.InjectPacket(0, packettest.Echo("198.51.100.7", "203.0.113.10"))
	next(t, tun, 0)
	waitStats(t, r, func(s QueueStats) bool { return s.Returned == 1 })
	if s := r.Stats().Queues[0]; s.Packets != 1 || s.Sent != 0 || s.ByKernel != 4 {
		t.Errorf("counted %+v", s)
	}
}

// TestEmitManyAtOnce fills the outbox before the loop runs: all that were taken
// leave, in their order, and no more are.
func TestEmitManyAtOnce(t *testing.T) {
	tun := NewMemTUN(1)
	r, err := New(tun, func(int) Handler { return verdict(packet.Drop) }, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	nth := func(i int) []byte {
		return packettest.TCP("203.0.113.10:80", "198.51.100.7:40000", packettest.RST, packettest.Seq(uint32(i)))
	}
	for i := range outboxLen {
		if !r.Emit(packettest.Parsed(t, nth(i))) {
			t.Fatalf("packet %d was refused", i)
		}
	}
	if r.Emit(packettest.Parsed(t, nth(0))) {
		t.Error("a full outbox took a packet")
	}
	for i, drained := 0, false; !drained; i++ {
		if i > outboxLen {
			t.Fatal("the loop is never done")
		}
		if drained, err = r.loops[0].batch(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range outboxLen {
		if got := next(t, tun, 0)[packet.VNetLen:]; !bytes.Equal(got, nth(i)) {
			t.Fatalf("packet %d: %s", i, packettest.Dump(got))
		}
	}
	if !r.Emit(packettest.Parsed(t, nth(0))) {
		t.Error("an empty outbox took no packet")
	}
}

func TestEmitRefusesWhatDoesNotFit(t *testing.T) {
	tun := NewMemTUN(1)
	r := start(t, tun, verdict(packet.Drop), Options{})
	if r.Emit(packettest.Parsed(t, packettest.UDP("198.51.100.7:1", "203.0.113.10:2", packettest.Pad(1000)))) {
		t.Error("a long packet was taken")
	}
	p := packettest.Parsed(t, packettest.UDP("198.51.100.7:1", "203.0.113.10:2"))
	p.NextHop = parseEndpoint("192.0.2.1:0")
	r.Emit(p)
	waitStats(t, r, func(s QueueStats) bool { return s.Lost[packet.NoRoute] == 1 })
}
