package replay

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// A host plays the kernel of the director's machine: what Linux does to a
// packet before it comes to uvs and after it leaves it, as far as it can be seen
// from outside. Nothing here balances.
//
//	frame ─► header sanity ─► source filter ─► route ─┬─ to us ──► balance ─┬─► TTL ─► send
//	                                                  │                     └─► local stack
//	                                                  └─ forward ─► TTL, MTU ─► balance ─► send
type host struct {
	net     *network
	balance func(b []byte) handled
	learned func(rip netip.Addr, proto uint8, mtu int) // is told what ICMP says of the way of a tunnel
	forward [2]bool                                    // IPv4 and IPv6 are forwarded
	parts   *assembler
	now     time.Duration
	notHost bool // the frame in work was addressed to more than this host
	out     []Frame

	// The IPv4 packet in work with options, and the header checksum that it came
	// with: Linux records into options without mending it until the packet leaves.
	inWork  *byte
	cameSum [2]byte
}

// handled is what became of a packet in the balancer: a decision for each packet
// whose turn it was, none for a fragment that waits.
type handled struct {
	why   packet.Reason // OK, or why the packet could not be read
	parts []handledPart
}

// A handledPart is one decision of the balancer.
type handledPart struct {
	verdict packet.Verdict
	why     packet.Reason
	b       []byte     // the packet, rewritten or as it came
	next    netip.Addr // the neighbour it goes to; invalid: by its destination
	cut     int        // to leave in fragments of that many bytes; 0: as it is
}

// ours says whether the balancer sends an answer of its own instead of carrying
// the packet on.
func (p *handledPart) ours() bool { return p.verdict == packet.Send && p.why != packet.OK }

const (
	etherIPv4 = "0800"
	etherIPv6 = "86dd"
)

// receive takes a frame with the packet b. The host keeps no reference to b but
// changes it.
func (h *host) receive(b []byte, eth string, toAll bool) {
	h.notHost = toAll
	if len(b) == 0 {
		return
	}
	if eth == "" {
		eth = etherIPv4
		if b[0]>>4 == 6 {
			eth = etherIPv6
		}
	}
	switch eth {
	case etherIPv4:
		h.receive4(b)
	case etherIPv6:
		h.receive6(b)
	}
}

func (h *host) receive4(b []byte) {
	if len(b) < 20 || b[0]>>4 != 4 || b[0]&15 < 5 || len(b) < int(b[0]&15)*4 || add(b[:int(b[0]&15)*4], 0) != 0xffff {
		return
	}
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total > len(b) || total < int(b[0]&15)*4 {
		return
	}
	b = b[:total]
	p := readHeader(b)
	if martian(p.src) || p.dst.IsLoopback() || p.dst.As4()[0] == 0 || p.dst.IsMulticast() || h.net.locals[p.src] {
		return
	}
	way := h.net.lookup(p.dst)
	if p.dst == lastOfAll {
		way.kind = broadcast
	}
	if p.l4 > 20 {
		spec := p.dst
		if way.kind == unicast {
			spec = way.leg.source(p.dst)
		}
		h.inWork, h.cameSum = &b[0], [2]byte(b[10:12])
		switch v, at := fillOptions(b, spec, func(a netip.Addr) bool { return h.net.lookup(a).kind != unicast }, h.now); v {
		case optionsDrop:
			return
		case optionsBad:
			h.complain(b, badOption, uint32(at)<<24)
			return
		}
	}
	switch way.kind {
	case local:
		h.deliver(b, &p)
	case unicast, unreachable, noRoute:
		h.carry(b, &p, way)
	}
}

// martian says whether no packet may come from the address.
func martian(a netip.Addr) bool {
	b := a.As4()
	return a.IsUnspecified() || b[0] == 127 || b[0]>>4 == 14 || a == lastOfAll
}

func (h *host) receive6(b []byte) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return
	}
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return
	}
	b = b[:total]
	p := readHeader(b)
	if p.src.IsMulticast() || p.src.IsLoopback() || p.dst.IsLoopback() || p.dst.IsMulticast() || p.dst.IsUnspecified() {
		return
	}
	if b[6] == protoHopByHop && !h.options6(b, 40) {
		return
	}
	if way := h.net.lookup(p.dst); way.kind == local {
		h.deliver(b, &p)
	} else {
		h.carry(b, &p, way)
	}
}

// deliver takes a packet to an address of the host: the balancer sees it first,
// and what it does not want goes to the local stack.
func (h *host) deliver(b []byte, p *header) {
	if h.notHost {
		return // neither balanced nor answered
	}
	defer h.learn(append([]byte(nil), b...), p) // what is said of it until then comes from what was known
	if p.frag && p.ttl <= 1 {
		if p.fragOff == 0 {
			h.complain(b, timeExceeded, 0)
		}
		return
	}
	mine := append([]byte(nil), b...)
	if p.ttl > 1 {
		setTTL(mine, p.ttl-1)
	}
	r := h.balance(mine)
	for i := range r.parts {
		part := &r.parts[i]
		switch part.verdict {
		case packet.Pass, packet.Return:
			h.local(h.asItCame(b, p, part))
		case packet.Send:
			h.leave(b, p, part)
		}
	}
}

// asItCame is the packet of a decision before its TTL was decremented: b, unless
// the decision is about another fragment, or the whole of several.
func (h *host) asItCame(b []byte, p *header, part *handledPart) []byte {
	if !p.frag {
		return b
	}
	whole := append([]byte(nil), part.b...)
	setTTL(whole, p.ttl)
	return whole
}

// leave takes out what the balancer made of b.
func (h *host) leave(b []byte, p *header, part *handledPart) {
	switch {
	case part.why == packet.NoRealServer || part.why == packet.NoFlow:
		h.unseen(part.b, p.ttl)
	case p.ttl <= 1: // dies before it could be too big
		h.complain(b, timeExceeded, 0)
		return
	}
	s := sending{next: part.next, size: part.cut}
	if !part.ours() {
		s.about = b
	}
	h.send(part.b, s)
}

// unseen gives the packet inside an ICMP error the TTL that it came with: the
// sender is told of the packet as it was before the host decremented it.
func (h *host) unseen(b []byte, ttl uint8) {
	p := readHeader(b)
	at := p.l4 + 8
	if p.proto != protoICMP && p.proto != protoICMPv6 || at+20 > len(b) {
		return
	}
	setTTL(b[at:], ttl)
	sealICMP(p.src, p.dst, b[p.l4:])
}

// carry forwards a packet to another host; the balancer sees it, as it may be
// a reply.
func (h *host) carry(b []byte, p *header, way hop) {
	family := 0
	if p.six {
		family = 1
	}
	switch {
	case h.notHost || !h.forward[family]:
		return
	case way.kind == unreachable:
		h.complain(b, hostUnreachable, 0)
		return
	case way.kind == noRoute:
		h.complain(b, netUnreachable, 0)
		return
	case p.six && p.src.IsUnspecified():
		return
	case p.six && p.src.IsLinkLocalUnicast():
		h.complain(b, beyondScope, 0)
		return
	case p.ttl <= 1:
		h.complain(b, timeExceeded, 0)
		return
	}
	if mtu := h.net.mtu(way, p.dst); len(b) > mtu && p.df {
		h.complain(b, tooBig, uint32(mtu))
		return
	}
	mine := append([]byte(nil), b...)
	setTTL(mine, p.ttl-1)
	r := h.balance(mine)
	for i := range r.parts {
		switch part := &r.parts[i]; part.verdict {
		case packet.Return:
			h.send(part.b, sending{})
		case packet.Pass:
			h.local(h.asItCame(b, p, part))
		case packet.Send:
			if !part.ours() && p.l4 > 20 && !p.six {
				rerecord(part.b, way.leg.source(p.dst))
			}
			h.send(part.b, sending{next: part.next, size: part.cut, about: b})
		}
	}
}

// rerecord replaces the address that fillOptions recorded by the packet's
// source: that of a translated reply is recorded after the translation.
func rerecord(b []byte, was netip.Addr) {
	p := readHeader(b)
	for o := b[20:p.l4]; len(o) > 2 && o[0] != optEnd; {
		if o[0] == optNop {
			o = o[1:]
			continue
		}
		n := int(o[1])
		back := 5 // a record is four bytes in front of the pointer, which counts from one
		if o[0] == optTimestamp {
			back = 9
		}
		if at := int(o[2]) - back; (o[0] == optRecord || o[0] == optTimestamp && o[3]&15 == 1) && at >= 3 && netip.AddrFrom4([4]byte(o[at:at+4])) == was {
			copy(o[at:], b[12:16])
		}
		o = o[n:]
	}
	sumHeader4(b)
}

// sending says how a packet leaves.
type sending struct {
	next  netip.Addr // the neighbour; invalid: by the destination
	about []byte     // the packet that came, for complaints about what cannot leave; nil: none are made
	size  int        // the longest fragment; 0: the MTU decides
}

// send routes b and puts it on its leg, in fragments where it must be.
func (h *host) send(b []byte, s sending) {
	p := readHeader(b)
	to := s.next
	if !to.IsValid() {
		to = p.dst
	}
	way := h.net.lookup(to)
	switch {
	case way.kind != unicast && s.about != nil:
		h.complain(s.about, hostUnreachable, 0)
		return
	case way.kind != unicast:
		return
	}
	size := h.net.mtu(way, to)
	if s.size != 0 {
		size = min(size, s.size)
	}
	switch {
	case len(b) <= size:
		h.emit(b, way)
	case p.df && !p.six && s.about != nil:
		h.complain(s.about, tooBig, uint32(size))
	case p.df && !p.six:
	case p.six:
		for _, f := range fragments6(b, size) {
			h.emit(f, way)
		}
	default:
		for _, f := range fragments4(b, size) {
			h.emit(f, way)
		}
	}
}

func (h *host) emit(b []byte, way hop) {
	h.out = append(h.out, Frame{Leg: way.leg.name, To: way.role(), Pkt: b})
}
