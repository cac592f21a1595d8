package twin

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// An outcome is what must become of a packet.
type outcome struct {
	verdict packet.Verdict
	reason  packet.Reason
	bytes   []byte     // nil: not looked at
	hop     netip.Addr // zero: routed by the destination
}

func unchanged(v packet.Verdict, why packet.Reason, in *pkt) outcome {
	return outcome{verdict: v, reason: why, bytes: in.bytes()}
}

func dropped(why packet.Reason) outcome { return outcome{verdict: packet.Drop, reason: why} }

// forward is what becomes of a packet of f. got is what came out, from which
// what is free is taken: identifications that the director makes up, and the
// source port of GUE.
func (m *model) forward(f *flow, reply bool, in *pkt, q int, got []byte) outcome {
	s := f.server
	mtu := m.mtu[s.addr.Addr()]
	if most := s.service.policy.ClampMSS; in.mss > 0 && in.event() == "syn" && !in.isICMP() {
		if most == lb.ClampAuto && mtu > 0 {
			if most = mtu - s.grows(f.client) - 20 - 20; isV6(f.client.src) {
				most -= 20
			}
		}
		if clamped := *in; most > 0 && int(in.mss) > most {
			clamped.mss = uint16(most)
			in = &clamped
		}
	}
	if !reply && mtu > 0 {
		if o, final := m.fit(s, in, q, mtu-s.grows(in.key()), got); final {
			return o
		}
	}
	return f.carry(reply, in, got)
}

// carry is what the mode makes of a packet of f.
func (f *flow) carry(reply bool, in *pkt, got []byte) outcome {
	s := f.server
	switch s.mode {
	case "dr":
		o := unchanged(packet.Send, packet.OK, in)
		o.hop = s.addr.Addr()
		return o
	case "tun":
		return outcome{verdict: packet.Send, bytes: f.tunnel(in, got)}
	}
	src, dst := in.src, in.dst
	switch {
	case s.mode == "nat" && !reply:
		dst = f.serverEnd()
	case s.mode == "nat":
		src = f.client.dst
	case !reply:
		src, dst = f.local, f.serverEnd()
	default:
		src, dst = f.client.dst, f.client.src
	}
	if in.isICMP() {
		return in.errorBetween(src, dst, got)
	}
	return in.between(src, dst, got)
}

// fit says what becomes of a request that may not fit the path to its real
// server, on which there is room for so many bytes of it; final is false where
// it goes on.
func (m *model) fit(s *server, in *pkt, q int, room int, got []byte) (o outcome, final bool) {
	least := 68
	if isV6(s.addr) {
		least = 1280
	}
	if n := len(in.bytes()); n <= room && room >= 1280 {
		return o, false
	}
	if s.mode == "tun" && room < least {
		return dropped(packet.PathTooSmall), true
	}
	if in.v6() {
		room = max(room, 1280)
	}
	if len(in.bytes()) <= room || !in.v6() && (!in.df || s.tunnel.Fragment) {
		return o, false
	}
	o = m.answer(in, q, tooBig, in.dst.Addr(), room, packet.TooBig, got)
	if o.verdict == packet.Send && s.oneSided() {
		m.count(s, true, len(o.bytes))
	}
	return o, true
}

// grows is how much longer a request becomes.
func (s *server) grows(in key) int {
	switch {
	case s.mode == "tun":
		n := 20
		if isV6(s.addr) {
			n = 40
		}
		switch s.tunnel.Kind {
		case packet.GUE:
			n += 12
		case packet.GRE:
			n += 4
			if s.tunnel.Checksum {
				n += 4
			}
		}
		return n
	case isV6(in.src) && !isV6(s.addr):
		return -20
	case !isV6(in.src) && isV6(s.addr):
		return 20
	}
	return 0
}

// between is p with other ends, in the other family if they are of that.
func (p *pkt) between(src, dst netip.AddrPort, got []byte) outcome {
	out := *p
	out.src, out.dst = src, dst
	first := p.cut > 0 && p.part == 0
	if p.proto == packet.SCTP && first && (src.Port() != p.src.Port() || dst.Port() != p.dst.Port()) {
		return dropped(packet.CannotTranslate) // the sum is over what comes later
	}
	if p.noSum && p.cut == 0 {
		out.noSum = false
	}
	switch {
	case isV6(src) && !p.v6():
		if p.noSum && first {
			return dropped(packet.CannotTranslate)
		}
	case !isV6(src) && p.v6():
		out.df, out.id = false, p.id
		if n := len(p.bytes()) - 20; p.cut == 0 && n > 1260 {
			out.df, out.id = true, 0
		} else if p.cut == 0 {
			out.id = word16(got, 4)
		}
	}
	return outcome{verdict: packet.Send, bytes: out.bytes()}
}

// errorBetween is the ICMP error p with other ends. Addresses and ports are
// p's own where src or dst are: the outer source of an error may be a router.
func (p *pkt) errorBetween(src, dst netip.AddrPort, got []byte) outcome {
	if p.badSum {
		return dropped(packet.BadICMP)
	}
	out := *p
	outer := func(now, was netip.AddrPort) netip.AddrPort {
		if now == was {
			return was
		}
		return netip.AddrPortFrom(now.Addr(), 0)
	}
	out.src, out.dst = outer(src, p.src), outer(dst, p.dst)
	in := p.embedded()
	if dst != p.dst {
		in.src = dst
	}
	if src != p.src {
		in.dst = src
	}
	if isV6(out.src) == p.v6() {
		out.body = in.readdress(p.body)
		return outcome{verdict: packet.Send, bytes: out.bytes()}
	}
	h := head{src: in.src.Addr(), dst: in.dst.Addr(), proto: in.proto, tos: in.tos, ttl: in.ttl}
	transport := append([]byte(nil), p.body[in.head:]...)
	binary.BigEndian.PutUint16(transport[0:], in.src.Port())
	binary.BigEndian.PutUint16(transport[2:], in.dst.Port())
	switch {
	case !p.v6():
		out.proto = packet.ICMPv6
		out.typ, out.code, out.word = toICMPv6(p)
		out.body = h.put(transport)
		binary.BigEndian.PutUint16(out.body[4:], uint16(in.length))
		out.body = out.body[:min(len(out.body), 1280-48)]
	default:
		out.proto = packet.ICMPv4
		out.typ, out.code, out.word = toICMPv4(p)
		if in.length+20 > 1260 {
			h.df = true
		} else {
			h.id = word16(got, 28+4)
		}
		out.body = h.put(transport)
		binary.BigEndian.PutUint16(out.body[2:], uint16(in.length+20))
		binary.BigEndian.PutUint16(out.body[10:], 0)
		binary.BigEndian.PutUint16(out.body[10:], ^sum(out.body[:20], 0))
		out.df, out.id = false, word16(got, 4)
		if 28+len(out.body) > 1260 {
			out.df, out.id = true, 0
		}
	}
	return outcome{verdict: packet.Send, bytes: out.bytes()}
}

// toICMPv6 and toICMPv4 follow RFC 7915 for the errors that are drawn here.
func toICMPv6(p *pkt) (typ, code uint8, word uint32) {
	switch [2]uint8{p.typ, p.code} {
	case [2]uint8{3, 1}:
		return 1, 0, 0
	case [2]uint8{3, 3}:
		return 1, 4, 0
	case [2]uint8{3, 4}:
		return 2, 0, max(p.word+20, 1280)
	case [2]uint8{11, 0}:
		return 3, 0, 0
	}
	panic(fmt.Sprintf("ICMP %d/%d is not drawn", p.typ, p.code))
}

func toICMPv4(p *pkt) (typ, code uint8, word uint32) {
	switch [2]uint8{p.typ, p.code} {
	case [2]uint8{1, 0}:
		return 3, 1, 0
	case [2]uint8{1, 4}:
		return 3, 3, 0
	case [2]uint8{2, 0}:
		return 3, 4, p.word - 20
	case [2]uint8{3, 0}:
		return 11, 0, 0
	}
	panic(fmt.Sprintf("ICMPv6 %d/%d is not drawn", p.typ, p.code))
}

// embedded is what the packet inside an ICMP error says.
type embedded struct {
	src, dst netip.AddrPort
	proto    uint8
	tos, ttl uint8
	head     int // bytes
	length   int // bytes behind the head, as it says itself
}

func (p *pkt) embedded() (e embedded) {
	b := p.body
	var src, dst netip.Addr
	if p.v6() {
		e.head, e.proto, e.ttl = 40, b[6], b[7]
		e.tos = uint8(binary.BigEndian.Uint16(b) >> 4)
		e.length = int(binary.BigEndian.Uint16(b[4:]))
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	} else {
		e.head, e.proto, e.ttl, e.tos = 20, b[9], b[8], b[1]
		e.length = int(binary.BigEndian.Uint16(b[2:])) - 20
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	}
	e.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b[e.head:]))
	e.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[e.head+2:]))
	return e
}

// readdress gives the bytes of the embedded packet e's ends. Its transport
// checksum stays as it was.
func (e *embedded) readdress(b []byte) []byte {
	b = append([]byte(nil), b...)
	if e.head == 40 {
		copy(b[8:], e.src.Addr().AsSlice())
		copy(b[24:], e.dst.Addr().AsSlice())
	} else {
		copy(b[12:], e.src.Addr().AsSlice())
		copy(b[16:], e.dst.Addr().AsSlice())
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], ^sum(b[:20], 0))
	}
	binary.BigEndian.PutUint16(b[e.head:], e.src.Port())
	binary.BigEndian.PutUint16(b[e.head+2:], e.dst.Port())
	return b
}

// tunnel is the packet that carries in to f's real server.
func (f *flow) tunnel(in *pkt, got []byte) []byte {
	t := &f.server.tunnel
	inner := in.bytes()
	proto, ether := uint8(4), uint16(0x0800)
	if in.v6() {
		proto, ether = 41, 0x86dd
	}
	h := head{src: t.Source, dst: f.server.addr.Addr(), proto: proto, tos: in.tos, ttl: in.ttl}
	if h.tos&3 == 3 {
		h.tos = h.tos&^3 | 2 // RFC 6040 in its compatibility mode
	}
	if h.src.Is4() {
		h.df = !in.v6() && in.df && !t.Fragment
		if !h.df {
			h.id = word16(got, 4)
		}
	}
	switch t.Kind {
	case packet.GUE:
		udp := append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, proto, 0, 0}, inner...)
		at := 20
		if h.src.Is6() {
			at = 40
		}
		port := word16(got, at)
		if port < 32768 || port > 60999 {
			return nil
		}
		outer := pkt{
			src: netip.AddrPortFrom(h.src, port), dst: netip.AddrPortFrom(h.dst, 6080), proto: packet.UDP,
		}
		outer.putPorts(udp)
		binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
		if t.Checksum {
			binary.BigEndian.PutUint16(udp[6:], orOnes(^outer.sum(udp)))
		}
		h.proto, inner = packet.UDP, udp
	case packet.GRE:
		gre := []byte{0, 0, byte(ether >> 8), byte(ether)}
		if t.Checksum {
			gre = append(gre, 0, 0, 0, 0)
			gre[0] = 0x80
		}
		gre = append(gre, inner...)
		if t.Checksum {
			binary.BigEndian.PutUint16(gre[4:], ^sum(gre, 0))
		}
		h.proto, inner = 47, gre
	}
	return h.put(inner)
}

// The ICMP errors of the director's own, as type and code of IPv4 and of IPv6.
type answerKind struct{ v4, v6 [2]uint8 }

var (
	portUnreachable = answerKind{v4: [2]uint8{3, 3}, v6: [2]uint8{1, 4}}
	tooBig          = answerKind{v4: [2]uint8{3, 4}, v6: [2]uint8{2, 0}}
)

// answer is an ICMP error to the sender of in.
func (m *model) answer(in *pkt, q int, kind answerKind, from netip.Addr, mtu int, why packet.Reason, got []byte) outcome {
	if !m.errors[q].take(m.now) {
		return dropped(packet.RateLimited)
	}
	if in.later() || in.isICMP() {
		return dropped(why)
	}
	out := pkt{
		src: netip.AddrPortFrom(from, 0), dst: netip.AddrPortFrom(in.src.Addr(), 0), ttl: 64,
		word: uint32(mtu), body: in.bytes(),
	}
	if in.v6() {
		out.proto, out.typ, out.code = packet.ICMPv6, kind.v6[0], kind.v6[1]
		out.body = out.body[:min(len(out.body), 1280-48)]
	} else {
		out.proto, out.typ, out.code = packet.ICMPv4, kind.v4[0], kind.v4[1]
		out.tos, out.id = 0xc0, word16(got, 4)
		out.body = out.body[:min(len(out.body), 576-28)]
	}
	return outcome{verdict: packet.Send, reason: why, bytes: out.bytes()}
}

// reset is what ends a connection that is not there; final is false where it
// cannot be ended so.
func (m *model) reset(in *pkt, q int, why packet.Reason) (o outcome, final bool) {
	if in.proto != packet.TCP && in.proto != packet.SCTP {
		return o, false
	}
	if !m.resets[q].take(m.now) {
		return dropped(packet.RateLimited), true
	}
	b := rst(in)
	if in.proto == packet.SCTP {
		b = abort(in)
	}
	return outcome{verdict: packet.Send, reason: why, bytes: b}, b != nil
}

// up is a packet for the host behind the VIPs.
func (m *model) up(in *pkt, q int, isError bool, why packet.Reason) outcome {
	if !isError && !m.resets[q].take(m.now) {
		return dropped(packet.RateLimited)
	}
	return unchanged(packet.Pass, why, in)
}

// abort is the ABORT that answers an SCTP packet, or nil. Its tag is that of
// the packet, or the one that an INIT asks for.
func abort(in *pkt) []byte {
	const tagIsTheirs = 1
	if in.cut > 0 || in.chunk == 6 {
		return nil
	}
	out := pkt{src: in.dst, dst: in.src, proto: packet.SCTP, ttl: 64, df: true, chunk: 6, chunkFlags: tagIsTheirs, seq: in.seq}
	if in.chunk == 1 {
		if in.size < 16 {
			return nil
		}
		out.chunkFlags, out.seq = 0, binary.BigEndian.Uint32(payload[:])
	}
	return out.bytes()
}

// rst is the RST that answers a TCP segment, or nil.
func rst(in *pkt) []byte {
	if in.cut > 0 || in.flags&packet.RST != 0 {
		return nil
	}
	out := pkt{src: in.dst, dst: in.src, proto: packet.TCP, ttl: 64, df: true, flags: packet.RST | packet.ACK, ack: in.seq + uint32(in.size)}
	if in.flags&packet.SYN != 0 {
		out.ack++
	}
	if in.flags&packet.FIN != 0 {
		out.ack++
	}
	if in.flags&packet.ACK != 0 {
		out.flags, out.seq, out.ack = packet.RST, in.ack, 0
	}
	return out.bytes()
}

// A bucket holds 50 answers and gets one at each millisecond.
type bucket struct {
	spent  int
	filled time.Duration
}

func (b *bucket) take(now time.Duration) bool {
	b.spent = max(0, b.spent-int(now/time.Millisecond-b.filled/time.Millisecond))
	b.filled = now
	if b.spent == 50 {
		return false
	}
	b.spent++
	return true
}

func word16(b []byte, at int) uint16 {
	if len(b) < at+2 {
		return 0
	}
	return binary.BigEndian.Uint16(b[at:])
}

// embeddedEnd is where the packet inside the ICMP error b was going.
func embeddedEnd(b []byte) netip.AddrPort {
	p := pkt{src: netip.AddrPortFrom(netip.IPv4Unspecified(), 0)}
	at := 28
	if b[0]>>4 == 6 {
		p.src, at = netip.AddrPortFrom(netip.IPv6Unspecified(), 0), 48
	}
	p.body = b[at:]
	return p.embedded().dst
}
