package bfd

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// wire is a packet as it is sent: an Up session of 300 ms times 3.
var wire = []byte{
	0x20, 0xc0, 3, 24,
	0, 0, 0, 1,
	0, 0, 0, 2,
	0, 4, 0x93, 0xe0, // 300000 microseconds
	0, 4, 0x93, 0xe0,
	0, 0, 0, 0,
}

func TestPacketIsReadAndWritten(t *testing.T) {
	want := packet{state: Up, multiplier: 3, mine: 1, yours: 2, desiredMinTx: 300 * time.Millisecond, requiredMinRx: 300 * time.Millisecond}
	got, err := parsePacket(wire)
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if b := want.append(nil); !bytes.Equal(b, wire) {
		t.Errorf("% x, want % x", b, wire)
	}
}

func TestPacketIsRefused(t *testing.T) {
	tests := []struct {
		name string
		set  map[int]byte // bytes of wire
		cut  int          // bytes off its end
		want string
	}{
		{name: "a part of one", cut: 1, want: "shorter"},
		{name: "another version", set: map[int]byte{0: 0x00}, want: "version 0"},
		{name: "a length below that of a packet", set: map[int]byte{3: 23}, want: "length 23"},
		{name: "a length beyond what came", set: map[int]byte{3: 25}, want: "length 25"},
		{name: "one with authentication", set: map[int]byte{1: 0xc4}, want: "authenticated"},
		{name: "the bit for multipoint", set: map[int]byte{1: 0xc1}, want: "reserved"},
		{name: "no multiplier", set: map[int]byte{2: 0}, want: "multiplier 0"},
		{name: "no discriminator", set: map[int]byte{7: 0}, want: "discriminator 0"},
		{name: "up, but not with us", set: map[int]byte{11: 0}, want: "up without our discriminator"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(wire[:len(wire)-tt.cut])
			for i, v := range tt.set {
				b[i] = v
			}
			if _, err := parsePacket(b); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(wire)
	f.Add(wire[:23])
	f.Add([]byte{0x20, 0x40, 1, 24, 0, 0, 0, 1, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePacket(b)
		if err != nil {
			return
		}
		again, err := parsePacket(p.append(nil))
		if err != nil || again != p {
			t.Errorf("%+v became %+v, %v", p, again, err)
		}
		// Whatever a peer says, the session goes on, and neither floods it nor
		// loses a deadline.
		s := newSession(300*time.Millisecond, 3, 7, testRandom())
		now := time.Duration(1)
		for range 8 {
			s.receive(p, now)
			s.due(now)
			if s.due(now) {
				t.Fatal("two packets at one time")
			}
			if next := s.next(); next < now {
				t.Fatalf("next is %v before now", now-next)
			}
			now += 100 * time.Millisecond
		}
	})
}
