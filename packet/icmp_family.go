package packet

import "encoding/binary"

// translateError carries an ICMP error to the other family (RFC 7915 sections
// 4.2, 4.3, 5.2, 5.3): the outer header, type, code and MTU, and the header of
// the embedded packet, which gets the mirror image of the endpoints.
func (p *Packet) translateError(src, dst *Endpoint) Reason {
	if !p.inner.hasPorts() {
		return CannotTranslate // nor are the packets that it would be about
	}
	if p.transportSum() != 0xffff {
		return BadICMP
	}
	b := p.buf[p.start:p.end]
	in := p.readEmbedded(b)
	was := icmpHead{typ: b[p.l4], code: b[p.l4+1], word: binary.BigEndian.Uint32(b[p.l4+4 : p.l4+8])}
	var (
		now icmpHead
		ok  bool
	)
	if p.family == IPv4 {
		now, ok = was.toICMPv6(in.length + p.inner.l4 - p.inner.off)
	} else {
		now, ok = was.toICMPv4()
	}
	if !ok {
		return BadICMP
	}
	if end := p.inner.off + was.embeddedLen(p.family); end >= p.inner.l4+4 && end < len(b) {
		p.end = p.start + end // what follows are extensions (RFC 4884)
	}
	setPorts(b[p.inner.l4:], dst, src)

	tos, ttl := class(b)
	transport := p.start + p.inner.l4
	if p.family == IPv6 {
		p.family, p.proto, p.l4 = IPv4, ICMPv4, 20
		p.start = transport - 20 - icmpHeaderLen - 20
		b = p.buf[p.start:p.end]
		id, frag := outerFragment4(Fragment{}, len(b), &src.Addr, &dst.Addr)
		putHeader4(b, len(b), tos, ttl, ICMPv4, id, frag, &src.Addr, &dst.Addr)
		id, frag = outerFragment4(in.frag, in.length+20, &dst.Addr, &src.Addr)
		putHeader4(b[28:], in.length+20, in.tos, in.ttl, p.inner.proto, id, frag, &dst.Addr, &src.Addr)
	} else {
		size := 40
		if in.frag.Is {
			size = 48
		}
		p.family, p.proto, p.l4 = IPv6, ICMPv6, 40
		p.start = transport - 40 - icmpHeaderLen - size
		p.end = min(p.end, p.start+maxError6)
		b = p.buf[p.start:p.end]
		putHeader6(b, len(b)-40, tos, ttl, ICMPv6, &src.Addr, &dst.Addr)
		proto := p.inner.proto
		if in.frag.Is {
			putFragment6(b[48+40:], in.frag, proto)
			proto = extFragment
		}
		putHeader6(b[48:], size-40+in.length, in.tos, in.ttl, proto, &dst.Addr, &src.Addr)
	}
	p.inner.off, p.inner.l4 = p.l4+icmpHeaderLen, transport-p.start
	t := b[p.l4:]
	t[0], t[1] = now.typ, now.code
	binary.BigEndian.PutUint32(t[4:8], now.word)
	p.sumICMP()
	return OK
}

// embeddedHeader is what an embedded IP header says beside its addresses.
type embeddedHeader struct {
	tos, ttl uint8
	length   int // of transport header and payload before it was cut, in bytes
	frag     Fragment
}

func (p *Packet) readEmbedded(b []byte) embeddedHeader {
	e := b[p.inner.off:]
	head := p.inner.l4 - p.inner.off
	var h embeddedHeader
	h.tos, h.ttl = class(e)
	if p.family == IPv4 {
		h.length = int(binary.BigEndian.Uint16(e[2:4])) - head
		if binary.BigEndian.Uint16(e[6:8])&moreFragments != 0 {
			h.frag = Fragment{ID: uint32(binary.BigEndian.Uint16(e[4:6])), More: true, Is: true}
		}
	} else {
		h.length = int(binary.BigEndian.Uint16(e[4:6])) + 40 - head
		headers, _ := walk6(e) // Parse has seen that it is good
		h.frag = headers.frag
	}
	h.length = min(max(h.length, 0), 65535-20)
	return h
}

// icmpHead is the header of an ICMP error but for its checksum.
type icmpHead struct {
	typ, code uint8
	word      uint32
}

// embeddedLen is the length in bytes of the embedded packet if the error says
// that extensions follow it (RFC 4884 section 4), 0 otherwise.
func (h icmpHead) embeddedLen(family uint8) int {
	switch {
	case family == IPv4 && (h.typ == 3 || h.typ == 11):
		return int(h.word>>16&0xff) * 4
	case family == IPv6 && (h.typ == 1 || h.typ == 3):
		return int(h.word>>24) * 8
	}
	return 0
}

// toICMPv6 translates an ICMPv4 error about a packet that was n bytes long.
func (h icmpHead) toICMPv6(n int) (icmpHead, bool) {
	const (
		unreachable = 1
		tooBig      = 2
		exceeded    = 3
		parameter   = 4
	)
	switch h.typ {
	case 11:
		return icmpHead{typ: exceeded, code: h.code}, true
	case 3:
		switch h.code {
		case 0, 1, 5, 6, 7, 8, 11, 12: // network or host
			return icmpHead{typ: unreachable, code: 0}, true
		case 2: // protocol: the field Next Header, at 6, is not understood
			return icmpHead{typ: parameter, code: 1, word: 6}, true
		case 3: // port
			return icmpHead{typ: unreachable, code: 4}, true
		case 4:
			mtu := int(h.word & 0xffff)
			if mtu == 0 {
				mtu = plateau(n)
			}
			return icmpHead{typ: tooBig, word: uint32(max(mtu+20, 1280))}, true
		case 9, 10, 13, 15: // prohibited
			return icmpHead{typ: unreachable, code: 1}, true
		}
	}
	return icmpHead{}, false
}

// toICMPv4 translates an ICMPv6 error.
func (h icmpHead) toICMPv4() (icmpHead, bool) {
	const (
		unreachable = 3
		exceeded    = 11
		parameter   = 12
	)
	switch h.typ {
	case 1:
		code, ok := map6to4(h.code)
		return icmpHead{typ: unreachable, code: code}, ok
	case 2:
		return icmpHead{typ: unreachable, code: 4, word: min(max(h.word, 68+20)-20, 65535)}, true
	case 3:
		return icmpHead{typ: exceeded, code: h.code}, true
	case 4:
		switch h.code {
		case 0:
			at, ok := pointer4(h.word)
			return icmpHead{typ: parameter, word: uint32(at) << 24}, ok
		case 1:
			return icmpHead{typ: unreachable, code: 2}, true
		}
	}
	return icmpHead{}, false
}

// map6to4 is the ICMPv4 code of destination unreachable for the ICMPv6 one.
func map6to4(code uint8) (uint8, bool) {
	switch code {
	case 0, 2, 3:
		return 1, true
	case 1:
		return 10, true
	case 4:
		return 3, true
	}
	return 0, false
}

// pointer4 is the place in an IPv4 header of the field at a place in an IPv6
// header (RFC 7915 figure 6).
func pointer4(at uint32) (uint8, bool) {
	switch {
	case at == 0, at == 1: // version, class
		return uint8(at), true
	case at == 4, at == 5: // payload length
		return 2, true
	case at == 6: // next header
		return 9, true
	case at == 7: // hop limit
		return 8, true
	case at >= 8 && at < 24:
		return 12, true
	case at >= 24 && at < 40:
		return 16, true
	}
	return 0, false
}

// plateau guesses the MTU behind an error that does not name it, from the
// length of the packet that was too big (RFC 1191 section 7.1).
func plateau(n int) int {
	for _, mtu := range [...]int{65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296} {
		if mtu < n {
			return mtu
		}
	}
	return 68
}
