package packet_test

import (
	"bytes"
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

// seeds are packets behind virtio-net headers, one of every shape.
func seeds() [][]byte {
	sent4, sent6 := pt.TCP(vip4, client4, pt.Pad(40)), pt.UDP(vip6, client6, pt.Pad(40), pt.HopByHop)
	s := [][]byte{
		pt.Super(pt.TCP(client4, vip4, pt.Pad(500), pt.TCPOptions(make([]byte, 12))), 100),
		pt.Super(pt.TCP(client6, vip6, pt.Pad(500)), 100),
		pt.Super(pt.UDP(client4, vip4, pt.Pad(500)), 100),
		pt.Super(pt.UDP(client6, vip6, pt.Pad(500)), 100),
		pt.Partial(pt.TCP(client4, vip4, pt.Pad(10))),
		pt.Partial(pt.UDP(client6, vip6, pt.Pad(10))),
	}
	for _, b := range [][]byte{
		pt.TCP(client4, vip4, pt.SYN, pt.IPOptions(1, 131, 7, 4, 1, 2, 3, 4)), pt.TCP(client6, vip6, pt.SYN),
		pt.UDP(client4, vip4, pt.NoSum, pt.Pad(9)), pt.UDP(client6, vip6, pt.NoSum),
		pt.SCTP(client4, vip4, 1), pt.SCTP(client6, vip6, 1),
		pt.Echo(host(client4), host(vip4)), pt.Echo(host(client6), host(vip6)),
		pt.TCP(client6, vip6, pt.HopByHop, pt.Routing(1), pt.Authentication, pt.AtomicFragment, pt.DestinationOptions),
		pt.Error(host(client4), host(vip4), 3, 4, 1400, sent4), pt.Error(host(client4), host(vip4), 11, 0, 32<<16, append(sent4[:80:80], make([]byte, 64)...)),
		pt.Error(host(dip4), host(dip4), 3, 4, 1400, pt.IP(host(dip4), host(rs4), 4, sent4)), pt.Error(host(dip6), host(dip6), 1, 0, 0, pt.IP(host(dip6), host(rs6), 41, sent6)),
		pt.TCP(client4, vip4, pt.SYN, pt.TCPOptions([]byte{1, 2, 4, 5, 0xb4, 4, 2, 0})),
		pt.Error(host(client6), host(vip6), 2, 0, 1280, sent6), pt.Error(host(client6), host(vip6), 1, 4, 0, pt.Fragments(sent6, 48)[0]),
		pt.IP(host(dip4), host(rs4), 4, sent4), pt.IP(host(dip6), host(rs6), 41, sent6, pt.TOS(3)),
		pt.IP(host(dip4), host(rs4), 47, append([]byte{0x80, 0, 0x86, 0xdd, 0, 0, 0, 0}, sent6...)),
		pt.UDP(dip4, "10.0.0.21:6080", pt.Data("\x00\x29\x00\x00"+string(sent6))),
	} {
		s = append(s, pt.Plain(b))
	}
	for _, whole := range [][]byte{pt.UDP(client4, vip4, pt.Pad(99)), pt.UDP(client6, vip6, pt.Pad(99)), pt.TCP(client4, vip4, pt.Pad(99))} {
		for _, part := range pt.Fragments(whole, 48) {
			s = append(s, pt.Plain(part))
		}
	}
	return s
}

// rewrites are the values that modes make, for either family of packet.
func rewrites() []packet.Rewrite {
	all := []packet.Rewrite{
		dr(rs4), dr(rs6),
		natRequest(rs4), natRequest(rs6), natReply(vip4), natReply(vip6),
		fullnat(lip4, rs4), fullnat(lip6, rs6),
	}
	for _, kind := range []packet.EncapKind{packet.IPIP, packet.GUE, packet.GRE} {
		for _, outer := range [][2]string{{dip4, rs4}, {dip6, rs6}} {
			all = append(all, tunnel(kind, outer[0], outer[1], true))
		}
	}
	return all
}

// FuzzPacket does to arbitrary bytes all that can be done to a packet. Nothing
// may panic; every result must parse again, and where the packet that came in
// was right in all its checksums, so must be what goes out. As few mutations
// leave checksums right, they are mended on demand.
func FuzzPacket(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s, true)
		f.Add(s, false)
	}
	all := rewrites()
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if len(b) < packet.VNetLen {
			return
		}
		if mend && b[0]&packet.VNetNeedsCsum == 0 {
			b = append(b[:packet.VNetLen:packet.VNetLen], pt.Mend(b[packet.VNetLen:])...)
		}
		load := func() *packet.Packet { return pt.LoadVNet(b) }
		p := load()
		if p.Parse() != packet.OK {
			return
		}
		right := pt.CheckPacket(p) == nil
		if p.WholeTransport(); p.TCPFlags() != 0 && p.Tuple.Proto != packet.TCP {
			t.Error("TCP flags of something else")
		}
		p.SCTPChunk()
		p.SCTPNextChunk()
		p.TCPNumbers()
		p.DontFragment()
		if p.Segments() < 1 || p.SegmentLen() > p.Len() {
			t.Errorf("%d segments of %d bytes", p.Segments(), p.SegmentLen())
		}
		if right && !p.TransportChecksumOK() {
			t.Error("a right checksum is not")
		}
		for _, r := range all {
			p := load()
			p.Parse()
			if r.Apply(p) == packet.OK {
				examine(t, p, right, r)
			}
		}
		for _, kind := range []packet.ErrorKind{packet.PortUnreachable, packet.PacketTooBig} {
			p := load()
			p.Parse()
			src := addr(vip4)
			if b[packet.VNetLen]>>4 == 6 {
				src = addr(vip6)
			}
			if p.ReplyError(src, kind, 1300) {
				examine(t, p, right, kind)
			}
		}
		p = load()
		p.Parse()
		if p.ReplyReset() {
			examine(t, p, right, "reset")
		}
		p = load()
		p.Parse()
		if p.ReplyAbort() {
			examine(t, p, right, "abort")
		}
		p = load()
		p.Parse()
		p.ClampMSS(1000)
		examine(t, p, right, "clamp")
		p = load()
		p.Parse()
		if e, ok := p.ReadTunnelError(); ok && p.ReplyTunnelError(&e, 1300) {
			examine(t, p, false, "tunnel error") // the embedded packet was not looked at
		}
		p = load()
		p.Parse()
		if kind, why := p.Decapsulate(6080); kind != packet.NoEncap && why == packet.OK {
			p.Parse()
		}
		merge(t, load)
		cutAndAssemble(t, load, int(b[len(b)-1])+80)
	})
}

// cutAndAssemble cuts a packet into fragments of at most size bytes and puts
// them together again.
func cutAndAssemble(t *testing.T, load func() *packet.Packet, size int) {
	t.Helper()
	p := load()
	p.Parse()
	p.FragmentTo(size)
	if p.CutLen() == 0 || p.VNet.GSOType != packet.GSONone || p.Fragment().Is {
		return
	}
	var c packet.Cutter
	if why := c.Start(p); why != packet.OK {
		t.Fatalf("%v: no room in %d bytes", why, size)
	}
	var parts []*packet.Packet
	for {
		part := new(packet.Packet)
		part.Reset(make([]byte, packet.Headroom+size), 0, 0)
		if !c.Next(part) {
			break
		}
		if why := part.Parse(); why != packet.OK || part.Len() > size {
			t.Fatalf("part %d of %d bytes: %v\n%s", len(parts), part.Len(), why, pt.Dump(part.Bytes()))
		}
		parts = append(parts, part)
	}
	whole, why := packet.Assemble(parts)
	if why != packet.OK || !bytes.Equal(whole.Bytes(), p.Bytes()) {
		t.Fatalf("cut to %d bytes and put together: %v\n%s", size, why, pt.Dump(p.Bytes()))
	}
}

// examine verifies p, which came out of what, and what it would be on the wire.
func examine(t *testing.T, p *packet.Packet, right bool, what any) {
	t.Helper()
	out := pt.LoadVNet(pt.VNetBytes(p))
	if why := out.Parse(); why != packet.OK {
		t.Fatalf("%+v: the result does not parse: %v\n%s", what, why, pt.Dump(p.Bytes()))
	}
	if !bytes.Equal(out.Bytes(), p.Bytes()) {
		t.Fatalf("%+v: the result parses to another packet", what)
	}
	if right {
		if err := pt.CheckPacket(p); err != nil {
			t.Fatalf("%+v: %v\n%s", what, err, pt.Dump(p.Bytes()))
		}
	}
	var s packet.Splitter
	if s.Start(p) != packet.OK {
		return
	}
	var part packet.Packet
	part.Reset(make([]byte, packet.Headroom+p.Len()), 0, 0)
	n := 0
	for ; n < 20 && s.Next(&part); n++ {
		if part.Len() > 65535+40 {
			t.Fatalf("%+v: part %d has %d bytes", what, n, part.Len())
		}
		if right {
			if err := pt.Check(part.Bytes()); err != nil {
				t.Fatalf("%+v: part %d: %v\n%s", what, n, err, pt.Dump(part.Bytes()))
			}
		}
	}
	if n != min(20, p.Segments()) {
		t.Fatalf("%+v: %d parts of %d", what, n, p.Segments())
	}
}

// merge splits a packet and puts it together again.
func merge(t *testing.T, load func() *packet.Packet) {
	whole := load()
	whole.Parse()
	var s packet.Splitter
	var c packet.Coalescer
	s.Start(whole)
	for range 20 {
		part := new(packet.Packet)
		part.Reset(make([]byte, packet.Headroom+packet.MaxSize), 0, 0)
		if !s.Next(part) {
			break
		}
		if part.Parse() != packet.OK {
			t.Fatalf("a part does not parse\n%s", pt.Dump(part.Bytes()))
		}
		if c.Add(part) {
			continue
		}
		if q := c.Finish(); q != nil {
			examine(t, q, false, "coalesced")
		}
		c.Start(part)
	}
	if q := c.Finish(); q != nil {
		examine(t, q, false, "coalesced")
	}
}
