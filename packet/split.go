package packet

import "encoding/binary"

// A Splitter cuts a super-packet into the packets that it stands for, each
// with complete checksums and, where p.Encap is pending, encapsulated. The
// zero value is ready.
type Splitter struct {
	p    *Packet
	next int // of the segment to build
}

// Start begins with p, which stays untouched until the last Next. A plain
// packet gives one copy of itself. TooBig says that a segment with its outer
// header would be longer than an IP packet can be; then there is nothing to
// split.
func (s *Splitter) Start(p *Packet) Reason {
	s.p, s.next = p, 0
	if p.SegmentLen()+p.Encap.Overhead() > 65535 && p.Encap.Kind != NoEncap {
		s.p = nil
		return TooBig
	}
	return OK
}

// Next builds the next packet in dst's buffer (start Headroom), which must have
// room for one segment, or a plain p, with its outer headers behind the headroom,
// and says whether there was one. dst is as after Parse and Apply; its earlier content is lost.
func (s *Splitter) Next(dst *Packet) bool {
	p := s.p
	if p == nil || s.next >= p.Segments() {
		s.p = nil
		return false
	}
	src := p.buf[p.start:p.end]
	size := len(src)
	if p.VNet.GSOType != GSONone {
		size = p.SegmentLen()
	}
	dst.Reset(dst.buf, Headroom, Headroom+copy(dst.buf[Headroom:], src[:size]))
	dst.Tuple, dst.NextHop, dst.Encap, dst.cut = p.Tuple, p.NextHop, p.Encap, p.cut
	dst.l4, dst.inner, dst.frag = p.l4, p.inner, p.frag
	dst.family, dst.proto, dst.isErr, dst.only6 = p.family, p.proto, p.isErr, p.only6
	dst.VNet = p.VNet
	if p.VNet.GSOType != GSONone {
		head, size := int(p.VNet.HdrLen), int(p.VNet.GSOSize)
		off := s.next * size
		if s.next > 0 {
			dst.end = dst.start + head + copy(dst.buf[dst.start+head:dst.end], src[head+off:])
		}
		dst.becomeSegment(s.next, off, head+off+size >= len(src))
	} else {
		dst.CompleteChecksum()
	}
	s.next++
	if dst.Encap.Kind != NoEncap {
		dst.Prepend() // Start has seen that it fits
	}
	return true
}

// becomeSegment turns p, which is the headers of a super-packet and the payload
// of its segment number i that starts off bytes into the whole, into that
// segment: lengths, IPv4 identification, sequence number, flags and checksums.
func (p *Packet) becomeSegment(i, off int, last bool) {
	b := p.buf[p.start:p.end]
	if p.family == IPv4 {
		binary.BigEndian.PutUint16(b[2:4], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:6], binary.BigEndian.Uint16(b[4:6])+uint16(i))
		sumHeader4(b[:p.headerLen4()])
	} else {
		binary.BigEndian.PutUint16(b[4:6], uint16(len(b)-40))
	}
	p.VNet = VNet{}
	t := b[p.l4:]
	if p.proto == UDP {
		binary.BigEndian.PutUint16(t[4:6], uint16(len(t)))
		p.fillUDP()
		return
	}
	binary.BigEndian.PutUint32(t[4:8], binary.BigEndian.Uint32(t[4:8])+uint32(off))
	if i > 0 {
		t[13] &^= CWR
	}
	if !last {
		t[13] &^= FIN | PSH
	}
	binary.BigEndian.PutUint16(t[tcpChecksum:], 0)
	binary.BigEndian.PutUint16(t[tcpChecksum:], ^p.transportSum())
}

func (p *Packet) headerLen4() int { return int(p.buf[p.start]&0x0f) * 4 }
