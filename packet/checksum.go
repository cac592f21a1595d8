package packet

import (
	"encoding/binary"
	"hash/crc32"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// Checksums are one's complement sums of 16-bit words (RFC 1071). A change is
// carried as a delta, the sum of the complements of the old words and of the
// new words, which RFC 1624 adds to the complement of the old checksum. Sums
// are collected unfolded in 64 bits: words of 32 bits count as their two
// halves, and some 2^31 of them fit before a carry could be lost.

// fold brings an unfolded sum down to 16 bits.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s&0xffff)
}

// sum is the folded sum of b, on top of an initial one.
func sum(b []byte, initial uint16) uint16 { return checksum.Checksum(b, initial) }

// words is the unfolded sum of the first 8 bytes of b.
func words(b []byte) uint64 {
	w := binary.BigEndian.Uint64(b)
	return w>>32 + w&0xffffffff
}

// delta4 is the change of the sum when the IPv4 address from becomes to.
func delta4(from, to []byte) uint64 {
	return uint64(^binary.BigEndian.Uint32(from)) + uint64(binary.BigEndian.Uint32(to))
}

// delta6 is delta4 for IPv6 addresses.
func delta6(from, to []byte) uint64 {
	const complement = 4 * 0xffffffff // of four 32-bit words at once
	return complement - words(from[0:8]) - words(from[8:16]) + words(to[0:8]) + words(to[8:16])
}

// delta2 is the change of the sum when one 16-bit word changes.
func delta2(from, to uint16) uint64 { return uint64(^from) + uint64(to) }

// amend corrects the checksum field at the start of b for a delta of what it
// covers.
func amend(b []byte, delta uint64) {
	old := binary.BigEndian.Uint16(b)
	binary.BigEndian.PutUint16(b, ^fold(uint64(^old)+delta))
}

// goodHeader20 verifies an IPv4 header without options.
func goodHeader20(b []byte) bool {
	return fold(words(b[0:8])+words(b[8:16])+uint64(binary.BigEndian.Uint32(b[16:20]))) == 0xffff
}

// sumHeader4 fills in the checksum of the IPv4 header h.
func sumHeader4(h []byte) {
	binary.BigEndian.PutUint16(h[10:12], 0)
	binary.BigEndian.PutUint16(h[10:12], ^sum(h, 0))
}

// pseudo is the sum of the pseudo-header of p's transport: addresses, protocol
// and length n of the transport header with its payload. As in the kernel's
// IPVS the destination is the IP header's even where a routing header has
// segments left.
func (p *Packet) pseudo(n int) uint16 {
	b := p.buf[p.start:p.end]
	s := uint64(p.proto) + uint64(n)
	if p.family == IPv4 {
		return fold(s + words(b[12:20]))
	}
	return fold(s + words(b[8:16]) + words(b[16:24]) + words(b[24:32]) + words(b[32:40]))
}

// transportSum is the folded sum that the transport checksum of p is the
// complement of, taken over everything including the checksum field.
func (p *Packet) transportSum() uint16 {
	t := p.buf[p.start+p.l4 : p.end]
	if p.proto == ICMPv4 {
		return sum(t, 0)
	}
	return sum(t, p.pseudo(len(t)))
}

// fillUDP computes the checksum of a UDP packet that has none.
func (p *Packet) fillUDP() {
	t := p.buf[p.start+p.l4 : p.end]
	binary.BigEndian.PutUint16(t[udpChecksum:], 0)
	binary.BigEndian.PutUint16(t[udpChecksum:], nonzero(^p.transportSum()))
}

// nonzero replaces a UDP checksum of zero, which would say that there is none.
func nonzero(c uint16) uint16 {
	if c == 0 {
		return 0xffff
	}
	return c
}

// CompleteChecksum fills in a checksum that was left to the hardware
// (VNetNeedsCsum) and clears the flag. p must not be a super-packet.
func (p *Packet) CompleteChecksum() {
	if p.VNet.Flags&VNetNeedsCsum == 0 {
		return
	}
	t := p.buf[p.start+int(p.VNet.CsumStart) : p.end]
	c := ^sum(t, 0)
	if p.VNet.CsumOffset == udpChecksum {
		c = nonzero(c)
	}
	binary.BigEndian.PutUint16(t[p.VNet.CsumOffset:], c)
	p.VNet.Flags &^= VNetNeedsCsum
	p.VNet.CsumStart, p.VNet.CsumOffset = 0, 0
}

// TransportChecksumOK verifies the transport checksum in full, unless the
// kernel vouched for it. For packets that go up to the netstack. It is true
// for a fragment and for protocols without a checksum that we know.
func (p *Packet) TransportChecksumOK() bool {
	if p.VNet.Flags&(VNetNeedsCsum|VNetDataValid) != 0 || p.frag.Is {
		return true
	}
	if !p.WholeTransport() {
		return false
	}
	t := p.buf[p.start+p.l4 : p.end]
	switch p.proto {
	case UDP:
		if binary.BigEndian.Uint16(t[udpChecksum:]) == 0 {
			return p.family == IPv4
		}
	case SCTP:
		return binary.LittleEndian.Uint32(t[sctpChecksum:]) == crc32c(t)
	case TCP:
	case ICMPv4, ICMPv6:
		if (p.proto == ICMPv4) != (p.family == IPv4) {
			return true
		}
	default:
		return true
	}
	return p.transportSum() == 0xffff
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	zeros      [4]byte // in place of the checksum field
)

// crc32c is the checksum of the SCTP packet t (RFC 9260 appendix A), computed
// as if its field were zero.
func crc32c(t []byte) uint32 {
	c := crc32.Update(0, castagnoli, t[:sctpChecksum])
	c = crc32.Update(c, castagnoli, zeros[:])
	return crc32.Update(c, castagnoli, t[sctpHeaderLen:])
}

func fillSCTP(t []byte) { binary.LittleEndian.PutUint32(t[sctpChecksum:], crc32c(t)) }
