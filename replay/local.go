package replay

import (
	"encoding/binary"

	"github.com/uvs-project/uvs/packet"
)

// local is the host's own stack for what is sent to it and not balanced: it
// answers pings, refuses ports and protocols that nobody serves, and has no
// open socket.
func (h *host) local(b []byte) {
	p := readHeader(b)
	if p.frag {
		whole := h.parts.take(b, nil, h.now)
		if whole == nil {
			return
		}
		b = whole.b
		p = readHeader(b)
	}
	if p.six {
		h.local6(b)
		return
	}
	t := b[p.l4:]
	switch p.proto {
	case protoICMP:
		h.localICMP(b, &p, t)
	case protoTCP:
		h.localTCP(b, &p, t)
	case protoUDP, protoUDPLite:
		if n := datagramLen(&p, t); n > 0 {
			h.complain(b[:p.l4+n], portUnreachable, 0)
		}
	case protoIGMP, protoPIM:
	default:
		h.complain(b, protocolUnreachable, 0)
	}
}

// local6 walks the extension headers as their handlers do.
func (h *host) local6(b []byte) {
	proto, at, named := b[6], 40, 6
	p := readHeader(b)
	for {
		t := b[at:]
		p.proto, p.l4 = proto, at
		switch proto {
		case protoHopByHop, protoRouting, protoOptions:
			if len(t) < 8 || len(t) < 8+8*int(t[1]) {
				return
			}
			if proto == protoHopByHop && at != 40 {
				h.complain(b, badField6(1), uint32(named))
				return
			}
			if proto == protoOptions && !h.options6(b, at) {
				return
			}
			if proto == protoRouting && t[3] != 0 {
				h.complain(b, badField, uint32(at+2))
				return
			}
			named = at
			proto, at = t[0], at+8+8*int(t[1])
			continue
		case protoFragment: // atomic
			if len(t) < 8 {
				return
			}
			named = at
			proto, at = t[0], at+8
			continue
		case protoICMPv6:
			h.localICMP(b, &p, t)
		case protoTCP:
			h.localTCP(b, &p, t)
		case protoUDP, protoUDPLite:
			if n := datagramLen(&p, t); n > 0 {
				h.complain(b[:at+n], portUnreachable, 0)
			}
		case protoNone:
		default:
			h.complain(b, protocolUnreachable, uint32(named))
		}
		return
	}
}

func badField6(code uint8) complaint { return complaint{six: [2]uint8{4, code}} }

// options6 looks at the options of the extension header at an offset, and says
// whether the packet goes on (RFC 8200 section 4.2).
func (h *host) options6(b []byte, at int) bool {
	if at+8 > len(b) || at+8+8*int(b[at+1]) > len(b) {
		return false
	}
	end, hop := at+8+8*int(b[at+1]), at == 40 && b[6] == protoHopByHop
	for i := at + 2; i < end; {
		if b[i] == 0 { // Pad1
			i++
			continue
		}
		if i+2 > end || i+2+int(b[i+1]) > end {
			return false
		}
		n := 2 + int(b[i+1])
		switch kind := b[i]; {
		case kind == 5 && hop && n != 4: // router alert
			return false
		case kind == 0xc2 && hop: // jumbo payload, whose length belongs to no shorter packet
			if n != 6 || i&3 != 2 {
				return false
			}
			if binary.BigEndian.Uint32(b[i+2:]) <= 65535 {
				i += 2
			}
			h.complain(b, badField, uint32(i))
			return false
		case kind == 1 || kind == 5: // PadN, router alert
		case kind == 0x04 || kind == 0xc9: // tunnel limit, home address
		case kind>>6 == 1:
			return false
		case kind>>6 >= 2:
			h.complain(b, badOption, uint32(i))
			return false
		}
		i += n
	}
	return true
}

// localICMP answers pings.
func (h *host) localICMP(b []byte, p *header, t []byte) {
	if len(t) < 8 {
		return
	}
	proto, request, reply := uint8(protoICMP), uint8(8), uint8(0)
	if p.six {
		proto, request, reply = protoICMPv6, 128, 129
		if !p.goodSum(t) {
			return
		}
	} else if add(t, 0) != 0xffff {
		return
	}
	back := h.net.lookup(p.src)
	if back.kind != unicast {
		return
	}
	t = append([]byte(nil), t...)
	switch {
	case t[0] == request:
		t[0] = reply
	case !p.six && t[0] == 13 && len(t) >= 20: // timestamp
		t = t[:20]
		t[0], t[1] = 14, 0
		stamp := uint32(h.now.Milliseconds()) % 86400000
		binary.BigEndian.PutUint32(t[12:], stamp)
		binary.BigEndian.PutUint32(t[16:], stamp)
	default:
		return
	}
	var options []byte
	if !p.six {
		options = echoOptions(b[20:p.l4], p.dst, h.now)
	}
	h.send(newPacket(p.dst, p.src, proto, p.class, false, options, sealICMP(p.dst, p.src, t)), sending{})
}

// localTCP answers a segment to a closed port by a reset (RFC 9293 3.10.7.1).
func (h *host) localTCP(b []byte, p *header, t []byte) {
	if len(t) < 20 || int(t[12]>>4)*4 < 20 || int(t[12]>>4)*4 > len(t) || !p.goodSum(t) || t[13]&packet.RST != 0 {
		return
	}
	if h.net.lookup(p.src).kind != unicast {
		return
	}
	r := make([]byte, 20)
	copy(r[0:2], t[2:4])
	copy(r[2:4], t[0:2])
	r[12] = 5 << 4
	if t[13]&packet.ACK != 0 {
		r[13] = packet.RST
		copy(r[4:8], t[8:12])
	} else {
		r[13] = packet.RST | packet.ACK
		n := uint32(len(t) - int(t[12]>>4)*4)
		n += uint32(t[13]&packet.SYN/packet.SYN + t[13]&packet.FIN)
		binary.BigEndian.PutUint32(r[8:], binary.BigEndian.Uint32(t[4:])+n)
	}
	var options []byte
	if !p.six {
		options = echoOptions(b[20:p.l4], p.dst, h.now)
	}
	binary.BigEndian.PutUint16(r[16:], ^uint16(add(r, pseudo(p.dst, p.src, protoTCP, len(r)))))
	h.send(newPacket(p.dst, p.src, protoTCP, p.class&^3, true, options, r), sending{})
}

// datagramLen is how many bytes of t UDP, or UDP-Lite, takes for a datagram; 0:
// it is none.
func datagramLen(p *header, t []byte) int {
	if len(t) < 8 {
		return 0
	}
	n, sum := int(binary.BigEndian.Uint16(t[4:])), binary.BigEndian.Uint16(t[6:])
	covered := n
	switch {
	case p.proto == protoUDPLite: // the field is how much the checksum covers
		if n == 0 {
			covered = len(t)
		}
		n = len(t)
	case n == 0 && p.six:
		n, covered = len(t), len(t)
	}
	switch {
	case covered < 8 || covered > len(t):
		return 0
	case sum == 0 && (p.six || p.proto == protoUDPLite):
		return 0
	case sum != 0 && add(t[:covered], pseudo(p.src, p.dst, p.proto, n)) != 0xffff:
		return 0
	}
	return n
}
