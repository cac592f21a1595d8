package packet

import "encoding/binary"

// ErrorKind is an ICMP error that uvs itself sends.
type ErrorKind uint8

const (
	PortUnreachable ErrorKind = iota // IPv4 3/3, IPv6 1/4
	HostUnreachable                  // IPv4 3/1, IPv6 1/3
	PacketTooBig                     // IPv4 3/4, IPv6 2/0
	TimeExceeded                     // IPv4 11/0, IPv6 3/0
)

// errorTypes are the ICMP type and code of each kind, for IPv4 and IPv6.
var errorTypes = [...]struct{ v4, v6 [2]uint8 }{
	PortUnreachable: {v4: [2]uint8{3, 3}, v6: [2]uint8{1, 4}},
	HostUnreachable: {v4: [2]uint8{3, 1}, v6: [2]uint8{1, 3}},
	PacketTooBig:    {v4: [2]uint8{3, 4}, v6: [2]uint8{2, 0}},
	TimeExceeded:    {v4: [2]uint8{11, 0}, v6: [2]uint8{3, 0}},
}

// What a packet of our own looks like, and how long an ICMP error may get in
// bytes: the least packet that every host takes (RFC 1812 4.3.2.3, RFC 4443
// section 2.4 c).
const (
	ownTTL    = 64
	maxError4 = 576
	maxError6 = 1280

	errorClass4 = 0xc0 // precedence internetwork control (RFC 1812 4.3.2.5)
)

// ReplyError turns p in place into an ICMP error from src to p's sender. mtu
// counts for PacketTooBig only. It says false, and leaves p alone, where RFC
// 1122 3.2.2 or RFC 4443 2.4 forbid an answer. After it p is parsed anew and
// is sent by its destination.
//
// The error embeds as much of p as may be; of a super-packet, of its first
// segment.
func (p *Packet) ReplyError(src Addr, kind ErrorKind, mtu int) bool {
	if !p.mayBeAnswered(kind) {
		return false
	}
	if p.VNet.GSOType != GSONone {
		whole := p.Len()
		p.end = p.start + p.SegmentLen()
		p.becomeSegment(0, 0, p.Len() == whole)
	}
	p.CompleteChecksum()
	to := p.Tuple.Src
	typ, proto, head, limit := errorTypes[kind].v4, uint8(ICMPv4), 20, maxError4
	if p.family == IPv6 {
		typ, proto, head, limit = errorTypes[kind].v6, ICMPv6, 40, maxError6
	}
	p.Reset(p.buf, p.start-head-icmpHeaderLen, min(p.end, p.start-head-icmpHeaderLen+limit))
	t := p.putOwnHeader(proto, &src, &to)
	t[0], t[1] = typ[0], typ[1]
	binary.BigEndian.PutUint32(t[4:8], 0)
	if kind == PacketTooBig {
		binary.BigEndian.PutUint32(t[4:8], uint32(mtu))
	}
	p.sumICMP()
	return p.Parse() == OK
}

// mayBeAnswered says whether an ICMP error may be sent about p.
func (p *Packet) mayBeAnswered(kind ErrorKind) bool {
	if p.frag.Offset != 0 {
		return false
	}
	b := p.buf[p.start:p.end]
	if p.family == IPv4 {
		switch src, dst := b[12], b[16]; {
		case src == 0, src == 127, src >= 224: // no single host's
			return false
		case dst >= 224 && dst < 240, binary.BigEndian.Uint32(b[16:20]) == 0xffffffff:
			return false
		}
		return p.proto != ICMPv4 || len(b) > p.l4 && !errorType4(b[p.l4])
	}
	if b[8] == 0xff || Addr(b[8:24]) == (Addr{}) {
		return false
	}
	if b[24] == 0xff && kind != PacketTooBig {
		return false
	}
	const redirect = 137
	return p.proto != ICMPv6 || len(b) > p.l4 && b[p.l4] >= 128 && b[p.l4] != redirect
}

// errorType4 says whether the ICMP type is an error message (RFC 1122 3.2.2).
func errorType4(typ uint8) bool {
	switch typ {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}

// ReplyReset turns p, a TCP segment, in place into the RST that a closed port
// would answer (RFC 9293 3.10.7.1). It says false, and leaves p alone, where
// none may be sent: to a RST, to a fragment, to a segment with a wrong checksum,
// from or to an address that is not a single host's. After it p is parsed anew.
func (p *Packet) ReplyReset() bool {
	b := p.buf[p.start:p.end]
	t := b[p.l4:]
	if p.proto != TCP || p.frag.Is || tcpDataOffset(t) == 0 || t[13]&RST != 0 ||
		!p.mayBeAnswered(PortUnreachable) || !p.TransportChecksumOK() {
		return false
	}
	flags := t[13]
	length := uint32(len(t) - tcpDataOffset(t))
	length += uint32(flags&SYN/SYN + flags&FIN/FIN)
	seq, ack := binary.BigEndian.Uint32(t[4:8]), binary.BigEndian.Uint32(t[8:12])

	tuple := p.Tuple.Reverse()
	if flags&ACK != 0 {
		return p.putReset(p.start, &tuple, RST, ack, 0)
	}
	return p.putReset(p.start, &tuple, RST|ACK, 0, seq+length)
}

// MakeReset makes p, in a buffer of at least Headroom and 60 bytes, the RST by
// which the sender of t ends a connection: seq is what the other end expects
// next, ack what the sender does. It says false where t is of no valid packet.
func (p *Packet) MakeReset(buf []byte, t *Tuple, seq, ack uint32) bool {
	p.Reset(buf, Headroom, Headroom)
	p.family = t.Family
	return p.putReset(Headroom, t, RST|ACK, seq, ack)
}

// putReset makes p the RST with the tuple t that begins at start of its buffer.
func (p *Packet) putReset(start int, tuple *Tuple, flags uint8, seq, ack uint32) bool {
	head := 20
	if p.family == IPv6 {
		head = 40
	}
	p.Reset(p.buf, start, start+head+tcpHeaderLen)
	t := p.putOwnHeader(TCP, &tuple.Src, &tuple.Dst)
	clear(t)
	binary.BigEndian.PutUint16(t[0:2], tuple.SrcPort)
	binary.BigEndian.PutUint16(t[2:4], tuple.DstPort)
	binary.BigEndian.PutUint32(t[4:8], seq)
	binary.BigEndian.PutUint32(t[8:12], ack)
	t[12], t[13] = tcpHeaderLen/4<<4, flags
	binary.BigEndian.PutUint16(t[tcpChecksum:], ^p.transportSum())
	return p.Parse() == OK
}

// ReplyAbort turns p, an SCTP packet, in place into the ABORT that a host
// without such an association would answer (RFC 9260 section 8.4). It says
// false, and leaves p alone, where none may be sent: to an ABORT, to a packet
// without a chunk or with a wrong checksum, to a fragment, from or to an address
// that is not a single host's. After it p is parsed anew.
func (p *Packet) ReplyAbort() bool {
	const (
		chunkInit  = 1
		chunkAbort = 6
		chunkLen   = 4
		initLen    = chunkLen + 16
		reflected  = 1 // the T bit: the verification tag is that of the packet
	)
	t := p.buf[p.start+p.l4 : p.end]
	chunk := p.SCTPChunk()
	if chunk == NoChunk || chunk == chunkAbort || p.frag.Is || !p.mayBeAnswered(PortUnreachable) || !p.TransportChecksumOK() {
		return false
	}
	tag, flags := binary.BigEndian.Uint32(t[4:8]), uint8(reflected)
	if chunk == chunkInit {
		if len(t) < sctpHeaderLen+initLen {
			return false
		}
		tag, flags = binary.BigEndian.Uint32(t[sctpHeaderLen+chunkLen:]), 0
	}
	head := 20
	if p.family == IPv6 {
		head = 40
	}
	tuple := p.Tuple.Reverse()
	p.Reset(p.buf, p.start, p.start+head+sctpHeaderLen+chunkLen)
	t = p.putOwnHeader(SCTP, &tuple.Src, &tuple.Dst)
	clear(t)
	binary.BigEndian.PutUint16(t[0:2], tuple.SrcPort)
	binary.BigEndian.PutUint16(t[2:4], tuple.DstPort)
	binary.BigEndian.PutUint32(t[4:8], tag)
	t[sctpHeaderLen], t[sctpHeaderLen+1] = chunkAbort, flags
	binary.BigEndian.PutUint16(t[sctpHeaderLen+2:], chunkLen)
	fillSCTP(t)
	return p.Parse() == OK
}

// putOwnHeader writes the IP header of a packet that uvs itself sends, which is
// to become p, sets what a checksum needs to know, and gives the bytes of the
// transport.
func (p *Packet) putOwnHeader(proto uint8, src, dst *Addr) []byte {
	b := p.buf[p.start:p.end]
	p.proto = proto
	if p.family == IPv6 {
		p.l4 = 40
		putHeader6(b, len(b)-40, 0, ownTTL, proto, src, dst)
		return b[40:]
	}
	p.l4 = 20
	if proto == ICMPv4 { // may be fragmented
		putHeader4(b, len(b), errorClass4, ownTTL, proto, ident(src, dst), 0, src, dst)
	} else {
		putHeader4(b, len(b), 0, ownTTL, proto, 0, dontFragment, src, dst)
	}
	return b[20:]
}
