package lb_test

import (
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// fuzzed are directors that between them have every mode, tunnel and mix of
// families.
var fuzzed = []director{
	{mode: "dr", realServers: []string{rs4, rs6}},
	{mode: "nat", realServers: []string{mapped4, mapped6}},
	{mode: "nat", realServers: []string{rip4 + ":0", "[" + rip6 + "]:0"}},
	{mode: "fullnat", realServers: []string{mapped4, mapped6}},
	{mode: "tun", realServers: []string{rs4, rs6}},
	{mode: "tun", realServers: []string{rs4, rs6}, tunnel: modes.Tunnel{Kind: packet.GRE, Checksum: true}},
	{mode: "tun", realServers: []string{rs4, rs6}, tunnel: modes.Tunnel{Kind: packet.GUE}},
	{mode: "nat", realServers: []string{mapped4, mapped6}, policy: &everyPolicy},
	{mode: "fullnat", realServers: []string{mapped4}, policy: &everyPolicy},
	{mode: "tun", realServers: []string{rs4}, tunnel: modes.Tunnel{Fragment: true}, policy: &everyPolicy},
	{mode: "tun", realServers: []string{rs6}, tunnel: modes.Tunnel{Fragment: true}, policy: &everyPolicy},
	{mode: "nat", realServers: []string{mapped4, mapped6}, persistence: everyAddress(time.Second)},
	{mode: "nat", realServers: []string{mapped4, mapped6}, persistence: lb.Persistence{Timeout: time.Second, Engine: lb.SIPEngine}},
	{mode: "nat", realServers: []string{rip4 + ":500", "[" + rip6 + "]:500"}, port: 500},
	{onNoServer: lb.AnswerReset},
	{onNoServer: lb.AnswerICMP},
}

// everyPolicy has what makes packets of others, or other packets.
var everyPolicy = lb.Policy{ScheduleICMP: true, AnswerUnknownReplies: true, ClampMSS: lb.ClampAuto, Sloppy: true, SecureTCP: true, ResetExpired: true}

// fuzzSeeds are packets behind virtio-net headers that the directors take
// interest in.
func fuzzSeeds() [][]byte {
	var seeds [][]byte
	for _, end := range [][2]string{{client4, web4}, {client6, web6}, {mapped4, client4}, {mapped6, client6}} {
		seeds = append(seeds,
			packettest.Super(packettest.TCP(end[0], end[1], packettest.Pad(500)), 100),
			packettest.Super(packettest.UDP(end[0], end[1], packettest.Pad(500)), 100),
			packettest.Partial(packettest.TCP(end[0], end[1], packettest.SYN)))
		for _, proto := range protocols {
			seeds = append(seeds,
				packettest.Plain(proto.open(end[0], end[1])),
				packettest.Plain(proto.answer(end[0], end[1])))
		}
		for _, b := range packettest.Fragments(packettest.UDP(end[0], end[1], packettest.Pad(99)), 48) {
			seeds = append(seeds, packettest.Plain(b))
		}
	}
	for _, b := range [][]byte{
		packettest.Echo(cip4, vip4), packettest.Echo(cip6, vip6), packettest.Echo(rip4, lip4),
		packettest.Error("198.51.100.1", vip4, unreachable4, tooBig4, 1300, packettest.UDP(web4, client4, packettest.Pad(20))),
		packettest.Error("10.0.0.1", cip4, unreachable4, port4, 0, packettest.UDP(client4, mapped4)),
		packettest.Error("2001:db8:c::1", vip6, tooBig6, 0, 1300, packettest.TCP(web6, client6)),
		packettest.Error("2001:db8:b::1", cip6, unreachable6, port6, 0, packettest.UDP(client6, mapped6)),
		packettest.Error("10.0.0.1", dip4, 3, 4, 1400, packettest.IP(dip4, rip4, 4, packettest.UDP(client4, web4, packettest.DF, packettest.Data("question")))),
		packettest.Error("2001:db8:b::1", dip6, 2, 0, 1350, packettest.IP(dip6, rip6, 41, packettest.UDP(client6, web6, packettest.Data("question")))),
		packettest.TCP(client4, web4, packettest.SYN, packettest.TCPOptions([]byte{1, 2, 4, 5, 0xb4, 4, 2, 0})),
		packettest.UDP(client4, web4, packettest.Pad(1400)),
		packettest.TCP(client6, web6, packettest.HopByHop, packettest.AtomicFragment, packettest.DestinationOptions),
		packettest.TCP(client4, web4, packettest.IPOptions(1, 131, 7, 4, 1, 2, 3, 4), packettest.SYN),
		packettest.UDP(mapped4, lip4+":5000", packettest.NoSum),
		packettest.IP(cip4, vip4, packet.ESP, make([]byte, 16)), packettest.IP(rip6, cip6, packet.ESP, make([]byte, 16)),
		packettest.Error("198.51.100.1", vip4, unreachable4, tooBig4, 1300, packettest.IP(vip4, cip4, packet.AH, make([]byte, 16))),
		sip(client4, web4, "a"), sip(mapped4, client4, "b"), sip(mapped6, client6, "b"),
		packettest.UDP(client4, web4, packettest.DF, packettest.Pad(1400)),
		packettest.UDP(client6, web6, packettest.Pad(1400)),
	} {
		seeds = append(seeds, packettest.Plain(b))
	}
	return seeds
}

// FuzzHandle gives arbitrary bytes to a director of every mode, twice: to one
// that has flows of the packets above, and once more after the packet opened
// or changed one. Nothing may panic; what is sent must parse, and where the
// checksums that came in were right, so must be those that go out.
func FuzzHandle(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if len(b) < packet.VNetLen {
			return
		}
		if mend && b[0]&packet.VNetNeedsCsum == 0 {
			b = append(b[:packet.VNetLen:packet.VNetLen], packettest.Mend(b[packet.VNetLen:])...)
		}
		if packettest.LoadVNet(b).Parse() != packet.OK {
			return
		}
		for _, d := range fuzzed {
			c := d.config(t)
			balancer := startWith(t, c, lb.Options{Flows: 64})
			mtu := 1400
			if d.policy != nil {
				mtu = 100 // most packets of the seeds are longer
			}
			for _, rs := range c.Services[0].RealServers {
				if mtu < 1400 && rs.Address.Addr().Is6() {
					mtu = 1330
				}
				balancer.SetPathMTU(rs.Address.Addr(), mtu)
			}
			for _, proto := range protocols {
				handle(t, balancer, proto.open(client4, web4), 0)
				handle(t, balancer, proto.open(client6, web6), 0)
			}
			handle(t, balancer, packettest.UDP(cip4+":500", vip4+":500"), 0) // whose ESP goes the same way
			handle(t, balancer, packettest.UDP("["+cip6+"]:500", "["+vip6+"]:500"), 0)
			for i := range 2 {
				batch := []packet.Packet{*packettest.LoadVNet(b)}
				p := &batch[0]
				p.Parse()
				right := packettest.CheckPacket(p) == nil
				if e, ok := p.ReadTunnelError(); ok && packettest.CheckTunnelError(p.Bytes(), &e) != nil {
					right = false
				}
				before := append([]byte(nil), p.Bytes()...)
				if i == 1 {
					balancer.Queue(0).Prepare(batch)
				}
				v, _ := balancer.Queue(0).Handle(p, time.Duration(i)*time.Second)
				switch v {
				case packet.Send:
					examine(t, d.mode, p, right)
				case packet.Pass, packet.Return:
					if string(p.Bytes()) != string(before) {
						t.Fatalf("%s: a packet that goes on unchanged was changed", d.mode)
					}
				}
			}
		}
	})
}

// examine verifies a packet that is sent, as it would be on the wire.
func examine(t *testing.T, mode string, p *packet.Packet, right bool) {
	t.Helper()
	if p.Encap.Kind == packet.NoEncap {
		if why := packettest.LoadVNet(packettest.VNetBytes(p)).Parse(); why != packet.OK {
			t.Fatalf("%s: the result does not parse: %v\n%s", mode, why, packettest.Dump(p.Bytes()))
		}
		if right {
			if err := checkSent(p); err != nil {
				t.Fatalf("%s: %v\n%s", mode, err, packettest.Dump(p.Bytes()))
			}
		}
	}
	if p.VNet.GSOType == packet.GSONone {
		examineFragments(t, mode, p)
		return
	}
	var s packet.Splitter
	if s.Start(p) != packet.OK {
		return
	}
	var part packet.Packet
	part.Reset(make([]byte, packet.Headroom+p.SegmentLen()), 0, 0)
	for n := 0; n < 20 && s.Next(&part); n++ {
		if right {
			if err := checkSent(&part); err != nil {
				t.Fatalf("%s: part %d: %v\n%s", mode, n, err, packettest.Dump(part.Bytes()))
			}
		}
	}
}

// examineFragments cuts p where it is to leave in fragments.
func examineFragments(t *testing.T, mode string, p *packet.Packet) {
	t.Helper()
	size := p.CutLen()
	var c packet.Cutter
	if size == 0 || c.Start(p) != packet.OK {
		return
	}
	var part packet.Packet
	part.Reset(make([]byte, packet.Headroom+size), 0, 0)
	for c.Next(&part) {
		b := append([]byte(nil), part.Bytes()...)
		if why := packettest.LoadVNet(packettest.Plain(b)).Parse(); why != packet.OK || len(b) > size {
			t.Fatalf("%s: a fragment of %d bytes, of at most %d: %v\n%s", mode, len(b), size, why, packettest.Dump(b))
		}
	}
}
