package twin

import (
	"math/rand/v2"
	"net/netip"

	"github.com/uvs-project/uvs/packet"
)

// A source draws packets: of new clients, of flows that there are or were,
// about them, and of nobody.
type source struct {
	*rand.Rand
	m      *model
	recent [64]*flow // some of the latest
	seen   int
	rest   []*pkt // fragments of a datagram that are still to come
}

// remember is told of flows that were opened.
func (s *source) remember(f *flow) {
	s.recent[s.seen%len(s.recent)] = f
	s.seen++
}

func (s *source) one(in int) bool { return s.IntN(in) == 0 }

// next draws a packet.
func (s *source) next() *pkt {
	if len(s.rest) > 0 && s.one(2) {
		p := s.rest[0]
		s.rest = s.rest[1:]
		return p
	}
	f := s.recent[s.IntN(len(s.recent))]
	switch n := s.IntN(100); {
	case n < 2:
		return s.echo()
	case n < 8 || f == nil:
		return s.stray()
	case n < 35:
		return s.opening()
	case n < 62:
		return s.dress(f.client)
	case n < 90:
		if k, ok := f.replyKey(); ok {
			return s.dress(k)
		}
		if s.one(10) {
			return s.dress(f.client.reverse())
		}
		return s.dress(f.client)
	}
	return s.about(f)
}

// opening is the first packet of a client, or one more.
func (s *source) opening() *pkt {
	k, ok := s.listen()
	if !ok {
		return s.stray()
	}
	k.src = s.client(isV6(k.dst))
	p := s.dress(k)
	p.flags, p.chunk = packet.SYN, 1
	if s.one(10) {
		p.flags |= uint8(s.Uint32()) &^ packet.RST
	}
	return p
}

func (s *source) client(v6 bool) netip.AddrPort {
	return netip.AddrPortFrom(clientAddr(s.IntN(40), v6), uint16(1+s.IntN(20)))
}

// listen is where a service is asked for.
func (s *source) listen() (k key, ok bool) {
	if len(s.m.services) == 0 {
		return k, false
	}
	svc := s.m.services[s.IntN(len(s.m.services))]
	l := svc.listens[s.IntN(len(svc.listens))]
	port := l.FirstPort
	switch {
	case port == 0:
		port = uint16(s.Uint32())
	case l.LastPort > port:
		port += uint16(s.IntN(int(l.LastPort - port + 1)))
	}
	return key{dst: netip.AddrPortFrom(l.VIP, port), proto: l.Proto}, true
}

// stray is a packet that probably nobody waits for.
func (s *source) stray() *pkt {
	k := key{proto: protos[s.IntN(3)]}
	port := []uint16{79, 80, 81, 82, 8000, 8010, 40000}[s.IntN(7)]
	switch s.IntN(5) {
	case 0:
		k.dst = netip.AddrPortFrom(locals[s.IntN(len(locals))].Addr(), uint16(1024+s.IntN(1000)))
	case 1:
		k.dst = netip.AddrPortFrom(clientAddr(s.IntN(40), s.one(2)), port)
	default:
		k.dst = netip.AddrPortFrom(vips[s.IntN(len(vips))], port)
	}
	k.src = s.client(isV6(k.dst))
	if s.one(4) {
		k.src = netip.AddrPortFrom(serverAddr(s.IntN(numServers), isV6(k.dst)), port)
	}
	return s.dress(k)
}

// dress gives a packet with the key everything else.
func (s *source) dress(k key) *pkt {
	p := &pkt{
		src: k.src, dst: k.dst, proto: k.proto,
		tos: uint8(s.Uint32()), ttl: uint8(1 + s.IntN(255)), id: uint16(s.Uint32()), df: s.one(2),
		seq: s.Uint32(), ack: s.Uint32(), win: uint16(s.Uint32()),
		size: s.IntN(60),
	}
	if s.one(20) {
		p.size = 1200 + s.IntN(400)
	}
	p.flags = []uint8{packet.ACK, packet.ACK, packet.ACK | packet.PSH, packet.ACK | packet.FIN, packet.SYN, packet.SYN | packet.ACK, packet.RST, packet.RST | packet.ACK, 0, packet.FIN, packet.URG}[s.IntN(11)]
	p.chunk = []uint8{0, 0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14}[s.IntN(12)]
	if s.one(3) && p.proto == packet.TCP {
		p.mss = uint16(500 + s.IntN(1500))
	}
	p.noSum = p.proto == packet.UDP && !p.v6() && s.one(5)
	if s.one(12) {
		p = s.fragmented(p)
	}
	return p
}

// fragmented is the first fragment of p; the others follow, not always, and not
// always in their order.
func (s *source) fragmented(p *pkt) *pkt {
	p.cut = 24 + 8*s.IntN(40)
	n := p.parts()
	if n < 2 {
		p.cut = 0
		return p
	}
	s.rest = s.rest[:0]
	for _, part := range s.Perm(min(n, 6)) {
		next := *p
		next.part = part
		s.rest = append(s.rest, &next)
	}
	return p
}

func (s *source) echo() *pkt {
	dst := vips[s.IntN(len(vips))]
	switch s.IntN(4) {
	case 0:
		dst = locals[s.IntN(len(locals))].Addr()
	case 1:
		dst = serverAddr(0, s.one(2))
	}
	p := &pkt{dst: netip.AddrPortFrom(dst, 0), ttl: 64, word: s.Uint32(), proto: packet.ICMPv4, typ: 8}
	p.src = netip.AddrPortFrom(clientAddr(s.IntN(40), dst.Is6()), 0)
	if dst.Is6() {
		p.proto, p.typ = packet.ICMPv6, 128
	}
	return p
}

// about is an ICMP error about a packet of f, from the client's side or from
// the real server's.
func (s *source) about(f *flow) *pkt {
	k := f.client.reverse()
	if reply, ok := f.replyKey(); ok && s.one(2) {
		k = reply.reverse()
	}
	of := s.dress(k)
	of.cut, of.part = 0, 0
	body := of.bytes()
	head := 20
	if of.v6() {
		head = 40
	}
	if s.one(2) {
		body = body[:min(len(body), head+8+s.IntN(40))]
	}
	p := &pkt{
		src: netip.AddrPortFrom(k.dst.Addr(), 0), dst: netip.AddrPortFrom(k.src.Addr(), 0),
		tos: uint8(s.Uint32()), ttl: uint8(1 + s.IntN(255)), id: uint16(s.Uint32()), body: body, badSum: s.one(20),
	}
	if s.one(3) { // a router on the way
		p.src = netip.AddrPortFrom(netip.MustParseAddr(map[bool]string{false: "100.64.0.1", true: "2001:db8:9::1"}[of.v6()]), 0)
	}
	p.proto = packet.ICMPv4
	kind := [][2]uint8{{3, 3}, {3, 1}, {3, 4}, {11, 0}}[s.IntN(4)]
	if of.v6() {
		p.proto = packet.ICMPv6
		kind = [][2]uint8{{1, 4}, {1, 0}, {2, 0}, {3, 0}}[s.IntN(4)]
		p.body = p.body[:min(len(p.body), 1280-48)]
	}
	p.typ, p.code = kind[0], kind[1]
	if kind == [2]uint8{3, 4} || kind == [2]uint8{2, 0} {
		p.word = 1280 + uint32(s.IntN(200))
	}
	return p
}
