package packet_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

// joined puts the data of fragments together, each of which must be no longer
// than size and be where the last one ended, and gives the whole packet back.
// The headers of each fragment end at head.
func joined(t *testing.T, fragments [][]byte, size, head int) []byte {
	t.Helper()
	whole := bytes.Clone(fragments[0][:head])
	for i, f := range fragments {
		if len(f) > size {
			t.Errorf("fragment %d: %d bytes, more than %d", i, len(f), size)
		}
		pt.MustCheck(t, f)
		info := pt.Parsed(t, f).Fragment()
		if !info.Is || int(info.Offset) != len(whole)-head || info.More != (i < len(fragments)-1) || info.ID != pt.Parsed(t, fragments[0]).Fragment().ID {
			t.Errorf("fragment %d of %d says %+v behind %d bytes", i, len(fragments), info, len(whole)-head)
		}
		whole = append(whole, f[head:]...)
	}
	if whole[0]>>4 == packet.IPv4 {
		binary.BigEndian.PutUint16(whole[2:], uint16(len(whole)))
		binary.BigEndian.PutUint16(whole[6:], 0)
		binary.BigEndian.PutUint16(whole[10:], 0)
		binary.BigEndian.PutUint16(whole[10:], ^checksum.Checksum(whole[:head], 0))
		return whole
	}
	next := 6
	for at := 40; at < head-8; at += 8 { // the tests' headers in front have 8 bytes
		next = at
	}
	whole[next] = whole[head-8]
	whole = append(whole[:head-8], whole[head:]...)
	binary.BigEndian.PutUint16(whole[4:], uint16(len(whole)-40))
	return whole
}

// cut applies r to a packet that leaves in fragments of at most mtu bytes, and
// returns what leaves.
func cut(t *testing.T, r packet.Rewrite, in []byte, mtu int) (out [][]byte) {
	t.Helper()
	p := pt.ParsedVNet(t, in)
	if mtu != 0 {
		p.FragmentTo(mtu)
	}
	if why := r.Apply(p); why != packet.OK {
		t.Fatal(why)
	}
	n := p.CutLen()
	if n == 0 {
		return [][]byte{bytes.Clone(p.Bytes())}
	}
	var c packet.Cutter
	if why := c.Start(p); why != packet.OK {
		t.Fatal(why)
	}
	var dst packet.Packet
	dst.Reset(make([]byte, packet.Headroom+n), packet.Headroom, packet.Headroom)
	for c.Next(&dst) {
		if dst.NextHop != p.NextHop {
			t.Errorf("a fragment goes to %v, want %v", dst.NextHop, p.NextHop)
		}
		out = append(out, bytes.Clone(dst.Bytes()))
	}
	if c.Next(&dst) {
		t.Error("a fragment after the last")
	}
	return out
}

func TestCutter(t *testing.T) {
	translate := packet.Rewrite{Src: endpoint(lip6), Dst: endpoint(rs6)}
	options := pt.IPOptions(148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0) // router alert, copied; record route, not
	tests := []struct {
		name  string
		r     packet.Rewrite
		mtu   int      // 0: FragmentTo is not called
		in    [][]byte // packets of one datagram
		parts int      // that they become
		head  int      // bytes of headers in each
		limit int      // bytes of each
		want  []byte   // the whole that arrives; nil: one packet of any kind
	}{
		{name: "an IPv4 packet that fits every IPv6 link stays whole", r: translate,
			in: [][]byte{pt.Plain(pt.UDP(client4, vip4, pt.Pad(1280-48)))}, parts: 1},
		{name: "what does not becomes two", r: translate, parts: 2, head: 48, limit: 1280,
			in: [][]byte{pt.Plain(pt.UDP(client4, vip4, pt.Pad(1280-48+1)))}, want: pt.UDP(lip6, rs6, pt.Pad(1233))},
		{name: "a checksum that was left to the hardware is completed", r: translate, parts: 2, head: 48, limit: 1280,
			in: [][]byte{pt.Partial(pt.UDP(client4, vip4, pt.Pad(1400)))}, want: pt.UDP(lip6, rs6, pt.Pad(1400))},
		{name: "what may not be fragmented stays whole", r: translate,
			in: [][]byte{pt.Plain(pt.UDP(client4, vip4, pt.Pad(1400), pt.DF))}, parts: 1},
		{name: "fragments are cut where they are", r: translate, parts: 5, head: 48, limit: 1280,
			in: plain(pt.Fragments(pt.UDP(client4, vip4, pt.Pad(4000)), 1480)), want: pt.UDP(lip6, rs6, pt.Pad(4000))},

		{name: "dr: IPv4 is cut to the link", r: dr(rs4), mtu: 1400, parts: 2, head: 20, limit: 1400,
			in: [][]byte{pt.Plain(pt.UDP(client4, vip4, pt.Pad(1472), pt.ID(9)))}, want: pt.UDP(client4, vip4, pt.Pad(1472), pt.ID(9))},
		{name: "dr: IPv4 with DF is not", r: dr(rs4), mtu: 1400, parts: 1,
			in: [][]byte{pt.Plain(pt.UDP(client4, vip4, pt.Pad(1472), pt.DF))}},
		{name: "dr: what fits is not", r: dr(rs4), mtu: 1400, parts: 1,
			in: [][]byte{pt.Plain(pt.UDP(client4, vip4, pt.Pad(1400-28)))}},
		{name: "dr: IPv6 is the sender's to cut", r: dr(rs6), mtu: 1400, parts: 1,
			in: [][]byte{pt.Plain(pt.UDP(client6, vip6, pt.Pad(1472)))}},
		{name: "dr: fragments are cut again", r: dr(rs4), mtu: 1000, parts: 4, head: 20, limit: 1000,
			in: plain(pt.Fragments(pt.UDP(client4, vip4, pt.Pad(2900)), 1480)), want: pt.UDP(client4, vip4, pt.Pad(2900))},
		{name: "nat: the checksum is that of the whole", r: natRequest(rs4), mtu: 576, parts: 3, head: 20, limit: 576,
			in: [][]byte{pt.Plain(pt.TCP(client4, vip4, pt.Pad(1400)))}, want: pt.TCP(client4, rs4, pt.Pad(1400))},
		{name: "tun: IPv4 in IPv6 is cut outside", r: tunnel(packet.IPIP, dip6, rs6, false), mtu: 1400, parts: 2, head: 48, limit: 1400,
			in: [][]byte{pt.Plain(pt.UDP(client4, vip4, pt.Pad(1400), pt.ID(3)))}, want: pt.IP(host(dip6), host(rs6), 4, pt.UDP(client4, vip4, pt.Pad(1400), pt.ID(3)))},
		{name: "only copied options stand in later fragments", r: dr(rs4), mtu: 600, parts: 2, head: 32, limit: 600,
			in: [][]byte{pt.Plain(pt.UDP(client4, vip4, pt.Pad(900), options))}, want: pt.UDP(client4, vip4, pt.Pad(900), options)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out [][]byte
			for _, in := range tt.in {
				out = append(out, cut(t, tt.r, in, tt.mtu)...)
			}
			if len(out) != tt.parts {
				t.Errorf("%d packets leave, want %d", len(out), tt.parts)
			}
			if tt.want == nil {
				return
			}
			if diff := cmp.Diff(pt.Dump(tt.want), pt.Dump(joined(t, out, tt.limit, tt.head))); diff != "" {
				t.Errorf("what arrives (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCutterKeepsOptions(t *testing.T) {
	out := cut(t, dr(rs4), pt.Plain(pt.UDP(client4, vip4, pt.Pad(900), pt.IPOptions(148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0))), 600)
	if got, want := out[1][20:32], []byte{148, 4, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0}; !bytes.Equal(got, want) {
		t.Errorf("options of the second fragment %v, want %v", got, want)
	}
}

func TestCutterWithoutRoom(t *testing.T) {
	p := pt.Parsed(t, pt.UDP(client4, vip4, pt.Pad(100), pt.IPOptions(make([]byte, 40)...)))
	p.FragmentTo(64)
	var c packet.Cutter
	if why := c.Start(p); why != packet.TooBig {
		t.Errorf("fragments of 64 bytes with headers of 60: %v", why)
	}
	if c.Next(new(packet.Packet)) {
		t.Error("a fragment all the same")
	}
}

func plain(packets [][]byte) (out [][]byte) {
	for _, p := range packets {
		out = append(out, pt.Plain(p))
	}
	return out
}
