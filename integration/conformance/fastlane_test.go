package conformance

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
	"github.com/uvs-project/uvs/replay"
	"github.com/uvs-project/uvs/stack/fastlane"
)

// leastCompared keeps TestFastLane from comparing next to nothing.
const leastCompared = 200

// TestFastLane gives every packet of every vector to the program of the fast
// lane too, with the flows that the balancer has offered until then. What the
// program would carry must be what the director sends, byte by byte; what it
// lets go up was the director's anyway.
func TestFastLane(t *testing.T) {
	l, err := fastlane.Open(fastlane.Options{Flows: 10_000, Accounts: 1})
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	defer l.Close()
	compared := 0
	for _, f := range files(t) {
		for i := range f.Vectors {
			v := &f.Vectors[i]
			if !v.StableMasked || replay.Inapplicable(v) != "" {
				continue
			}
			w := &beside{t: t, lane: l, vector: v.Name, offers: map[packet.Tuple]lb.Offer{}}
			if _, err := replay.PlayBeside(f, v, replay.Witness{Offload: w, Packet: w.packet}); err != nil {
				t.Fatal(err)
			}
			compared += w.compared
		}
	}
	t.Logf("%d packets are the same on both roads", compared)
	if compared < leastCompared && whole() {
		t.Errorf("only %d packets could be compared, want %d", compared, leastCompared)
	}
}

// A beside holds the lane against a director at work.
type beside struct {
	t        *testing.T
	lane     *fastlane.Lane
	vector   string
	offers   map[packet.Tuple]lb.Offer // what the lane would have
	compared int
}

// Offer implements lb.Offload.
func (w *beside) Offer(o *lb.Offer) bool { w.offers[o.Tuple] = *o; return true }

// Withdraw implements lb.Offload.
func (w *beside) Withdraw(t *packet.Tuple) { delete(w.offers, *t) }

// Seen implements lb.Offload.
func (w *beside) Seen(*packet.Tuple) (time.Duration, bool) { return 0, false }

// Invalidate implements lb.Offload.
func (w *beside) Invalidate() { clear(w.offers) }

// Count implements lb.Offload.
func (w *beside) Count(uint32) (packets, bytes uint64) { return 0, 0 }

// packet tries one packet in the lane before the director gets it.
func (w *beside) packet(d *replay.Director, in []byte) func(out []replay.Frame) {
	p := packettest.Load(in)
	if p.Parse() != packet.OK {
		return nil
	}
	o, ok := w.offers[p.Tuple]
	if !ok || !fastlane.Carries(&o.Rewrite, p.Tuple.Family, p.Tuple.Proto) {
		return nil
	}
	made, carried := w.try(d, &o, in)
	if !carried {
		return nil
	}
	return func(out []replay.Frame) {
		w.compared++
		if len(out) != 1 {
			w.t.Errorf("%s: the lane carries what the director answers by %d packets:\n%s", w.vector, len(out), packettest.Dump(in))
			return
		}
		if got, want := free(made), free(out[0].Pkt); !bytes.Equal(got, want) {
			w.t.Errorf("%s: of\n%s\nthe lane makes\n%s\nthe director\n%s", w.vector, packettest.Dump(in), packettest.Dump(got), packettest.Dump(want))
		}
	}
}

func (w *beside) try(d *replay.Director, o *lb.Offer, in []byte) (out []byte, carried bool) {
	to := o.Rewrite.Goes(&o.Tuple).AddrPort().Addr()
	e := fastlane.Entry{Tuple: o.Tuple, Rewrite: o.Rewrite, Hop: fastlane.Hop{IfIndex: 1, MTU: d.PathMTU(to), Addr: to}}
	if o.MTU > 0 {
		e.Hop.MTU = min(e.Hop.MTU, o.MTU)
	}
	if err := w.lane.Beat(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.lane.Put(&e, w.lane.Generation()); err != nil {
		w.t.Fatal(err)
	}
	out, carried, err := w.lane.Try(in)
	if err != nil {
		return nil, false // too short for a frame: the kernel never gives it to the program
	}
	if err := w.lane.Delete(&o.Tuple); err != nil {
		w.t.Fatal(err)
	}
	return out, carried
}

// free blanks the identification of an IPv4 packet that may be fragmented, and
// the checksum that covers it: an outer header's is new in each director.
func free(pkt []byte) []byte {
	if pkt[0]>>4 != packet.IPv4 || pkt[6]&0x40 != 0 {
		return pkt
	}
	pkt = bytes.Clone(pkt)
	clear(pkt[4:6])
	clear(pkt[10:12])
	return pkt
}
