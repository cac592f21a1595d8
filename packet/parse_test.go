package packet_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/uvs-project/uvs/packet"
	pt "github.com/uvs-project/uvs/packet/packettest"
)

const (
	client4, vip4, rs4, lip4, dip4 = "192.0.2.1:1234", "203.0.113.10:80", "10.0.0.21:8080", "198.51.100.1:4321", "10.0.0.1:0"
	client6, vip6, rs6, lip6, dip6 = "[2001:db8:9::7]:1234", "[2001:db8:a::10]:80", "[2001:db8:2::21]:8080", "[2001:db8:f::1]:4321", "[2001:db8:2::1]:0"
)

// host is the address of an endpoint without its port.
func host(ap string) string { return netip.MustParseAddrPort(ap).Addr().String() }

func addr(ap string) packet.Addr {
	a, _ := packet.AddrFrom(netip.MustParseAddrPort(ap).Addr())
	return a
}

func endpoint(ap string) packet.Endpoint {
	return packet.EndpointFrom(netip.MustParseAddrPort(ap))
}

func tuple(proto uint8, src, dst string) packet.Tuple {
	s, d := endpoint(src), endpoint(dst)
	return packet.Tuple{Src: s.Addr, Dst: d.Addr, SrcPort: s.Port, DstPort: d.Port, Proto: proto, Family: s.Family}
}

// with gives b another byte at the offset.
func with(b []byte, off int, v byte) []byte {
	b = append([]byte(nil), b...)
	b[off] = v
	return b
}

// at moves an IPv4 fragment to a place in its datagram, in units of 8 bytes,
// and cuts its payload to n bytes.
func at(part []byte, units uint16, n int) []byte {
	b := append([]byte(nil), part...)
	binary.BigEndian.PutUint16(b[6:], units)
	return pt.Cut(b, 20+n)
}

// lengthOnly sets the IP length field, and nothing else, to say n bytes.
func lengthOnly(b []byte, n int) []byte {
	b = append([]byte(nil), b...)
	if b[0]>>4 == 6 {
		binary.BigEndian.PutUint16(b[4:], uint16(n-40))
		return b
	}
	cut := pt.Cut(append(b, make([]byte, max(0, n-len(b)))...), n)
	copy(b[:20], cut[:20])
	return b
}

func TestParse(t *testing.T) {
	syn4, syn6 := pt.TCP(client4, vip4, pt.SYN), pt.TCP(client6, vip6, pt.SYN)
	nine := []pt.Option{}
	for range 9 {
		nine = append(nine, pt.DestinationOptions)
	}
	parts4 := pt.Fragments(pt.UDP(client4, vip4, pt.Pad(100), pt.ID(7)), 48)
	parts6 := pt.Fragments(pt.UDP(client6, vip6, pt.Pad(100)), 48)
	icmp := func(family string) packet.Tuple {
		if family == "4" {
			return tuple(packet.ICMPv4, "192.0.2.1:0", "203.0.113.10:0")
		}
		return tuple(packet.ICMPv6, "[2001:db8:9::7]:0", "[2001:db8:a::10]:0")
	}
	tests := []struct {
		name string
		in   []byte
		want packet.Tuple
		why  packet.Reason
	}{
		{name: "a TCP SYN over IPv4", in: syn4, want: tuple(packet.TCP, client4, vip4)},
		{name: "a TCP SYN over IPv6", in: syn6, want: tuple(packet.TCP, client6, vip6)},
		{name: "UDP over IPv4", in: pt.UDP(client4, vip4, pt.Data("x")), want: tuple(packet.UDP, client4, vip4)},
		{name: "UDP over IPv6", in: pt.UDP(client6, vip6), want: tuple(packet.UDP, client6, vip6)},
		{name: "SCTP over IPv4", in: pt.SCTP(client4, vip4, 1), want: tuple(packet.SCTP, client4, vip4)},
		{name: "SCTP over IPv6", in: pt.SCTP(client6, vip6, 1), want: tuple(packet.SCTP, client6, vip6)},
		{name: "an echo request over IPv4 has no ports", in: pt.Echo(host(client4), host(vip4)), want: icmp("4")},
		{name: "an echo request over IPv6 has no ports", in: pt.Echo(host(client6), host(vip6)), want: icmp("6")},
		{name: "an unknown protocol has no ports", in: pt.IP(host(client4), host(vip4), 89, make([]byte, 3)), want: func() packet.Tuple { u := icmp("4"); u.Proto = 89; return u }()},

		{name: "IPv4 options are skipped", in: pt.TCP(client4, vip4, pt.IPOptions(1, 1, 1, 0)), want: tuple(packet.TCP, client4, vip4)},
		{name: "hop-by-hop options are skipped", in: pt.TCP(client6, vip6, pt.HopByHop), want: tuple(packet.TCP, client6, vip6)},
		{name: "destination options are skipped", in: pt.TCP(client6, vip6, pt.DestinationOptions), want: tuple(packet.TCP, client6, vip6)},
		{name: "a routing header used up is skipped", in: pt.TCP(client6, vip6, pt.Routing(0)), want: tuple(packet.TCP, client6, vip6)},
		{name: "a routing header with segments left is skipped", in: pt.TCP(client6, vip6, pt.Routing(1)), want: tuple(packet.TCP, client6, vip6)},
		{name: "an authentication header is skipped", in: pt.TCP(client6, vip6, pt.Authentication), want: tuple(packet.TCP, client6, vip6)},
		{name: "an atomic fragment is a whole packet", in: pt.TCP(client6, vip6, pt.AtomicFragment), want: tuple(packet.TCP, client6, vip6)},
		{name: "all extension headers at once", in: pt.UDP(client6, vip6, pt.HopByHop, pt.DestinationOptions, pt.Routing(0), pt.AtomicFragment, pt.Authentication), want: tuple(packet.UDP, client6, vip6)},
		{name: "eight extension headers are walked", in: pt.TCP(client6, vip6, nine[:8]...), want: tuple(packet.TCP, client6, vip6)},
		{name: "nine extension headers are too many", in: pt.TCP(client6, vip6, nine...), why: packet.TooManyHeaders},
		{name: "an extension header beyond the packet", in: with(pt.TCP(client6, vip6, pt.DestinationOptions), 41, 255), why: packet.Truncated},
		{name: "a packet that ends in an extension header", in: pt.Cut(pt.TCP(client6, vip6, pt.DestinationOptions), 44), why: packet.Truncated},
		{name: "a fragment header behind a first fragment's", in: pt.UDP(client6, vip6, pt.Extension(44, 0, 0, 0, 1, 0, 0, 0, 1), pt.Extension(44, 0, 0, 0, 8, 0, 0, 0, 2)), why: packet.BadHeader},

		{name: "a first fragment has its ports", in: parts4[0], want: tuple(packet.UDP, client4, vip4)},
		{name: "a later fragment has none yet", in: parts4[1], want: tuple(packet.UDP, "192.0.2.1:0", "203.0.113.10:0")},
		{name: "a first IPv6 fragment has its ports", in: parts6[0], want: tuple(packet.UDP, client6, vip6)},
		{name: "a later IPv6 fragment has none yet", in: parts6[2], want: tuple(packet.UDP, "[2001:db8:9::7]:0", "[2001:db8:a::10]:0")},
		{name: "a fragment at the end of the largest datagram", in: at(parts4[1], 8191, 7), want: tuple(packet.UDP, "192.0.2.1:0", "203.0.113.10:0")},
		{name: "a fragment beyond the largest datagram", in: at(parts4[1], 8191, 8), why: packet.FragmentOverlap},
		{name: "an IPv6 fragment beyond the largest datagram", in: pt.Cut(with(with(parts6[1], 42, 0xff), 43, 0xf8), 56), why: packet.FragmentOverlap},

		{name: "bytes behind the IPv4 packet are cut", in: append(syn4[:len(syn4):len(syn4)], 0, 0, 0), want: tuple(packet.TCP, client4, vip4)},
		{name: "bytes behind the IPv6 packet are cut", in: append(syn6[:len(syn6):len(syn6)], 0, 0, 0), want: tuple(packet.TCP, client6, vip6)},
		{name: "only the ports of a TCP header", in: pt.Cut(syn4, 24), want: tuple(packet.TCP, client4, vip4)},
		{name: "three bytes of a TCP header", in: pt.Cut(syn4, 23), why: packet.Truncated},
		{name: "three bytes of a UDP header over IPv6", in: pt.Cut(pt.UDP(client6, vip6), 43), why: packet.Truncated},
		{name: "seven bytes of ICMP", in: pt.Cut(pt.Echo(host(client4), host(vip4)), 27), why: packet.Truncated},

		{name: "nothing at all", in: nil, why: packet.Truncated},
		{name: "19 bytes", in: syn4[:19], why: packet.Truncated},
		{name: "39 bytes of IPv6", in: syn6[:39], why: packet.Truncated},
		{name: "version 5", in: with(syn4, 0, 0x55), why: packet.BadVersion},
		{name: "a header of 16 bytes", in: with(syn4, 0, 0x44), why: packet.BadHeader},
		{name: "a header longer than the packet", in: pt.Cut(with(pt.IP(host(client4), host(vip4), 89, make([]byte, 40)), 0, 0x4f), 60)[:40], why: packet.Truncated},
		{name: "a total length below the header", in: with(with(syn4, 2, 0), 3, 19), why: packet.BadHeader},
		{name: "a total length beyond the packet", in: lengthOnly(syn4, len(syn4)+1), why: packet.Truncated},
		{name: "a payload length beyond the packet", in: lengthOnly(syn6, len(syn6)+1), why: packet.Truncated},
		{name: "a wrong IPv4 header checksum", in: pt.TCP(client4, vip4, pt.WrongIPSum), why: packet.BadIPChecksum},
		{name: "a wrong IPv4 header checksum with options", in: pt.TCP(client4, vip4, pt.IPOptions(1, 1, 1, 0), pt.WrongIPSum), why: packet.BadIPChecksum},

		{name: "from 0.0.0.0", in: pt.TCP("0.0.0.0:1", vip4), why: packet.BadSource},
		{name: "from another address of 0/8", in: pt.TCP("0.0.0.1:1", vip4), want: tuple(packet.TCP, "0.0.0.1:1", vip4)},
		{name: "from the broadcast address", in: pt.TCP("255.255.255.255:1", vip4), why: packet.BadSource},
		{name: "from loopback", in: pt.TCP("127.1.2.3:1", vip4), why: packet.BadSource},
		{name: "from multicast", in: pt.TCP("239.0.0.1:1", vip4), why: packet.BadSource},
		{name: "from class E", in: pt.TCP("240.0.0.1:1", vip4), want: tuple(packet.TCP, "240.0.0.1:1", vip4)},
		{name: "from link-local", in: pt.TCP("169.254.0.1:1", vip4), want: tuple(packet.TCP, "169.254.0.1:1", vip4)},
		{name: "from IPv6 loopback", in: pt.TCP("[::1]:1", vip6), why: packet.BadSource},
		{name: "from IPv6 multicast", in: pt.TCP("[ff02::1]:1", vip6), why: packet.BadSource},
		{name: "from the unspecified IPv6 address", in: pt.TCP("[::]:1", vip6), want: tuple(packet.TCP, "[::]:1", vip6)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.Load(tt.in)
			why := p.Parse()
			if why != tt.why {
				t.Fatalf("reason %v, want %v\n%s", why, tt.why, pt.Dump(tt.in))
			}
			if why == packet.OK && p.Tuple != tt.want {
				t.Errorf("tuple %+v, want %+v", p.Tuple, tt.want)
			}
		})
	}
}

func TestParseICMPError(t *testing.T) {
	sent4, sent6 := pt.TCP(vip4, client4, pt.Pad(100)), pt.TCP(vip6, client6, pt.Pad(100))
	later4 := pt.Fragments(pt.UDP(vip4, client4, pt.Pad(100)), 48)[1]
	const router4, router6 = "192.0.2.254", "2001:db8:9::ff"
	tests := []struct {
		name string
		in   []byte
		want packet.Tuple // zero: not an error that finds a flow
	}{
		{name: "IPv4 port unreachable", in: pt.Error(host(client4), host(vip4), 3, 3, 0, sent4), want: tuple(packet.TCP, client4, vip4)},
		{name: "IPv4 fragmentation needed from a router", in: pt.Error(router4, host(vip4), 3, 4, 1400, sent4[:28]), want: tuple(packet.TCP, client4, vip4)},
		{name: "IPv4 source quench", in: pt.Error(router4, host(vip4), 4, 0, 0, sent4), want: tuple(packet.TCP, client4, vip4)},
		{name: "IPv4 time exceeded", in: pt.Error(router4, host(vip4), 11, 0, 0, sent4), want: tuple(packet.TCP, client4, vip4)},
		{name: "four bytes of the embedded transport header suffice", in: pt.Error(router4, host(vip4), 3, 4, 1400, sent4[:24]), want: tuple(packet.TCP, client4, vip4)},
		{name: "three do not", in: pt.Error(router4, host(vip4), 3, 4, 1400, sent4[:23])},
		{name: "IPv4 redirect is not handled", in: pt.Error(router4, host(vip4), 5, 0, 0, sent4)},
		{name: "IPv4 parameter problem is not handled", in: pt.Error(router4, host(vip4), 12, 0, 0, sent4)},
		{name: "an embedded later fragment matches nothing", in: pt.Error(router4, host(vip4), 11, 0, 0, later4)},
		{name: "an embedded echo matches nothing", in: pt.Error(router4, host(vip4), 11, 0, 0, pt.Echo(host(vip4), host(client4)))},
		{name: "an embedded packet of the other family matches nothing", in: pt.Error(router4, host(vip4), 11, 0, 0, sent6)},
		{name: "an embedded header that is too short matches nothing", in: pt.Error(router4, host(vip4), 11, 0, 0, with(sent4, 0, 0x44))},
		{name: "an embedded header that ends beyond the packet matches nothing", in: pt.Error(router4, host(vip4), 11, 0, 0, with(sent4, 0, 0x4f)[:40])},
		{name: "so it does where no ports would be missed", in: pt.Error(router4, host(vip4), 11, 0, 0, with(pt.IP(host(vip4), host(client4), packet.ESP, nil), 0, 0x4f))},
		{name: "an error in fragments matches nothing", in: pt.Fragments(pt.Error(router4, host(vip4), 11, 0, 0, sent4), 64)[0]},

		{name: "IPv6 destination unreachable", in: pt.Error(router6, host(vip6), 1, 4, 0, sent6), want: tuple(packet.TCP, client6, vip6)},
		{name: "IPv6 packet too big", in: pt.Error(router6, host(vip6), 2, 0, 1280, sent6[:44]), want: tuple(packet.TCP, client6, vip6)},
		{name: "IPv6 time exceeded", in: pt.Error(router6, host(vip6), 3, 0, 0, sent6), want: tuple(packet.TCP, client6, vip6)},
		{name: "IPv6 parameter problem", in: pt.Error(router6, host(vip6), 4, 1, 6, sent6), want: tuple(packet.TCP, client6, vip6)},
		{name: "IPv6 extension headers in the embedded packet", in: pt.Error(router6, host(vip6), 1, 4, 0, pt.UDP(vip6, client6, pt.DestinationOptions)), want: tuple(packet.UDP, client6, vip6)},
		{name: "an IPv6 informational type", in: pt.Error(router6, host(vip6), 135, 0, 0, sent6)},
		{name: "an embedded later IPv6 fragment matches nothing", in: pt.Error(router6, host(vip6), 1, 4, 0, pt.Fragments(sent6, 48)[1])},
		{name: "an embedded IPv6 packet cut in its extension headers matches nothing", in: pt.Error(router6, host(vip6), 1, 4, 0, pt.UDP(vip6, client6, pt.DestinationOptions)[:44])},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.Parsed(t, tt.in)
			if p.IsICMPError() != (tt.want != packet.Tuple{}) {
				t.Fatalf("IsICMPError is %v", p.IsICMPError())
			}
			if p.IsICMPError() && p.Tuple != tt.want {
				t.Errorf("tuple %+v, want %+v", p.Tuple, tt.want)
			}
			if !p.IsICMPError() && (p.Tuple.Proto != packet.ICMPv4 && p.Tuple.Proto != packet.ICMPv6 || p.Tuple.SrcPort != 0) {
				t.Errorf("tuple %+v, want the ICMP packet's own", p.Tuple)
			}
		})
	}
}

func TestFragment(t *testing.T) {
	for _, pkt := range [][]byte{pt.UDP(client4, vip4, pt.Pad(92), pt.ID(7)), pt.UDP(client6, vip6, pt.Pad(92))} {
		id := uint32(7)
		if pkt[0]>>4 == 6 {
			id = 0x5ca1ab1e
		}
		want := []packet.Fragment{{ID: id, More: true, Is: true}, {ID: id, Offset: 48, More: true, Is: true}, {ID: id, Offset: 96, Is: true}}
		for i, part := range pt.Fragments(pkt, 48) {
			p := pt.Parsed(t, part)
			if got := p.Fragment(); got != want[i] {
				t.Errorf("fragment %d: %+v, want %+v", i, got, want[i])
			}
			if i > 0 {
				p.SetPorts(1234, 80)
				if p.Tuple.SrcPort != 1234 || p.Tuple.DstPort != 80 {
					t.Errorf("fragment %d: ports %d and %d after SetPorts", i, p.Tuple.SrcPort, p.Tuple.DstPort)
				}
			}
		}
		if got := pt.Parsed(t, pkt).Fragment(); got != (packet.Fragment{}) {
			t.Errorf("a whole packet: %+v", got)
		}
	}
}

func TestTransport(t *testing.T) {
	tests := []struct {
		name  string
		in    []byte
		whole bool
		flags uint8
		chunk uint8
	}{
		{name: "SYN", in: pt.TCP(client4, vip4, pt.SYN), whole: true, flags: packet.SYN, chunk: packet.NoChunk},
		{name: "FIN over IPv6 behind options", in: pt.TCP(client6, vip6, pt.FIN, pt.HopByHop), whole: true, flags: packet.FIN | packet.ACK, chunk: packet.NoChunk},
		{name: "19 bytes of TCP", in: pt.Cut(pt.TCP(client4, vip4, pt.SYN), 39), chunk: packet.NoChunk},
		{name: "8 bytes of UDP", in: pt.UDP(client4, vip4), whole: true, chunk: packet.NoChunk},
		{name: "7 bytes of UDP", in: pt.Cut(pt.UDP(client4, vip4), 27), chunk: packet.NoChunk},
		{name: "SCTP INIT", in: pt.SCTP(client4, vip4, 1), whole: true, chunk: 1},
		{name: "SCTP without a chunk", in: pt.Cut(pt.SCTP(client4, vip4, 1), 32), whole: true, chunk: packet.NoChunk},
		{name: "11 bytes of SCTP", in: pt.Cut(pt.SCTP(client4, vip4, 1), 31), chunk: packet.NoChunk},
		{name: "a later fragment", in: pt.Fragments(pt.TCP(client4, vip4, pt.Pad(100)), 48)[1], whole: true, chunk: packet.NoChunk},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pt.Parsed(t, tt.in)
			if p.WholeTransport() != tt.whole || p.TCPFlags() != tt.flags || p.SCTPChunk() != tt.chunk {
				t.Errorf("whole %v, flags %#x, chunk %d; want %v, %#x, %d", p.WholeTransport(), p.TCPFlags(), p.SCTPChunk(), tt.whole, tt.flags, tt.chunk)
			}
		})
	}
}
