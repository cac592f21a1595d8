package packet_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

func TestAssemble(t *testing.T) {
	fragments := func(b []byte) [][]byte { return pt.Fragments(b, 64) }
	// marked sets the traffic class of one fragment.
	marked := func(parts [][]byte, i int, tos byte) [][]byte {
		if parts[i][0]>>4 == 6 {
			parts[i][1] = parts[i][1]&0x0f | tos<<4
		} else {
			parts[i][1] = tos
		}
		parts[i] = pt.Cut(parts[i], len(parts[i]))
		return parts
	}
	tests := []struct {
		name string
		in   [][]byte
		want []byte
	}{
		{name: "IPv4", in: fragments(pt.UDP(client4, vip4, pt.Pad(200), pt.ID(7))), want: pt.UDP(client4, vip4, pt.Pad(200), pt.ID(7))},
		{name: "IPv4 with options", in: fragments(pt.UDP(client4, vip4, pt.Pad(200), pt.IPOptions(1, 1, 1, 0))), want: pt.UDP(client4, vip4, pt.Pad(200), pt.IPOptions(1, 1, 1, 0))},
		{name: "IPv4 keeps the DF of the largest", in: fragments(pt.UDP(client4, vip4, pt.Pad(200), pt.DF)), want: pt.UDP(client4, vip4, pt.Pad(200), pt.DF)},
		{name: "IPv6", in: fragments(pt.UDP(client6, vip6, pt.Pad(200))), want: pt.UDP(client6, vip6, pt.Pad(200))},
		{name: "IPv6 with an extension header behind the fragment header", in: fragments(pt.UDP(client6, vip6, pt.Pad(200), pt.DestinationOptions)), want: pt.UDP(client6, vip6, pt.Pad(200), pt.DestinationOptions)},
		{name: "a congestion mark of one is that of all", in: marked(fragments(pt.UDP(client4, vip4, pt.Pad(200), pt.TOS(2))), 1, 3), want: pt.UDP(client4, vip4, pt.Pad(200), pt.TOS(3))},
		{name: "also in IPv6", in: marked(fragments(pt.UDP(client6, vip6, pt.Pad(200), pt.TOS(1))), 2, 3), want: pt.UDP(client6, vip6, pt.Pad(200), pt.TOS(3))},
		{name: "but not where the ends know no such mark", in: marked(fragments(pt.UDP(client4, vip4, pt.Pad(200))), 1, 3), want: pt.UDP(client4, vip4, pt.Pad(200))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var parts []*packet.Packet
			for _, b := range tt.in {
				parts = append(parts, pt.Parsed(t, b))
			}
			p, why := packet.Assemble(parts)
			if why != packet.OK {
				t.Fatal(why)
			}
			diff(t, p.Bytes(), tt.want)
			if p.Fragment().Is || p.Tuple != pt.Parsed(t, tt.want).Tuple {
				t.Errorf("parsed as %+v, fragment %v", p.Tuple, p.Fragment().Is)
			}
		})
	}
	t.Run("IPv4: what does not fill eight bytes is the next one's", func(t *testing.T) {
		whole := pt.UDP(client4, vip4, pt.Pad(200))
		parts := pt.Fragments(whole, 64)
		long := pt.Cut(append(parts[0], 1, 2, 3), len(parts[0])+3)
		p, why := packet.Assemble([]*packet.Packet{pt.Parsed(t, long), pt.Parsed(t, parts[1]), pt.Parsed(t, parts[2]), pt.Parsed(t, parts[3])})
		if why != packet.OK {
			t.Fatal(why)
		}
		diff(t, p.Bytes(), whole)
	})
	t.Run("more than a packet can hold", func(t *testing.T) {
		parts := pt.Fragments(pt.UDP(client4, vip4, pt.Pad(65400)), 1480) // the last starts at 65120
		last := pt.Cut(append(parts[44], make([]byte, 200)...), 20+410)
		if _, why := packet.Assemble([]*packet.Packet{pt.Parsed(t, parts[0]), pt.Parsed(t, last)}); why != packet.TooBig {
			t.Errorf("%v, want %v", why, packet.TooBig)
		}
	})
}

// TestFragmentsBehindHopByHop: options for every router stand in front of the
// fragment header, in the fragments that come and in those that leave.
func TestFragmentsBehindHopByHop(t *testing.T) {
	whole := pt.UDP(client6, vip6, pt.Pad(3000), pt.HopByHop)
	const size = 1296 // of what each fragment carries
	var in []*packet.Packet
	for off := 0; off < len(whole)-48; off += size {
		data := whole[48+off : min(48+off+size, len(whole))]
		b := append(bytes.Clone(whole[:48]), packet.UDP, 0, 0, 0, 1, 2, 3, 4)
		b[40] = 44
		field := uint16(off)
		if off+size < len(whole)-48 {
			field |= 1
		}
		binary.BigEndian.PutUint16(b[50:], field)
		b = append(b, data...)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		in = append(in, pt.Parsed(t, b))
	}
	p, why := packet.Assemble(in)
	if why != packet.OK {
		t.Fatal(why)
	}
	diff(t, p.Bytes(), whole)
	if p.SegmentLen() != 56+size {
		t.Errorf("the longest on the wire has %d bytes, want that of those that came, %d", p.SegmentLen(), 56+size)
	}
	var c packet.Cutter
	if why := c.Start(p); why != packet.OK {
		t.Fatal(why)
	}
	var out []*packet.Packet
	for {
		part := new(packet.Packet)
		part.Reset(make([]byte, packet.Headroom+p.CutLen()), 0, 0)
		if !c.Next(part) {
			break
		}
		if b := part.Bytes(); b[6] != 0 || b[40] != 44 || b[48] != packet.UDP || len(b) > 56+size {
			t.Errorf("fragment %d of %d bytes: headers %d, %d, %d", len(out), len(b), b[6], b[40], b[48])
		}
		out = append(out, pt.Parsed(t, part.Bytes()))
	}
	if len(out) != len(in) {
		t.Errorf("%d fragments leave, want %d", len(out), len(in))
	}
	again, why := packet.Assemble(out)
	if why != packet.OK {
		t.Fatal(why)
	}
	diff(t, again.Bytes(), whole)
}
