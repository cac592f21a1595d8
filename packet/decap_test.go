package packet_test

import (
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

func TestDecapsulateUndoesEncapsulate(t *testing.T) {
	for _, in := range [][]byte{pt.TCP(client4, vip4, pt.Pad(33)), pt.TCP(client6, vip6, pt.Pad(33), pt.HopByHop), pt.Fragments(pt.UDP(client4, vip4, pt.Pad(99)), 64)[1]} {
		for _, outer := range [][2]string{{dip4, rs4}, {dip6, rs6}} {
			for _, kind := range []packet.EncapKind{packet.IPIP, packet.GUE, packet.GRE} {
				for _, withSum := range []bool{false, true} {
					p := pt.Parsed(t, in)
					r := tunnel(kind, outer[0], outer[1], withSum)
					if why := r.Apply(p); why != packet.OK {
						t.Fatal(why)
					}
					p = pt.Parsed(t, p.Bytes())
					if got, why := p.Decapsulate(6080); got != kind || why != packet.OK {
						t.Fatalf("kind %d, checksum %v, outer %s: %v, %v", kind, withSum, outer[0], got, why)
					}
					diff(t, p.Bytes(), in)
					if why := p.Parse(); why != packet.OK {
						t.Error(why)
					}
				}
			}
		}
	}
}

func TestDecapsulatePayload(t *testing.T) {
	for _, in := range [][]byte{pt.TCP(client4, vip4, pt.Pad(33)), pt.TCP(client6, vip6, pt.Pad(33))} {
		for _, kind := range []packet.EncapKind{packet.IPIP, packet.GUE, packet.GRE} {
			p := pt.Parsed(t, in)
			r := tunnel(kind, dip4, rs4, true)
			if why := r.Apply(p); why != packet.OK {
				t.Fatal(why)
			}
			outer, stripped := p.Bytes(), 20
			if kind == packet.GUE {
				stripped += 8
			}
			p = pt.Load(outer[stripped:])
			if why := p.DecapsulatePayload(kind, outer[9], outer[1]); why != packet.OK {
				t.Fatalf("kind %d: %v", kind, why)
			}
			diff(t, p.Bytes(), in)
		}
	}
}

func TestDecapsulate(t *testing.T) {
	inner4, inner6 := pt.TCP(client4, vip4), pt.TCP(client6, vip6)
	ipip := func(inner []byte, opts ...pt.Option) []byte {
		return pt.IP(host(dip4), host(rs4), 4, inner, opts...)
	}
	gre := func(head ...byte) []byte { return pt.IP(host(dip4), host(rs4), 47, append(head, inner4...)) }
	gue := func(inner []byte, head ...byte) []byte {
		return pt.UDP("10.0.0.1:40000", "10.0.0.21:6080", pt.Data(string(head)+string(inner)))
	}
	ecn := func(n uint8) []byte { return pt.TCP(client4, vip4, pt.TOS(0xb8|n)) }
	ecn6 := func(n uint8) []byte { return pt.TCP(client6, vip6, pt.TOS(0xb8|n), pt.FlowLabel(0xfffff)) }
	tests := []struct {
		name string
		in   []byte
		kind packet.EncapKind
		why  packet.Reason
		want []byte
	}{
		{name: "TCP is no tunnel", in: inner4, kind: packet.NoEncap, want: inner4},
		{name: "UDP to another port is no tunnel", in: pt.UDP(dip4, rs4, pt.Pad(50)), kind: packet.NoEncap, want: pt.UDP(dip4, rs4, pt.Pad(50))},
		{name: "GUE version 1 is the bare packet", in: gue(inner6), kind: packet.GUE, want: inner6},
		{name: "GUE with a wrong UDP checksum", in: pt.UDP("10.0.0.1:40000", "10.0.0.21:6080", pt.Data("\x00\x04\x00\x00"+string(inner4)), pt.WrongSum), kind: packet.GUE, why: packet.BadTunnel},
		{name: "a GUE control message", in: gue(inner4, 0x20, 4, 0, 0), kind: packet.GUE, why: packet.BadTunnel},
		{name: "GUE with optional fields", in: gue(inner4, 1, 4, 0, 1, 0, 0, 0, 0), kind: packet.GUE, why: packet.BadTunnel},
		{name: "GUE with something else inside", in: gue(inner4, 0, 17, 0, 0), kind: packet.GUE, why: packet.BadTunnel},
		{name: "GUE that ends too early", in: gue(nil, 0, 4), kind: packet.GUE, why: packet.Truncated},
		{name: "GRE with a wrong checksum", in: gre(0x80, 0, 8, 0, 1, 2, 0, 0), kind: packet.GRE, why: packet.BadTunnel},
		{name: "GRE with a key", in: gre(0x20, 0, 8, 0, 0, 0, 0, 1), kind: packet.GRE, why: packet.BadTunnel},
		{name: "GRE with Ethernet inside", in: gre(0, 0, 0x65, 0x58), kind: packet.GRE, why: packet.BadTunnel},
		{name: "GRE that ends too early", in: pt.IP(host(dip4), host(rs4), 47, []byte{0, 0, 8}), kind: packet.GRE, why: packet.Truncated},
		{name: "GRE that ends in its checksum", in: pt.IP(host(dip4), host(rs4), 47, []byte{0x80, 0, 8, 0}), kind: packet.GRE, why: packet.Truncated},
		{name: "IPv6 where the outer header says IPv4", in: ipip(inner6), kind: packet.IPIP, why: packet.BadTunnel},
		{name: "an inner packet that is too short", in: ipip(inner4[:19]), kind: packet.IPIP, why: packet.Truncated},
		{name: "a fragment must be reassembled first", in: pt.Fragments(ipip(inner4), 24)[0], kind: packet.IPIP, why: packet.CannotTranslate},

		{name: "CE outside marks ECT(0) inside", in: ipip(ecn(2), pt.TOS(3)), kind: packet.IPIP, want: ecn(3)},
		{name: "CE outside marks ECT(1) inside", in: ipip(ecn(1), pt.TOS(3)), kind: packet.IPIP, want: ecn(3)},
		{name: "CE outside and inside", in: ipip(ecn(3), pt.TOS(3)), kind: packet.IPIP, want: ecn(3)},
		{name: "CE outside drops what does not know it", in: ipip(ecn(0), pt.TOS(3)), kind: packet.IPIP, why: packet.BadTunnel},
		{name: "ECT(1) outside makes ECT(0) inside ECT(1)", in: ipip(ecn(2), pt.TOS(1)), kind: packet.IPIP, want: ecn(1)},
		{name: "ECT(1) outside leaves CE inside", in: ipip(ecn(3), pt.TOS(1)), kind: packet.IPIP, want: ecn(3)},
		{name: "ECT(0) outside leaves CE inside", in: ipip(ecn(3), pt.TOS(2)), kind: packet.IPIP, want: ecn(3)},
		{name: "nothing outside leaves ECT(0) inside", in: ipip(ecn(2)), kind: packet.IPIP, want: ecn(2)},
		{name: "CE outside marks IPv6 inside", in: pt.IP(host(dip6), host(rs6), 41, ecn6(2), pt.TOS(3)), kind: packet.IPIP, want: ecn6(3)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.Parsed(t, tt.in)
			kind, why := p.Decapsulate(6080)
			if kind != tt.kind || why != tt.why {
				t.Fatalf("%v, %v; want %v, %v", kind, why, tt.kind, tt.why)
			}
			if tt.want != nil {
				diff(t, p.Bytes(), tt.want)
			}
		})
	}
}
