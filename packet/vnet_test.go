package packet_test

import (
	"encoding/binary"
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

func TestVNet(t *testing.T) {
	super4, super6 := pt.Super(pt.TCP(client4, vip4, pt.Pad(5000)), 1448), pt.Super(pt.TCP(client6, vip6, pt.Pad(5000)), 1428)
	field := func(b []byte, off int, v uint16) []byte {
		b = append([]byte(nil), b...)
		binary.NativeEndian.PutUint16(b[off:], v)
		return b
	}
	tests := []struct {
		name       string
		in         []byte
		why        packet.Reason
		segments   int
		segmentLen int
	}{
		{name: "a plain packet", in: pt.Plain(pt.TCP(client4, vip4, pt.Pad(100))), segments: 1, segmentLen: 140},
		{name: "a checksum left to the hardware", in: pt.Partial(pt.UDP(client6, vip6, pt.Pad(100))), segments: 1, segmentLen: 148},
		{name: "an IPv4 TCP super-packet", in: super4, segments: 4, segmentLen: 1488},
		{name: "an IPv6 TCP super-packet", in: super6, segments: 4, segmentLen: 1488},
		{name: "a TCP super-packet with options and ECN", in: with(pt.Super(pt.TCP(client4, vip4, pt.Pad(3000), pt.TCPOptions(make([]byte, 12)), pt.IPOptions(1, 1, 1, 0)), 1000), 1, packet.GSOTCPv4|packet.GSOECN), segments: 3, segmentLen: 1056},
		{name: "an IPv4 UDP super-packet", in: pt.Super(pt.UDP(client4, vip4, pt.Pad(3000)), 1000), segments: 3, segmentLen: 1028},
		{name: "an IPv6 UDP super-packet", in: pt.Super(pt.UDP(client6, vip6, pt.Pad(3001)), 1000), segments: 4, segmentLen: 1048},
		{name: "a super-packet of one segment", in: pt.Super(pt.TCP(client4, vip4, pt.Pad(10)), 1448), segments: 1, segmentLen: 50},
		{name: "a header length that lies is not believed", in: field(super4, 2, 3), segments: 4, segmentLen: 1488},

		{name: "a segment size of zero", in: field(super4, 4, 0), why: packet.BadVNet},
		{name: "an unknown kind of super-packet", in: with(super4, 1, 3), why: packet.BadVNet},
		{name: "a super-packet of the other family", in: with(super4, 1, packet.GSOTCPv6), why: packet.BadVNet},
		{name: "a UDP super-packet that is TCP", in: with(super4, 1, packet.GSOUDP), why: packet.BadVNet},
		{name: "ECN on UDP", in: with(pt.Super(pt.UDP(client4, vip4, pt.Pad(3000)), 1000), 1, packet.GSOUDP|packet.GSOECN), why: packet.BadVNet},
		{name: "a super-packet without a partial checksum", in: with(super4, 0, 0), why: packet.BadVNet},
		{name: "a super-packet whose checksum starts elsewhere", in: field(super4, 6, 40), why: packet.BadVNet},
		{name: "a super-packet whose checksum lies elsewhere", in: field(super4, 8, 6), why: packet.BadVNet},
		{name: "a super-packet with a lying data offset", in: with(super4, 10+20+12, 0x40), why: packet.BadVNet},
		{name: "a super-packet without payload", in: pt.Super(pt.TCP(client4, vip4), 1448), why: packet.BadVNet},
		{name: "a checksum inside the IP header", in: field(pt.Partial(pt.TCP(client4, vip4)), 6, 8), why: packet.BadVNet},
		{name: "a checksum beyond the packet", in: field(pt.Partial(pt.TCP(client4, vip4)), 8, 19), why: packet.BadVNet},
		{name: "a fragment with a partial checksum", in: with(pt.Plain(pt.Fragments(pt.UDP(client4, vip4, pt.Pad(100)), 48)[0]), 0, packet.VNetNeedsCsum), why: packet.BadVNet},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.LoadVNet(tt.in)
			if why := p.Parse(); why != tt.why {
				t.Fatalf("reason %v, want %v", why, tt.why)
			}
			if tt.why != packet.OK {
				return
			}
			if p.Segments() != tt.segments || p.SegmentLen() != tt.segmentLen {
				t.Errorf("%d segments of %d, want %d of %d", p.Segments(), p.SegmentLen(), tt.segments, tt.segmentLen)
			}
			if err := pt.CheckPacket(p); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPutVNet(t *testing.T) {
	super := pt.Super(pt.TCP(client4, vip4, pt.Pad(5000)), 1448)
	p := pt.ParsedVNet(t, super)
	r := natRequest(rs4)
	if why := r.Apply(p); why != packet.OK {
		t.Fatal(why)
	}
	want := pt.Super(pt.TCP(client4, rs4, pt.Pad(5000)), 1448)
	diff(t, pt.VNetBytes(p)[packet.VNetLen:], want[packet.VNetLen:])
	if got := pt.VNetBytes(p)[:packet.VNetLen]; string(got) != string(want[:packet.VNetLen]) {
		t.Errorf("virtio-net header %x, want %x", got, want[:packet.VNetLen])
	}
	link := make([]byte, packet.VNetLen)
	p.PutVNet(link, 14)
	if h, c := binary.NativeEndian.Uint16(link[2:]), binary.NativeEndian.Uint16(link[6:]); h != 54 || c != 34 {
		t.Errorf("behind Ethernet: headers %d, checksum from %d; want 54, 34", h, c)
	}
	plain := pt.ParsedVNet(t, with(pt.Plain(pt.TCP(client4, vip4)), 0, packet.VNetDataValid))
	if got := pt.VNetBytes(plain)[:packet.VNetLen]; string(got) != string(make([]byte, packet.VNetLen)) {
		t.Errorf("of a plain packet: %x, want zeros", got)
	}
}

// A tunnel that passes through leaves the checksum of its inner packet to the
// hardware; it is completed, so that nobody else need know.
func TestPartialChecksumOfInnerPacket(t *testing.T) {
	inner := pt.Partial(pt.TCP("10.9.9.1:5", "10.9.9.2:6", pt.Pad(10)))
	b := pt.Plain(pt.IP(host(client4), host(vip4), 4, inner[packet.VNetLen:]))
	b[0] = packet.VNetNeedsCsum
	binary.NativeEndian.PutUint16(b[6:], 40)
	binary.NativeEndian.PutUint16(b[8:], 16)
	p := pt.ParsedVNet(t, b)
	if p.VNet != (packet.VNet{}) {
		t.Errorf("still %+v", p.VNet)
	}
	diff(t, p.Bytes(), pt.IP(host(client4), host(vip4), 4, pt.TCP("10.9.9.1:5", "10.9.9.2:6", pt.Pad(10))))
}

func TestPartialSCTP(t *testing.T) {
	b := pt.Plain(pt.SCTP(client4, vip4, 1, pt.WrongSum))
	b[0] = packet.VNetNeedsCsum
	binary.NativeEndian.PutUint16(b[6:], 20)
	binary.NativeEndian.PutUint16(b[8:], 8)
	diff(t, pt.ParsedVNet(t, b).Bytes(), pt.SCTP(client4, vip4, 1))
}

func TestTransportChecksumOK(t *testing.T) {
	tests := []struct {
		name string
		in   []byte // behind a virtio-net header
		want bool
	}{
		{"a good TCP segment", pt.Plain(pt.TCP(client4, vip4, pt.Pad(33))), true},
		{"a bad TCP segment", pt.Plain(pt.TCP(client4, vip4, pt.WrongSum)), false},
		{"a bad TCP segment that the kernel vouched for", with(pt.Plain(pt.TCP(client4, vip4, pt.WrongSum)), 0, packet.VNetDataValid), true},
		{"a checksum left to the hardware", pt.Partial(pt.TCP(client4, vip4)), true},
		{"half a TCP header", pt.Plain(pt.Cut(pt.TCP(client4, vip4), 30)), false},
		{"a good IPv6 datagram", pt.Plain(pt.UDP(client6, vip6, pt.Pad(33), pt.HopByHop)), true},
		{"a bad IPv6 datagram", pt.Plain(pt.UDP(client6, vip6, pt.WrongSum)), false},
		{"an IPv4 datagram without a checksum", pt.Plain(pt.UDP(client4, vip4, pt.NoSum)), true},
		{"an IPv6 datagram without a checksum", pt.Plain(pt.UDP(client6, vip6, pt.NoSum)), false},
		{"a good SCTP packet", pt.Plain(pt.SCTP(client4, vip4, 1)), true},
		{"a bad SCTP packet", pt.Plain(pt.SCTP(client4, vip4, 1, pt.WrongSum)), false},
		{"a good echo", pt.Plain(pt.Echo(host(client4), host(vip4))), true},
		{"a bad echo", pt.Plain(pt.Echo(host(client6), host(vip6), pt.WrongSum)), false},
		{"a fragment", pt.Plain(pt.Fragments(pt.UDP(client4, vip4, pt.Pad(100)), 48)[0]), true},
		{"an unknown protocol", pt.Plain(pt.IP(host(client4), host(vip4), 89, nil)), true},
	}
	for _, tt := range tests {
		if got := pt.ParsedVNet(t, tt.in).TransportChecksumOK(); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
