package replay

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// describeAll says in words what datagrams are.
func describeAll(all []datagram) string {
	if len(all) == 0 {
		return "nothing\n"
	}
	var b strings.Builder
	for _, d := range all {
		fmt.Fprintf(&b, "%s to %s, %d bytes", d.leg, d.to, len(d.b))
		if d.pieces {
			b.WriteString(", from fragments")
		}
		b.WriteByte('\n')
		describe(&b, d.b, d.mask, "  ")
		for i := 0; i < len(d.b); i += 32 {
			end := min(i+32, len(d.b))
			fmt.Fprintf(&b, "  %4d  %s\n", i, hexMasked(d.b[i:end], d.mask[i:end]))
		}
	}
	return b.String()
}

// hexMasked has dots for volatile bytes.
func hexMasked(b []byte, mask []bool) string {
	s := []byte(hex.EncodeToString(b))
	for i, volatile := range mask {
		if volatile {
			s[2*i], s[2*i+1] = '.', '.'
		}
	}
	return string(s)
}

// Describe says in words what the packet b is, a line for each header.
func Describe(b []byte) string {
	var s strings.Builder
	describe(&s, b, nil, "")
	return s.String()
}

func describe(w *strings.Builder, b []byte, mask []bool, indent string) {
	volatile := func(off int) string {
		if off < len(mask) && mask[off] {
			return "*"
		}
		return ""
	}
	if len(b) < 20 || b[0]>>4 == 6 && len(b) < 40 || b[0]>>4 == 4 && (b[0]&15 < 5 || len(b) < int(b[0]&15)*4) {
		fmt.Fprintf(w, "%sno IP packet\n", indent)
		return
	}
	p := readHeader(b)
	if p.six {
		fmt.Fprintf(w, "%sIPv6 %v > %v next %d hops %d class %02x flow %05x%s payload %d", indent, p.src, p.dst, b[6], p.ttl, p.class,
			binary.BigEndian.Uint32(b)&0xfffff, volatile(2), binary.BigEndian.Uint16(b[4:]))
	} else {
		fmt.Fprintf(w, "%sIPv4 %v > %v proto %d ttl %d tos %02x id %04x%s total %d sum %04x", indent, p.src, p.dst, p.proto, p.ttl, p.class,
			binary.BigEndian.Uint16(b[4:]), volatile(4), binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[10:]))
		if p.df {
			w.WriteString(" DF")
		}
		if p.l4 > 20 {
			fmt.Fprintf(w, " options %x", b[20:p.l4])
		}
	}
	if p.frag {
		fmt.Fprintf(w, " fragment %d more %v", p.fragOff, p.fragMore)
	}
	w.WriteByte('\n')
	t := b[min(p.l4, len(b)):]
	if at := tunnelled(b, &p); at != 0 {
		fmt.Fprintf(w, "%stunnel, protocol %d, %x\n", indent, p.proto, b[p.l4:at])
		var inner []bool
		if mask != nil {
			inner = mask[at:]
		}
		describe(w, b[at:], inner, indent+"  ")
		return
	}
	if p.fragOff != 0 {
		return
	}
	switch {
	case p.proto == protoTCP && len(t) >= 20:
		fmt.Fprintf(w, "%sTCP %d > %d flags %s seq %d ack %d window %d sum %04x, %d bytes\n", indent, port(t), port(t[2:]), flagLetters(t[13]),
			binary.BigEndian.Uint32(t[4:]), binary.BigEndian.Uint32(t[8:]), port(t[14:]), port(t[16:]), len(t)-int(t[12]>>4)*4)
	case p.proto == protoUDP && len(t) >= 8:
		fmt.Fprintf(w, "%sUDP %d > %d length %d sum %04x\n", indent, port(t), port(t[2:]), port(t[4:]), port(t[6:]))
	case p.proto == protoSCTP && len(t) >= 13:
		fmt.Fprintf(w, "%sSCTP %d > %d chunk %d crc %08x\n", indent, port(t), port(t[2:]), t[12], binary.BigEndian.Uint32(t[8:]))
	case (p.proto == protoICMP || p.proto == protoICMPv6) && len(t) >= 8:
		fmt.Fprintf(w, "%sICMP %d/%d %08x sum %04x, %d bytes\n", indent, t[0], t[1], binary.BigEndian.Uint32(t[4:]), port(t[2:]), len(t)-8)
		if embeds(p.six, t[0]) {
			describe(w, t[8:], nil, indent+"  ")
		}
	}
}

func port(b []byte) uint16 { return binary.BigEndian.Uint16(b) }

func embeds(six bool, typ uint8) bool {
	if six {
		return typ < 128
	}
	return typ == 3 || typ == 4 || typ == 5 || typ == 11 || typ == 12
}

func flagLetters(f uint8) string {
	s := ""
	for i, c := range "FSRPAUEC" {
		if f&(1<<i) != 0 {
			s += string(c)
		}
	}
	return s
}

// sideBySide shows two texts by lines: those of both once, the others with the
// side that has them.
func sideBySide(want, got string) string {
	a, b := strings.Split(strings.TrimSuffix(want, "\n"), "\n"), strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	// longest[i][j] is the length of what a[i:] and b[j:] have in common.
	longest := make([][]int, len(a)+1)
	for i := range longest {
		longest[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			if a[i] == b[j] {
				longest[i][j] = longest[i+1][j+1] + 1
			}
		}
	}
	var w strings.Builder
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			fmt.Fprintf(&w, "    %s\n", a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && longest[i+1][j] >= longest[i][j+1]:
			fmt.Fprintf(&w, "  - %s\n", a[i])
			i++
		default:
			fmt.Fprintf(&w, "  + %s\n", b[j])
			j++
		}
	}
	return w.String()
}
