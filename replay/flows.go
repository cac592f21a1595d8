package replay

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/uvs-project/uvs/packet"
)

// What a flows step's pick says besides the number of a real server.
const (
	pickNone    = 0
	pickRefused = -1 // a port unreachable went back
	pickReset   = -2 // a reset went back
	pickOther   = -9
)

var tcpFlags = map[rune]uint8{
	'F': packet.FIN, 'S': packet.SYN, 'R': packet.RST, 'P': packet.PSH, 'A': packet.ACK,
	'U': packet.URG, 'E': packet.ECE, 'C': packet.CWR,
}

// build is the packet of one flow of a flows step.
func (f Flow) build(proto, flags string) ([]byte, error) {
	var t []byte
	number := uint8(packet.TCP)
	field := 16
	switch proto {
	case "tcp":
		t = make([]byte, 20)
		binary.BigEndian.PutUint32(t[4:], 1000)
		t[12] = 5 << 4
		for _, c := range flags {
			t[13] |= tcpFlags[c]
		}
		binary.BigEndian.PutUint16(t[14:], 64240)
	case "udp":
		t = append([]byte{0, 0, 0, 0, 0, 12, 0, 0}, "flow"...)
		number, field = packet.UDP, 6
	default:
		return nil, fmt.Errorf("protocol %q of a flows step is not known", proto)
	}
	binary.BigEndian.PutUint16(t[0:], f.Src.Port())
	binary.BigEndian.PutUint16(t[2:], f.Dst.Port())
	sum := ^uint16(add(t, pseudo(f.Src.Addr(), f.Dst.Addr(), number, len(t))))
	if number == packet.UDP && sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(t[field:], sum)
	b := newPacket(f.Src.Addr(), f.Dst.Addr(), number, 0, true, nil, t)
	if f.Src.Addr().Is4() {
		binary.BigEndian.PutUint16(b[4:], 0x1111)
		sumHeader4(b)
	}
	return b, nil
}

// pick reads from the frames that one packet caused where it went.
func pick(out []Frame, cli string) int {
	if len(out) == 0 {
		return pickNone
	}
	if len(out) > 1 {
		return pickOther
	}
	var n int
	if _, err := fmt.Sscanf(out[0].To, "rs%d", &n); err == nil && strings.HasPrefix(out[0].To, "rs") {
		return n
	}
	p := readHeader(out[0].Pkt)
	t := out[0].Pkt[p.l4:]
	switch {
	case out[0].Leg != cli:
	case p.proto == protoICMP && t[0] == 3 && t[1] == 3, p.proto == protoICMPv6 && t[0] == 1 && t[1] == 4:
		return pickRefused
	case p.proto == protoTCP && t[13]&packet.RST != 0:
		return pickReset
	}
	return pickOther
}
