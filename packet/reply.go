package packet

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
func (p *Packet) ReplyError(src Addr, kind ErrorKind, mtu int) bool { return false }

// ReplyReset turns p, a TCP segment, in place into the RST that a closed port
// would answer (RFC 9293 3.10.7.1). It says false where none may be sent.
func (p *Packet) ReplyReset() bool { return false }
