package packettest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/uvs-project/uvs/packet"
)

// located is where the parts of a packet are.
type located struct {
	src, dst []byte
	off      int // of what follows the IP headers
	proto    uint8
	first    bool // the transport header is here
	frag     bool
}

// locate finds the parts of a packet that is long enough for its headers.
func locate(b []byte) located {
	if b[0]>>4 == 4 {
		ff := binary.BigEndian.Uint16(b[6:])
		return located{src: b[12:16], dst: b[16:20], off: int(b[0]&15) * 4, proto: b[9], first: ff&0x1fff == 0, frag: ff&0x3fff != 0}
	}
	l := located{src: b[8:24], dst: b[24:40], off: 40, proto: b[6], first: true}
	for l.off+8 <= len(b) {
		size := 8 + 8*int(b[l.off+1])
		switch l.proto {
		case 0, 43, 60:
		case 51:
			size = 8 + 4*int(b[l.off+1])
		case 44:
			size = 8
			ff := binary.BigEndian.Uint16(b[l.off+2:])
			l.frag = l.frag || ff&^6 != 0
			l.first = ff&^7 == 0
		default:
			return l
		}
		l.proto, l.off = b[l.off], l.off+size
		if !l.first {
			return l
		}
	}
	return l
}

// Check verifies the lengths and, in full, every checksum of a packet: the IP
// header's, the transport's, and those of a packet inside a tunnel. A packet
// embedded in an ICMP error has its IP header verified. The error says what is
// wrong.
func Check(b []byte) error { return check(b, false) }

// CheckPacket is Check for a Packet, whose checksum may be left to the
// hardware.
func CheckPacket(p *packet.Packet) error {
	partial := p.VNet.Flags&packet.VNetNeedsCsum != 0
	if p.VNet.GSOType != packet.GSONone && !partial {
		return errors.New("super-packet without a partial checksum")
	}
	b := p.Bytes()
	if partial {
		l := locate(b)
		field := map[uint8]int{packet.TCP: 16, packet.UDP: 6}[l.proto]
		if int(p.VNet.CsumStart) != l.off || int(p.VNet.CsumOffset) != field {
			return fmt.Errorf("checksum of protocol %d at %d+%d, want %d+%d", l.proto, p.VNet.CsumStart, p.VNet.CsumOffset, l.off, field)
		}
	}
	return check(b, partial)
}

// MustCheck fails the test if Check finds something.
func MustCheck(tb testing.TB, b []byte) {
	tb.Helper()
	if err := Check(b); err != nil {
		tb.Errorf("%v\n%s", err, Dump(b))
	}
}

func check(b []byte, partial bool) error {
	if len(b) < 20 {
		return fmt.Errorf("only %d bytes", len(b))
	}
	switch b[0] >> 4 {
	case 4:
		h := int(b[0]&15) * 4
		if n := int(binary.BigEndian.Uint16(b[2:])); n != len(b) || h < 20 || h > n {
			return fmt.Errorf("IPv4: total length %d, header %d, packet %d", n, h, len(b))
		}
		if add(b[:h], 0) != 0xffff {
			return fmt.Errorf("IPv4: header checksum %#04x is wrong", binary.BigEndian.Uint16(b[10:]))
		}
	case 6:
		if len(b) < 40 || int(binary.BigEndian.Uint16(b[4:])) != len(b)-40 {
			return fmt.Errorf("IPv6: payload length %d, packet %d", binary.BigEndian.Uint16(b[4:]), len(b))
		}
	default:
		return fmt.Errorf("version %d", b[0]>>4)
	}
	l := locate(b)
	if l.frag {
		return nil // a part has no checksum of its own
	}
	if l.off > len(b) {
		return fmt.Errorf("headers of %d bytes in a packet of %d", l.off, len(b))
	}
	return l.checkTransport(b[l.off:], partial)
}

func (l located) checkTransport(t []byte, partial bool) error {
	least := map[uint8]int{packet.TCP: 20, packet.UDP: 8, packet.SCTP: 12, packet.ICMPv4: 8, packet.ICMPv6: 8, 47: 4}
	if len(t) < least[l.proto] {
		return fmt.Errorf("protocol %d: only %d bytes", l.proto, len(t))
	}
	whole := add(t, pseudo(l.src, l.dst, l.proto, len(t)))
	switch l.proto {
	case 4, 41:
		return inTunnel(Check(t))
	case 47:
		return inTunnel(checkGRE(t))
	case packet.SCTP:
		if got, want := binary.LittleEndian.Uint32(t[8:]), crc32c(t); got != want {
			return fmt.Errorf("SCTP: CRC %#08x, want %#08x", got, want)
		}
	case packet.TCP, packet.UDP:
		field := map[uint8]int{packet.TCP: 16, packet.UDP: 6}[l.proto]
		got := binary.BigEndian.Uint16(t[field:])
		if partial {
			if want := pseudo(l.src, l.dst, l.proto, len(t)); got%0xffff != want%0xffff {
				return fmt.Errorf("protocol %d: partial checksum %#04x, want %#04x", l.proto, got, want)
			}
			return nil
		}
		if l.proto == packet.UDP && got == 0 {
			if len(l.src) == 16 {
				return errors.New("UDP over IPv6 without a checksum")
			}
			return nil
		}
		if whole != 0xffff {
			return fmt.Errorf("protocol %d: checksum %#04x is wrong", l.proto, got)
		}
	case packet.ICMPv4, packet.ICMPv6:
		if (l.proto == packet.ICMPv4) != (len(l.src) == 4) {
			return nil
		}
		if whole != 0xffff {
			return fmt.Errorf("ICMP: checksum %#04x is wrong", binary.BigEndian.Uint16(t[2:]))
		}
		e := t[8:]
		if len(l.src) == 4 && (t[0] == 3 || t[0] == 11) && len(e) >= 20 && len(e) >= int(e[0]&15)*4 && add(e[:int(e[0]&15)*4], 0) != 0xffff {
			return errors.New("ICMP: checksum of the embedded header is wrong")
		}
	}
	return nil
}

// CheckTunnelError verifies what b, the ICMP error that e was read from, quotes
// of the packet in the tunnel: the header, which nobody mends who passes it on.
func CheckTunnelError(b []byte, e *packet.TunnelError) error {
	quoted := b[locate(b).off+8:]
	t := quoted[locate(quoted).off:]
	switch {
	case e.Encap.Kind == packet.GUE:
		t = t[12:]
	case e.Encap.Checksum:
		t = t[8:]
	case e.Encap.Kind == packet.GRE:
		t = t[4:]
	}
	if h := int(t[0]&15) * 4; t[0]>>4 == 4 && add(t[:h], 0) != 0xffff {
		return inTunnel(fmt.Errorf("IPv4: header checksum %#04x is wrong", binary.BigEndian.Uint16(t[10:])))
	}
	return nil
}

// CheckGUE is Check for a packet whose UDP payload is a GUE packet.
func CheckGUE(b []byte) error {
	l := locate(b)
	t := b[l.off:]
	if l.proto != packet.UDP || len(t) < 12 {
		return errors.New("no GUE packet")
	}
	noSum := binary.BigEndian.Uint16(t[6:]) == 0 // allowed in tunnels over IPv6 too (RFC 6935)
	if err := Check(b); err != nil && !noSum {
		return err
	}
	if int(binary.BigEndian.Uint16(t[4:])) != len(t) {
		return fmt.Errorf("GUE: UDP length %d, want %d", binary.BigEndian.Uint16(t[4:]), len(t))
	}
	if t[8] != 0 || t[10] != 0 || t[11] != 0 || t[9] != 4 && t[9] != 41 || t[9] == 4 != (t[12]>>4 == 4) {
		return fmt.Errorf("GUE: header %x in front of version %d", t[8:12], t[12]>>4)
	}
	return inTunnel(Check(t[12:]))
}

func checkGRE(t []byte) error {
	proto := binary.BigEndian.Uint16(t[2:])
	n := 4
	if t[0]&0x80 != 0 {
		n = 8
		if len(t) < n || add(t, 0) != 0xffff {
			return errors.New("GRE: checksum is wrong")
		}
	}
	if len(t) <= n || proto == 0x0800 != (t[n]>>4 == 4) || proto == 0x86dd != (t[n]>>4 == 6) {
		return fmt.Errorf("GRE: protocol %#04x does not fit what is inside", proto)
	}
	return Check(t[n:])
}

func inTunnel(err error) error {
	if err != nil {
		return fmt.Errorf("in the tunnel: %w", err)
	}
	return nil
}
