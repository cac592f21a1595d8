package packet

// This file is the contract that the other packages build against while the
// bodies are written; its declarations move to their topic's file.

// Fragment describes a packet that is part of a datagram.
type Fragment struct {
	ID     uint32
	Offset uint16 // bytes
	More   bool
	Is     bool // the packet is a fragment (not atomic)
}

type embedded struct{ off, l4 int }

// Reset makes p the packet buf[start:end].
func (p *Packet) Reset(buf []byte, start, end int) { *p = Packet{buf: buf, start: start, end: end} }

// Bytes is the packet, from its IP header on.
func (p *Packet) Bytes() []byte { return p.buf[p.start:p.end] }

// Buffer gives the backing array and where the packet lies in it, so that the
// egress can put link headers into the headroom in place.
func (p *Packet) Buffer() (buf []byte, start, end int) { return p.buf, p.start, p.end }

// Parse reads the headers once and fills Tuple.
func (p *Packet) Parse() Reason { panic("not yet") }

// Len is the length in bytes of the IP packet.
func (p *Packet) Len() int { return p.end - p.start }

// Segments is how many packets on the wire p stands for, 1 for a plain one.
func (p *Packet) Segments() int { panic("not yet") }

// SegmentLen is the length in bytes of the largest packet on the wire that p
// stands for: Len for a plain one.
func (p *Packet) SegmentLen() int { panic("not yet") }

// TCPFlags are the flag bits FIN=1 SYN=2 RST=4 PSH=8 ACK=16 of a TCP packet with a
// whole header; 0 otherwise.
func (p *Packet) TCPFlags() uint8 { panic("not yet") }

// SCTPChunk is the type of the first chunk of an SCTP packet; 255 where there is none.
func (p *Packet) SCTPChunk() uint8 { panic("not yet") }

// Fragment describes the fragment; Is is false for a whole datagram.
func (p *Packet) Fragment() Fragment { return p.frag }

// SetPorts gives a later fragment the ports of its first.
func (p *Packet) SetPorts(src, dst uint16) { p.Tuple.SrcPort, p.Tuple.DstPort = src, dst }

// IsICMPError says whether p is an ICMP error whose Tuple comes from the embedded packet.
func (p *Packet) IsICMPError() bool { panic("not yet") }

// DontFragment says whether a router may not fragment p (always for IPv6).
func (p *Packet) DontFragment() bool { panic("not yet") }

// Apply changes p as r says. p must have been parsed.
func (r *Rewrite) Apply(p *Packet) Reason { panic("not yet") }

// ErrorKind is an ICMP error that uvs itself sends.
type ErrorKind uint8

const (
	PortUnreachable ErrorKind = iota // IPv4 3/3, IPv6 1/4
	HostUnreachable                  // IPv4 3/1, IPv6 1/3
	PacketTooBig                     // IPv4 3/4, IPv6 2/0
	TimeExceeded                     // IPv4 11/0, IPv6 3/0
)

// ReplyError turns p in place into an ICMP error from src to p's sender. mtu
// counts for PacketTooBig only. It says false, and leaves p alone, where RFC
// 1122 3.2.2 or RFC 4443 2.4 forbid an answer. After it p is parsed anew and
// is sent by its destination.
func (p *Packet) ReplyError(src Addr, kind ErrorKind, mtu int) bool { panic("not yet") }

// ReplyReset turns p, a TCP segment, in place into the RST that a closed port
// would answer (RFC 9293 3.10.7.1). It says false where none may be sent.
func (p *Packet) ReplyReset() bool { panic("not yet") }

// PutVNet writes the virtio-net header of p into dst; link is how many bytes of link header stand
// between it and the IP header (0 for TUN, 14 for a packet socket on Ethernet).
func (p *Packet) PutVNet(dst []byte, link int) { panic("not yet") }

// ReadVNet decodes b, a virtio-net header in front of p, into p.VNet.
// It is called between Reset and Parse; Parse checks it against the headers.
func (p *Packet) ReadVNet(b []byte) { panic("not yet") }

// Prepend encapsulates p by its pending Encap; p must not be a super-packet.
func (p *Packet) Prepend() Reason { panic("not yet") }

// A Splitter cuts a super-packet into the packets that it stands for, each
// with complete checksums and, where p.Encap is pending, encapsulated.
type Splitter struct{}

// Start begins with p, which stays untouched until the last Next.
func (s *Splitter) Start(p *Packet) { panic("not yet") }

// Next builds the next packet in dst's buffer (start Headroom) and says
// whether there was one.
func (s *Splitter) Next(dst *Packet) bool { panic("not yet") }

// CompleteChecksum fills in a checksum that was left to the hardware
// (VNetNeedsCsum) and clears the flag.
func (p *Packet) CompleteChecksum() { panic("not yet") }

// TransportChecksumOK verifies the transport checksum in full, unless the
// kernel vouched for it. For packets that go up to the netstack.
func (p *Packet) TransportChecksumOK() bool { panic("not yet") }

// Hash mixes t with a seed of the process; the same for every queue.
func (t *Tuple) Hash(seed uint64) uint64 { panic("not yet") }
