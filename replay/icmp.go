package replay

import (
	"encoding/binary"
	"net/netip"
)

// What the host tells the sender of a packet that it cannot carry: type and
// code of ICMP and of ICMPv6.
type complaint struct{ four, six [2]uint8 }

var (
	timeExceeded        = complaint{[2]uint8{11, 0}, [2]uint8{3, 0}}
	fragmentsLate       = complaint{[2]uint8{11, 1}, [2]uint8{3, 1}}
	portUnreachable     = complaint{[2]uint8{3, 3}, [2]uint8{1, 4}}
	hostUnreachable     = complaint{[2]uint8{3, 1}, [2]uint8{1, 3}}
	netUnreachable      = complaint{[2]uint8{3, 0}, [2]uint8{1, 0}}
	protocolUnreachable = complaint{[2]uint8{3, 2}, [2]uint8{4, 1}}
	tooBig              = complaint{[2]uint8{3, 4}, [2]uint8{2, 0}}
	beyondScope         = complaint{six: [2]uint8{1, 2}}
	badOption           = complaint{[2]uint8{12, 0}, [2]uint8{4, 2}}
	badField            = complaint{[2]uint8{12, 0}, [2]uint8{4, 0}}
)

// complain sends an ICMP error about the packet b; word is the second word of
// its header. It keeps to when Linux does (icmp_send, icmp6_send).
func (h *host) complain(b []byte, what complaint, word uint32) {
	p := readHeader(b)
	if h.notHost || p.frag && p.fragOff != 0 || !answerable(b, &p, what) {
		return
	}
	back := h.net.lookup(p.src)
	if back.kind != unicast {
		return
	}
	src := p.dst
	if h.net.lookup(p.dst).kind != local {
		src = back.leg.source(p.src)
	}
	if !src.IsValid() {
		return // the leg has no address to send from
	}
	kind, proto, class, head, most := what.four, uint8(protoICMP), p.class&0x1e|0xc0, 20, 576
	var options []byte
	if p.six {
		kind, proto, class, head, most = what.six, protoICMPv6, 0, 40, 1280
	} else {
		end := p.l4
		if what == badOption {
			end = int(word >> 24) // the one complained about was not understood, nor was any behind it
		}
		options = echoOptions(b[20:end], src, h.now)
	}
	embedded := b[:min(len(b), most-head-8-len(options))]
	t := append([]byte{kind[0], kind[1], 0, 0, 0, 0, 0, 0}, embedded...)
	if h.inWork == &b[0] {
		copy(t[8+10:], h.cameSum[:])
	}
	binary.BigEndian.PutUint32(t[4:], word)
	h.send(newPacket(src, p.src, proto, class, false, options, sealICMP(src, p.src, t)), sending{})
}

// sealICMP computes the checksum of the ICMP or ICMPv6 message t.
func sealICMP(src, dst netip.Addr, t []byte) []byte {
	t[2], t[3] = 0, 0
	var sum uint32
	if src.Is6() {
		sum = pseudo(src, dst, protoICMPv6, len(t))
	}
	binary.BigEndian.PutUint16(t[2:], ^uint16(add(t, sum)))
	return t
}

// answerable says whether an error may be sent about b at all.
func answerable(b []byte, p *header, what complaint) bool {
	if p.six {
		if p.src.IsMulticast() || p.src.IsUnspecified() || p.dst.IsMulticast() && what != tooBig && what != badOption {
			return false
		}
		return p.proto != protoICMPv6 || p.l4 < len(b) && b[p.l4] >= 128 && b[p.l4] != 137
	}
	src := p.src.As4()
	if src[0] == 0 || src[0] == 127 || src[0] >= 224 && src[0] < 240 || p.src == lastOfAll || p.dst.IsMulticast() || p.dst == lastOfAll {
		return false
	}
	if p.proto != protoICMP {
		return true
	}
	if p.l4 >= len(b) {
		return false
	}
	switch b[p.l4] {
	case 3, 4, 5, 11, 12:
		return false
	}
	return true
}

var lastOfAll = netip.AddrFrom4([4]byte{255, 255, 255, 255})
