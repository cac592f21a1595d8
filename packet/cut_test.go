package packet_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

// assemble puts the payload of IPv6 fragments together, each of which must fit
// every link and be where the last one ended.
func assemble(t *testing.T, fragments [][]byte) (payload []byte) {
	t.Helper()
	for i, f := range fragments {
		if len(f) > packet.CutLen {
			t.Errorf("fragment %d: %d bytes, more than %d", i, len(f), packet.CutLen)
		}
		pt.MustCheck(t, f)
		p := pt.Parsed(t, f)
		info := p.Fragment()
		if !info.Is || int(info.Offset) != len(payload) || info.More != (i < len(fragments)-1) || info.ID != pt.Parsed(t, fragments[0]).Fragment().ID {
			t.Errorf("fragment %d of %d says %+v behind %d bytes", i, len(fragments), info, len(payload))
		}
		payload = append(payload, f[48:]...)
	}
	return payload
}

// cut applies r to a packet and returns what leaves.
func cut(t *testing.T, r packet.Rewrite, in []byte) (out [][]byte) {
	t.Helper()
	p := pt.ParsedVNet(t, in)
	if why := r.Apply(p); why != packet.OK {
		t.Fatal(why)
	}
	if !p.MustCut() {
		return [][]byte{bytes.Clone(p.Bytes())}
	}
	var c packet.Cutter
	c.Start(p)
	var dst packet.Packet
	dst.Reset(make([]byte, packet.Headroom+packet.CutLen), packet.Headroom, packet.Headroom)
	for c.Next(&dst) {
		out = append(out, bytes.Clone(dst.Bytes()))
	}
	return out
}

func TestCutter(t *testing.T) {
	r := packet.Rewrite{Src: endpoint(lip6), Dst: endpoint(rs6)}
	tests := []struct {
		name   string
		in     [][]byte // packets of one datagram
		parts  int      // that they become
		length int      // of the transport header and data that arrive
	}{
		{"what fits every link stays whole", [][]byte{pt.Plain(pt.UDP(client4, vip4, pt.Pad(1280-48)))}, 1, 0},
		{"what does not becomes two", [][]byte{pt.Plain(pt.UDP(client4, vip4, pt.Pad(1280-48+1)))}, 2, 8 + 1233},
		{"a checksum that was left to the hardware is completed", [][]byte{pt.Partial(pt.UDP(client4, vip4, pt.Pad(1400)))}, 2, 8 + 1400},
		{"what may not be fragmented stays whole", [][]byte{pt.Plain(pt.UDP(client4, vip4, pt.Pad(1400), pt.DF))}, 1, 0},
		{"fragments are cut where they are", plain(pt.Fragments(pt.UDP(client4, vip4, pt.Pad(4000)), 1480)), 5, 8 + 4000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out [][]byte
			for _, in := range tt.in {
				out = append(out, cut(t, r, in)...)
			}
			if len(out) != tt.parts {
				t.Errorf("%d packets leave, want %d", len(out), tt.parts)
			}
			if tt.length == 0 {
				return
			}
			datagram := assemble(t, out)
			if len(datagram) != tt.length {
				t.Errorf("%d bytes arrive, want %d", len(datagram), tt.length)
			}
			// The whole, with its checksum, as if it had never been cut.
			whole := append(bytes.Clone(out[0][:40]), datagram...)
			binary.BigEndian.PutUint16(whole[4:], uint16(len(datagram)))
			whole[6] = packet.UDP
			if err := pt.Check(whole); err != nil {
				t.Error(err)
			}
		})
	}
}

func plain(packets [][]byte) (out [][]byte) {
	for _, p := range packets {
		out = append(out, pt.Plain(p))
	}
	return out
}
