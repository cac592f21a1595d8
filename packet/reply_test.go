package packet_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

func TestReplyError(t *testing.T) {
	seg4, seg6 := pt.TCP(client4, vip4, pt.Pad(100), pt.DF), pt.TCP(client6, vip6, pt.Pad(100))
	long4, long6 := pt.TCP(client4, vip4, pt.Pad(1400), pt.DF), pt.TCP(client6, vip6, pt.Pad(1400))
	c0 := pt.TOS(0xc0)
	tests := []struct {
		name string
		in   []byte // behind a virtio-net header
		kind packet.ErrorKind
		mtu  int
		want []byte // nil: no answer
	}{
		{name: "IPv4 port unreachable", in: pt.Plain(seg4), kind: packet.PortUnreachable, want: pt.Error(host(vip4), host(client4), 3, 3, 0, seg4, c0)},
		{name: "IPv4 host unreachable", in: pt.Plain(seg4), kind: packet.HostUnreachable, want: pt.Error(host(vip4), host(client4), 3, 1, 0, seg4, c0)},
		{name: "IPv4 fragmentation needed, no longer than 576 bytes", in: pt.Plain(long4), kind: packet.PacketTooBig, mtu: 1300, want: pt.Error(host(vip4), host(client4), 3, 4, 1300, long4[:548], c0)},
		{name: "IPv4 time exceeded", in: pt.Plain(seg4), kind: packet.TimeExceeded, want: pt.Error(host(vip4), host(client4), 11, 0, 0, seg4, c0)},
		{name: "IPv6 port unreachable", in: pt.Plain(seg6), kind: packet.PortUnreachable, want: pt.Error(host(vip6), host(client6), 1, 4, 0, seg6)},
		{name: "IPv6 address unreachable", in: pt.Plain(seg6), kind: packet.HostUnreachable, want: pt.Error(host(vip6), host(client6), 1, 3, 0, seg6)},
		{name: "IPv6 packet too big, no longer than 1280 bytes", in: pt.Plain(long6), kind: packet.PacketTooBig, mtu: 1300, want: pt.Error(host(vip6), host(client6), 2, 0, 1300, long6[:1232])},
		{name: "IPv6 time exceeded", in: pt.Plain(seg6), kind: packet.TimeExceeded, want: pt.Error(host(vip6), host(client6), 3, 0, 0, seg6)},
		{name: "IPv4 options are embedded", in: pt.Plain(pt.UDP(client4, vip4, pt.IPOptions(1, 1, 1, 0))), kind: packet.PortUnreachable, want: pt.Error(host(vip4), host(client4), 3, 3, 0, pt.UDP(client4, vip4, pt.IPOptions(1, 1, 1, 0)), c0)},
		{name: "IPv6 extension headers are embedded", in: pt.Plain(pt.UDP(client6, vip6, pt.HopByHop)), kind: packet.PortUnreachable, want: pt.Error(host(vip6), host(client6), 1, 4, 0, pt.UDP(client6, vip6, pt.HopByHop))},
		{name: "a partial checksum is completed", in: pt.Partial(seg4), kind: packet.PortUnreachable, want: pt.Error(host(vip4), host(client4), 3, 3, 0, seg4, c0)},
		{name: "of a super-packet the first segment is embedded", in: pt.Super(pt.TCP(client4, vip4, pt.Pad(1000), pt.Flags(packet.ACK|packet.PSH)), 300), kind: packet.PortUnreachable,
			want: pt.Error(host(vip4), host(client4), 3, 3, 0, pt.TCP(client4, vip4, pt.PadPart(0, 300)), c0)},
		{name: "about a first fragment", in: pt.Plain(pt.Fragments(pt.UDP(client4, vip4, pt.Pad(100)), 64)[0]), kind: packet.PortUnreachable,
			want: pt.Error(host(vip4), host(client4), 3, 3, 0, pt.Fragments(pt.UDP(client4, vip4, pt.Pad(100)), 64)[0], c0)},
		{name: "about an echo request", in: pt.Plain(pt.Echo(host(client6), host(vip6))), kind: packet.TimeExceeded, want: pt.Error(host(vip6), host(client6), 3, 0, 0, pt.Echo(host(client6), host(vip6)))},
		{name: "packet too big answers even a multicast over IPv6", in: pt.Plain(pt.UDP(client6, "[ff0e::1]:9")), kind: packet.PacketTooBig, mtu: 1280, want: pt.Error(host(vip6), host(client6), 2, 0, 1280, pt.UDP(client6, "[ff0e::1]:9"))},

		{name: "not about a later fragment", in: pt.Plain(pt.Fragments(pt.UDP(client4, vip4, pt.Pad(100)), 64)[1])},
		{name: "not about a later IPv6 fragment", in: pt.Plain(pt.Fragments(pt.UDP(client6, vip6, pt.Pad(100)), 64)[1])},
		{name: "not about an ICMP error", in: pt.Plain(pt.Error(host(client4), host(vip4), 3, 3, 0, pt.UDP(vip4, client4)))},
		{name: "not about an ICMP redirect", in: pt.Plain(pt.Error(host(client4), host(vip4), 5, 0, 0, pt.UDP(vip4, client4)))},
		{name: "not about an ICMP parameter problem", in: pt.Plain(pt.Error(host(client4), host(vip4), 12, 0, 0, nil))},
		{name: "not about an ICMPv6 error", in: pt.Plain(pt.Error(host(client6), host(vip6), 1, 0, 0, nil))},
		{name: "not about an ICMPv6 redirect", in: pt.Plain(pt.Error(host(client6), host(vip6), 137, 0, 0, nil))},
		{name: "not to class E", in: pt.Plain(pt.UDP("240.0.0.1:1", vip4))},
		{name: "not to 0/8", in: pt.Plain(pt.UDP("0.0.0.1:1", vip4))},
		{name: "not to the unspecified address", in: pt.Plain(pt.UDP("[::]:1", vip6))},
		{name: "not about a multicast", in: pt.Plain(pt.UDP(client4, "239.0.0.1:1"))},
		{name: "not about a broadcast", in: pt.Plain(pt.UDP(client4, "255.255.255.255:1"))},
		{name: "not about an IPv6 multicast", in: pt.Plain(pt.UDP(client6, "[ff0e::1]:9"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.ParsedVNet(t, tt.in)
			src := addr(vip4)
			if p.Tuple.Family == packet.IPv6 {
				src = addr(vip6)
			}
			before := bytes.Clone(p.Bytes())
			if got := p.ReplyError(src, tt.kind, tt.mtu); got != (tt.want != nil) {
				t.Fatalf("answers: %v", got)
			}
			if tt.want == nil {
				diff(t, p.Bytes(), before)
				return
			}
			if p.Tuple.Family == packet.IPv4 {
				tt.want = withID(tt.want, p.Bytes())
			}
			diff(t, p.Bytes(), tt.want)
			if again := pt.Parsed(t, p.Bytes()); again.Tuple != p.Tuple || p.VNet != (packet.VNet{}) {
				t.Errorf("tuple %+v, VNet %+v", p.Tuple, p.VNet)
			}
			if a, _ := p.Destination(); a != addr(client4) && a != addr(client6) {
				t.Errorf("goes to %v", a)
			}
		})
	}
}

func TestReplyReset(t *testing.T) {
	plain4, plain6 := []pt.Option{pt.DF}, []pt.Option{}
	rst := func(n uint32, o []pt.Option) []pt.Option {
		return append(o[:len(o):len(o)], pt.RST, pt.Seq(n), pt.Window(0))
	}
	rstAck := func(n uint32, o []pt.Option) []pt.Option {
		return append(o[:len(o):len(o)], pt.Flags(packet.RST|packet.ACK), pt.Ack(n), pt.Window(0))
	}
	tests := []struct {
		name string
		in   []byte // behind a virtio-net header
		want []byte // nil: no answer
	}{
		{name: "a SYN is acknowledged", in: pt.Plain(pt.TCP(client4, vip4, pt.SYN, pt.Seq(41))), want: pt.TCP(vip4, client4, rstAck(42, plain4)...)},
		{name: "a SYN with options over IPv6", in: pt.Plain(pt.TCP(client6, vip6, pt.SYN, pt.Seq(0xffffffff), pt.TCPOptions([]byte{2, 4, 5, 0xb4}), pt.HopByHop, pt.TTL(3))), want: pt.TCP(vip6, client6, rstAck(0, plain6)...)},
		{name: "a SYN with IPv4 options", in: pt.Plain(pt.TCP(client4, vip4, pt.SYN, pt.IPOptions(1, 1, 1, 0))), want: pt.TCP(vip4, client4, rstAck(1, plain4)...)},
		{name: "data and FIN count without an ACK", in: pt.Plain(pt.TCP(client4, vip4, pt.Flags(packet.FIN), pt.Pad(10), pt.Seq(100))), want: pt.TCP(vip4, client4, rstAck(111, plain4)...)},
		{name: "an ACK names the sequence number", in: pt.Plain(pt.TCP(client4, vip4, pt.Seq(5), pt.Ack(77), pt.Pad(10))), want: pt.TCP(vip4, client4, rst(77, plain4)...)},
		{name: "a super-packet", in: pt.Super(pt.TCP(client6, vip6, pt.Flags(0), pt.Pad(5000), pt.Seq(1)), 1000), want: pt.TCP(vip6, client6, rstAck(5001, plain6)...)},
		{name: "not to a RST", in: pt.Plain(pt.TCP(client4, vip4, pt.RST))},
		{name: "not to a wrong checksum", in: pt.Plain(pt.TCP(client4, vip4, pt.SYN, pt.WrongSum))},
		{name: "not to half a header", in: pt.Plain(pt.Cut(pt.TCP(client4, vip4, pt.SYN), 30))},
		{name: "not to a lying data offset", in: pt.Plain(with(pt.TCP(client4, vip4, pt.SYN), 32, 0xf0))},
		{name: "not to a fragment", in: pt.Plain(pt.Fragments(pt.TCP(client4, vip4, pt.SYN, pt.Pad(100)), 64)[0])},
		{name: "not to UDP", in: pt.Plain(pt.UDP(client4, vip4, pt.Pad(30)))},
		{name: "not for a multicast", in: pt.Plain(pt.TCP(client4, "239.0.0.1:80", pt.SYN))},
		{name: "not to an ICMP error about TCP", in: pt.Plain(pt.Error(host(client4), host(vip4), 3, 3, 0, pt.TCP(vip4, client4)))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.ParsedVNet(t, tt.in)
			before := bytes.Clone(p.Bytes())
			if got := p.ReplyReset(); got != (tt.want != nil) {
				t.Fatalf("answers: %v", got)
			}
			if tt.want == nil {
				tt.want = before
			}
			diff(t, p.Bytes(), tt.want)
		})
	}
}

func TestReplyAbort(t *testing.T) {
	// abort has the verification tag and the flags of the chunk.
	abort := func(b []byte, tag uint32, flags byte) []byte {
		at := 20
		if b[0]>>4 == 6 {
			at = 40
		}
		binary.BigEndian.PutUint32(b[at+4:], tag)
		b[at+13] = flags
		return pt.Mend(b)
	}
	const initiateTag, verificationTag = 0x00070e15, 0x11223344 // of the test's packets
	tests := []struct {
		name string
		in   []byte
		want []byte // nil: no answer
	}{
		{name: "an INIT, by its own tag", in: pt.SCTP(client4, vip4, 1, pt.Pad(16)), want: abort(pt.SCTP(vip4, client4, 6, pt.DF), initiateTag, 0)},
		{name: "the same over IPv6", in: pt.SCTP(client6, vip6, 1, pt.Pad(16), pt.HopByHop), want: abort(pt.SCTP(vip6, client6, 6), initiateTag, 0)},
		{name: "data, by the tag that it carries", in: pt.SCTP(client4, vip4, 0, pt.Pad(100)), want: abort(pt.SCTP(vip4, client4, 6, pt.DF), verificationTag, 1)},
		{name: "not to an ABORT", in: pt.SCTP(client4, vip4, 6)},
		{name: "not to an INIT without its tag", in: pt.SCTP(client4, vip4, 1, pt.Pad(4))},
		{name: "not to a wrong checksum", in: pt.SCTP(client4, vip4, 1, pt.Pad(16), pt.WrongSum)},
		{name: "not to a packet without a chunk", in: pt.Cut(pt.SCTP(client4, vip4, 1), 32)},
		{name: "not to a fragment", in: pt.Fragments(pt.SCTP(client4, vip4, 0, pt.Pad(100)), 64)[0]},
		{name: "not to TCP", in: pt.TCP(client4, vip4, pt.SYN, pt.Pad(16))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.Parsed(t, tt.in)
			before := bytes.Clone(p.Bytes())
			if got := p.ReplyAbort(); got != (tt.want != nil) {
				t.Fatalf("answers: %v", got)
			}
			if tt.want == nil {
				tt.want = before
			}
			diff(t, p.Bytes(), tt.want)
		})
	}
}
