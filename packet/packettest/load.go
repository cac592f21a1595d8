package packettest

import (
	"testing"

	"github.com/uvs-project/uvs/packet"
)

// Load puts the bytes of a packet into a buffer as a queue does, with headroom
// in front, and does not parse it.
func Load(pkt []byte) *packet.Packet {
	buf := make([]byte, packet.Headroom+len(pkt))
	copy(buf[packet.Headroom:], pkt)
	p := new(packet.Packet)
	p.Reset(buf, packet.Headroom, len(buf))
	return p
}

// LoadVNet is Load for a packet behind a virtio-net header.
func LoadVNet(b []byte) *packet.Packet {
	p := Load(b[packet.VNetLen:])
	p.ReadVNet(b[:packet.VNetLen])
	return p
}

// Parsed loads and parses a packet that must be good.
func Parsed(tb testing.TB, pkt []byte) *packet.Packet {
	tb.Helper()
	p := Load(pkt)
	if why := p.Parse(); why != packet.OK {
		tb.Fatalf("parse: %v\n%s", why, Dump(pkt))
	}
	return p
}

// ParsedVNet is Parsed for a packet behind a virtio-net header.
func ParsedVNet(tb testing.TB, b []byte) *packet.Packet {
	tb.Helper()
	p := LoadVNet(b)
	if why := p.Parse(); why != packet.OK {
		tb.Fatalf("parse: %v\n%s", why, Dump(b[packet.VNetLen:]))
	}
	return p
}

// VNetBytes is p as it is written to a TUN device, behind its virtio-net
// header.
func VNetBytes(p *packet.Packet) []byte {
	b := make([]byte, packet.VNetLen, packet.VNetLen+p.Len())
	p.PutVNet(b, 0)
	return append(b, p.Bytes()...)
}
