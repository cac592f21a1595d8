package packettest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"github.com/uvs-project/uvs/packet"
)

// Dump describes a packet field by field, a line a header, and its bytes, so
// that a difference of two dumps shows what differs.
func Dump(b []byte) string {
	var s strings.Builder
	dump(&s, b, "")
	s.WriteString(hex.Dump(b))
	return s.String()
}

func dump(s *strings.Builder, b []byte, indent string) {
	if len(b) < 20 || b[0]>>4 == 6 && len(b) < 40 || b[0]>>4 != 4 && b[0]>>4 != 6 {
		fmt.Fprintf(s, "%sno IP header in %d bytes\n", indent, len(b))
		return
	}
	l := locate(b)
	src, _ := netip.AddrFromSlice(l.src)
	dst, _ := netip.AddrFromSlice(l.dst)
	if b[0]>>4 == 4 {
		fmt.Fprintf(s, "%sIPv4 %v > %v proto %d len %d ttl %d tos %#02x id %#04x frag %#04x sum %#04x header %d\n", indent, src, dst,
			l.proto, binary.BigEndian.Uint16(b[2:]), b[8], b[1], binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint16(b[10:]), l.off)
	} else {
		w := binary.BigEndian.Uint32(b)
		fmt.Fprintf(s, "%sIPv6 %v > %v proto %d len %d hop limit %d class %#02x label %#05x headers %d\n", indent, src, dst,
			l.proto, binary.BigEndian.Uint16(b[4:]), b[7], w>>20&0xff, w&0xfffff, l.off)
	}
	if !l.first || l.off > len(b) {
		return
	}
	t := b[l.off:]
	indent += "  "
	switch {
	case l.proto == packet.TCP && len(t) >= 20:
		fmt.Fprintf(s, "%sTCP %d > %d seq %d ack %d flags %#02x sum %#04x payload %d\n", indent, binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:]),
			binary.BigEndian.Uint32(t[4:]), binary.BigEndian.Uint32(t[8:]), t[13], binary.BigEndian.Uint16(t[16:]), len(t)-int(t[12]>>4)*4)
	case l.proto == packet.UDP && len(t) >= 8:
		fmt.Fprintf(s, "%sUDP %d > %d len %d sum %#04x\n", indent, binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:]),
			binary.BigEndian.Uint16(t[4:]), binary.BigEndian.Uint16(t[6:]))
	case l.proto == packet.SCTP && len(t) >= 12:
		fmt.Fprintf(s, "%sSCTP %d > %d crc %#08x\n", indent, binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:]), binary.LittleEndian.Uint32(t[8:]))
	case (l.proto == packet.ICMPv4 || l.proto == packet.ICMPv6) && len(t) >= 8:
		fmt.Fprintf(s, "%sICMP %d/%d sum %#04x word %#08x\n", indent, t[0], t[1], binary.BigEndian.Uint16(t[2:]), binary.BigEndian.Uint32(t[4:]))
		if len(t) >= 28 {
			dump(s, t[8:], indent+"  ")
		}
	case l.proto == 4 || l.proto == 41:
		dump(s, t, indent)
	}
}
