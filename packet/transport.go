package packet

import "encoding/binary"

// The flag bits of the TCP header.
const (
	FIN = 0x01
	SYN = 0x02
	RST = 0x04
	PSH = 0x08
	ACK = 0x10
	URG = 0x20
	ECE = 0x40
	CWR = 0x80
)

// NoChunk is what SCTPChunk says of a packet without a chunk.
const NoChunk = 255

const (
	tcpHeaderLen  = 20
	udpHeaderLen  = 8
	sctpHeaderLen = 12

	tcpChecksum  = 16 // offsets of the checksum fields
	udpChecksum  = 6
	sctpChecksum = 8
	icmpChecksum = 2
)

// WholeTransport says whether p has the whole fixed transport header. Parse
// accepts one that is cut short behind the ports, because the packet of a
// known flow is forwarded even so where no port changes; a new flow needs more.
// It is true for a later fragment and for protocols without ports.
func (p *Packet) WholeTransport() bool {
	if p.frag.Offset != 0 {
		return true
	}
	n := p.Len() - p.l4
	switch p.proto {
	case TCP:
		return n >= tcpHeaderLen
	case UDP:
		return n >= udpHeaderLen
	case SCTP:
		return n >= sctpHeaderLen
	}
	return true
}

// UDPPayload is what follows the header of a UDP packet, or of a first fragment
// of one; empty otherwise.
func (p *Packet) UDPPayload() []byte {
	if p.proto != UDP || p.frag.Offset != 0 || p.Len()-p.l4 < udpHeaderLen {
		return nil
	}
	return p.buf[p.start+p.l4+udpHeaderLen : p.end]
}

// TCPFlags are the flag bits FIN, SYN, RST, PSH, ACK, ... of a TCP packet with a
// whole header; 0 otherwise.
func (p *Packet) TCPFlags() uint8 {
	if p.proto != TCP || p.frag.Offset != 0 || p.Len()-p.l4 < tcpHeaderLen {
		return 0
	}
	return p.buf[p.start+p.l4+13]
}

// SCTPChunk is the type of the first chunk of an SCTP packet; NoChunk where
// there is none.
func (p *Packet) SCTPChunk() uint8 {
	if p.proto != SCTP || p.frag.Offset != 0 || p.Len()-p.l4 < sctpHeaderLen+4 {
		return NoChunk
	}
	return p.buf[p.start+p.l4+sctpHeaderLen]
}

// TCPNumbers are the sequence numbers that a TCP segment leads to: next is the
// one behind what it carries, ack the one that its sender expects. ok is false
// for a segment without ACK, for a RST, and for a fragment, which does not say
// how long its segment is.
func (p *Packet) TCPNumbers() (next, ack uint32, ok bool) {
	t := p.buf[p.start+p.l4 : p.end]
	if p.proto != TCP || p.frag.Is || tcpDataOffset(t) == 0 || t[13]&(ACK|RST) != ACK {
		return 0, 0, false
	}
	next = binary.BigEndian.Uint32(t[4:8]) + uint32(len(t)-tcpDataOffset(t)) + uint32(t[13]&SYN/SYN+t[13]&FIN/FIN)
	return next, binary.BigEndian.Uint32(t[8:12]), true
}

// SCTPNextChunk is the type of the second chunk of an SCTP packet; NoChunk where
// there is none.
func (p *Packet) SCTPNextChunk() uint8 {
	if p.SCTPChunk() == NoChunk {
		return NoChunk
	}
	chunks := p.buf[p.start+p.l4+sctpHeaderLen : p.end]
	length := int(binary.BigEndian.Uint16(chunks[2:4]))
	next := (length + 3) &^ 3
	if length < 4 || next+4 > len(chunks) {
		return NoChunk
	}
	return chunks[next]
}

// tcpDataOffset is the length of the TCP header at the start of t, or 0 if
// the header does not fit.
func tcpDataOffset(t []byte) int {
	if len(t) < tcpHeaderLen {
		return 0
	}
	n := int(t[12]>>4) * 4
	if n < tcpHeaderLen || n > len(t) {
		return 0
	}
	return n
}

func setPorts(t []byte, src, dst *Endpoint) {
	if src.Family != 0 {
		binary.BigEndian.PutUint16(t[0:2], src.Port)
	}
	if dst.Family != 0 {
		binary.BigEndian.PutUint16(t[2:4], dst.Port)
	}
}
