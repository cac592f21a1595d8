package packet_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

func tunnel(kind packet.EncapKind, dip, rip string, sum bool) packet.Rewrite {
	a, f := packet.AddrFrom(netip.MustParseAddrPort(dip).Addr())
	return packet.Rewrite{Encap: packet.Encap{Kind: kind, Src: a, Dst: addr(rip), Family: f, Checksum: sum, Port: 6080}}
}

// withID gives want the IPv4 identification of got: it is a counter with a
// random start.
func withID(want, got []byte) []byte {
	copy(want[4:6], got[4:6])
	return pt.Cut(want, len(want))
}

func TestEncapsulate(t *testing.T) {
	seg4 := pt.TCP(client4, vip4, pt.Pad(100), pt.TTL(63), pt.TOS(0xb8), pt.DF)
	seg6 := pt.TCP(client6, vip6, pt.Pad(100), pt.TTL(63), pt.TOS(0xb8), pt.FlowLabel(0x12345), pt.HopByHop)
	noDF := pt.UDP(client4, vip4, pt.Pad(3), pt.NoSum)
	like := []pt.Option{pt.TTL(63), pt.TOS(0xb8)}
	gre := func(ether uint16, flags byte, rest ...byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{flags, 0}, ether), rest...)
	}
	tests := []struct {
		name string
		in   []byte
		r    packet.Rewrite
		want []byte
	}{
		{name: "IPv4 in IPv4 copies DF, TTL and TOS, without an id", in: seg4, r: tunnel(packet.IPIP, dip4, rs4, false),
			want: pt.IP(host(dip4), host(rs4), 4, seg4, append(like, pt.DF)...)},
		{name: "IPv4 in IPv4 without DF has an id", in: noDF, r: tunnel(packet.IPIP, dip4, rs4, false),
			want: pt.IP(host(dip4), host(rs4), 4, noDF)},
		{name: "IPv6 in IPv4 has no DF", in: seg6, r: tunnel(packet.IPIP, dip4, rs4, false),
			want: pt.IP(host(dip4), host(rs4), 41, seg6, like...)},
		{name: "IPv4 in IPv6", in: seg4, r: tunnel(packet.IPIP, dip6, rs6, false),
			want: pt.IP(host(dip6), host(rs6), 4, seg4, like...)},
		{name: "IPv6 in IPv6 has no flow label", in: seg6, r: tunnel(packet.IPIP, dip6, rs6, false),
			want: pt.IP(host(dip6), host(rs6), 41, seg6, like...)},
		{name: "CE becomes ECT(0) outside", in: pt.TCP(client4, vip4, pt.TOS(0xff), pt.DF), r: tunnel(packet.IPIP, dip4, rs4, false),
			want: pt.IP(host(dip4), host(rs4), 4, pt.TCP(client4, vip4, pt.TOS(0xff), pt.DF), pt.TOS(0xfe), pt.DF)},
		{name: "ECT(1) is copied", in: pt.TCP(client6, vip6, pt.TOS(1)), r: tunnel(packet.IPIP, dip6, rs6, false),
			want: pt.IP(host(dip6), host(rs6), 41, pt.TCP(client6, vip6, pt.TOS(1)), pt.TOS(1))},
		{name: "GRE carries the Ethernet type of IPv4", in: seg4, r: tunnel(packet.GRE, dip4, rs4, false),
			want: pt.IP(host(dip4), host(rs4), 47, append(gre(0x0800, 0), seg4...), append(like, pt.DF)...)},
		{name: "GRE carries the Ethernet type of IPv6", in: seg6, r: tunnel(packet.GRE, dip6, rs6, false),
			want: pt.IP(host(dip6), host(rs6), 47, append(gre(0x86dd, 0), seg6...), like...)},
		{name: "a fragment is encapsulated as it is", in: pt.Fragments(noDF, 8)[1], r: tunnel(packet.IPIP, dip6, rs6, false),
			want: pt.IP(host(dip6), host(rs6), 4, pt.Fragments(noDF, 8)[1])},
		{name: "an ICMP error is encapsulated as it is, wrong checksum and all", in: pt.Error("192.0.2.254", host(vip4), 3, 4, 1400, pt.TCP(vip4, client4), pt.WrongSum, pt.DF), r: tunnel(packet.IPIP, dip4, rs4, false),
			want: pt.IP(host(dip4), host(rs4), 4, pt.Error("192.0.2.254", host(vip4), 3, 4, 1400, pt.TCP(vip4, client4), pt.WrongSum, pt.DF), pt.DF)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.Parsed(t, tt.in)
			if why := tt.r.Apply(p); why != packet.OK {
				t.Fatal(why)
			}
			got := p.Bytes()
			want := append([]byte(nil), tt.want...)
			if got[0]>>4 == 4 && got[6]&0x40 == 0 {
				want = withID(want, got)
			}
			diff(t, got, want)
			if len(got)-len(tt.in) != tt.r.Encap.Overhead() {
				t.Errorf("%d bytes more, Overhead says %d", len(got)-len(tt.in), tt.r.Encap.Overhead())
			}
			if a, f := p.Destination(); a != tt.r.Encap.Dst || f != tt.r.Encap.Family || p.Encap.Kind != packet.NoEncap {
				t.Errorf("goes to %v", a.Netip(f))
			}
		})
	}
}

// Checksums of the outer headers, over everything, in all combinations.
func TestEncapsulateChecksums(t *testing.T) {
	for _, in := range [][]byte{pt.TCP(client4, vip4, pt.Pad(33)), pt.TCP(client6, vip6, pt.Pad(33))} {
		for _, outer := range [][2]string{{dip4, rs4}, {dip6, rs6}} {
			for _, kind := range []packet.EncapKind{packet.IPIP, packet.GUE, packet.GRE} {
				for _, withSum := range []bool{false, true} {
					p := pt.ParsedVNet(t, pt.Partial(in))
					r := tunnel(kind, outer[0], outer[1], withSum)
					if why := r.Apply(p); why != packet.OK {
						t.Fatal(why)
					}
					check := pt.Check
					if kind == packet.GUE {
						check = pt.CheckGUE
					}
					b := p.Bytes()
					if err := check(b); err != nil {
						t.Errorf("kind %d, checksum %v, outer %s: %v\n%s", kind, withSum, outer[0], err, pt.Dump(b))
					}
					if p.VNet != (packet.VNet{}) {
						t.Errorf("virtio-net header %+v is left", p.VNet)
					}
					if kind == packet.GUE {
						u := b[len(b)-len(in)-12:]
						if port := binary.BigEndian.Uint16(u); port < 32768 || port > 60999 {
							t.Errorf("GUE source port %d", port)
						}
						if got := binary.BigEndian.Uint16(u[2:]); got != 6080 {
							t.Errorf("GUE destination port %d", got)
						}
						if hasSum := u[6]|u[7] != 0; hasSum != withSum {
							t.Errorf("GUE checksum present: %v", hasSum)
						}
					}
				}
			}
		}
	}
}

func TestGUEPortFollowsTheFlow(t *testing.T) {
	port := func(in []byte) uint16 {
		p := pt.Parsed(t, in)
		r := tunnel(packet.GUE, dip4, rs4, false)
		r.Apply(p)
		return binary.BigEndian.Uint16(p.Bytes()[20:])
	}
	first := port(pt.TCP(client4, vip4, pt.SYN))
	if got := port(pt.TCP(client4, vip4, pt.Pad(50), pt.TTL(9))); got != first {
		t.Errorf("a packet of the same flow has source port %d, not %d", got, first)
	}
	ports := map[uint16]bool{}
	for i := range 50 {
		ports[port(pt.TCP(netip.AddrPortFrom(netip.MustParseAddr(host(client4)), uint16(1000+i)).String(), vip4))] = true
	}
	if len(ports) < 45 {
		t.Errorf("50 flows have %d source ports", len(ports))
	}
}

func TestEncapsulateTooBig(t *testing.T) {
	r := tunnel(packet.IPIP, dip4, rs4, false)
	p := pt.Parsed(t, pt.UDP(client4, vip4, pt.Pad(65535-28-19)))
	if why := r.Apply(p); why != packet.TooBig {
		t.Errorf("65536 bytes of IPv4: %v", why)
	}
	p = pt.Parsed(t, pt.UDP(client4, vip4, pt.Pad(65535-28-20)))
	if why := r.Apply(p); why != packet.OK {
		t.Errorf("65535 bytes of IPv4: %v", why)
	}
}

// A super-packet stays whole until the Splitter gives it outer headers.
func TestEncapsulateSuperPacketIsPending(t *testing.T) {
	p := pt.ParsedVNet(t, pt.Super(pt.TCP(client4, vip4, pt.Pad(3000)), 1000))
	r := tunnel(packet.IPIP, dip6, rs6, false)
	if why := r.Apply(p); why != packet.OK {
		t.Fatal(why)
	}
	diff(t, p.Bytes(), pt.Super(pt.TCP(client4, vip4, pt.Pad(3000)), 1000)[packet.VNetLen:])
	if a, _ := p.Destination(); p.Encap != r.Encap || a != addr(rs6) {
		t.Errorf("pending %+v", p.Encap)
	}
}
