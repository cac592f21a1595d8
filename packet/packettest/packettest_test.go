package packettest

import (
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

const (
	a4, b4 = "192.0.2.1:1234", "203.0.113.10:80"
	a6, b6 = "[2001:db8:9::7]:1234", "[2001:db8:a::10]:80"
)

// built are packets of every kind that the builders make.
func built() map[string][]byte {
	tcp4 := TCP(a4, b4, SYN, Pad(33))
	return map[string][]byte{
		"TCP over IPv4":           tcp4,
		"TCP over IPv6":           TCP(a6, b6, Pad(32), TTL(3), TOS(0xb8), FlowLabel(77)),
		"TCP with options":        TCP(a4, b4, TCPOptions([]byte{2, 4, 5, 0xb4}), DF, ID(9)),
		"UDP over IPv4":           UDP(a4, b4, Data("odd")),
		"UDP over IPv6":           UDP(a6, b6, Data("even")),
		"SCTP over IPv4":          SCTP(a4, b4, 10, Pad(8)),
		"an echo over IPv4":       Echo("192.0.2.1", "203.0.113.10", Pad(5)),
		"an echo over IPv6":       Echo("2001:db8::1", "2001:db8::2", Pad(5)),
		"an ICMP error over IPv4": Error("192.0.2.9", "192.0.2.1", 3, 4, 1400, tcp4),
		"an ICMP error over IPv6": Error("2001:db8::9", "2001:db8::1", 2, 0, 1280, TCP(a6, b6)),
		"IP in IP":                IP("10.0.0.1", "10.0.0.2", 4, tcp4),
		"GRE with a checksum":     IP("10.0.0.1", "10.0.0.2", 47, gre(tcp4)),
	}
}

// gre is inner behind a GRE header with a checksum.
func gre(inner []byte) []byte {
	b := append([]byte{0x80, 0, 8, 0, 0, 0, 0, 0}, inner...)
	binary.BigEndian.PutUint16(b[4:], ^add(b, 0))
	return b
}

// Another implementation, gopacket, must make the same bytes out of the fields
// that it reads, with lengths and checksums of its own.
func TestBuildersAgainstGopacket(t *testing.T) {
	for name, b := range built() {
		t.Run(name, func(t *testing.T) {
			first := layers.LayerTypeIPv4
			if b[0]>>4 == 6 {
				first = layers.LayerTypeIPv6
			}
			p := gopacket.NewPacket(b, first, gopacket.Default)
			if p.ErrorLayer() != nil {
				t.Fatal(p.ErrorLayer().Error())
			}
			var parts []gopacket.SerializableLayer
			var network gopacket.NetworkLayer
			for _, l := range p.Layers() {
				s, ok := l.(gopacket.SerializableLayer)
				if !ok {
					t.Skipf("gopacket cannot write a %v", l.LayerType())
				}
				if n, ok := l.(gopacket.NetworkLayer); ok {
					network = n
				}
				if tr, ok := s.(interface {
					SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
				}); ok {
					if err := tr.SetNetworkLayerForChecksum(network); err != nil {
						t.Fatal(err)
					}
				}
				parts = append(parts, s)
			}
			out := gopacket.NewSerializeBuffer()
			if err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, parts...); err != nil {
				t.Fatal(err)
			}
			if string(out.Bytes()) != string(b) {
				t.Errorf("gopacket makes\n%s, we\n%s", Dump(out.Bytes()), Dump(b))
			}
		})
	}
}

// A flip of any single bit is found, but in what no checksum covers.
func TestCheckFindsEveryFlippedBit(t *testing.T) {
	for name, b := range built() {
		if err := Check(b); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		start := 0
		if b[0]>>4 == 6 {
			start = 8 // class, label and hop limit are in no checksum; addresses are in the transport's
		}
		for bit := start * 8; bit < len(b)*8; bit++ {
			c := append([]byte(nil), b...)
			c[bit/8] ^= 0x80 >> (bit % 8)
			if Check(c) == nil {
				t.Errorf("%s: bit %d of byte %d may be flipped\n%s", name, bit%8, bit/8, Dump(c))
				break
			}
		}
	}
}

func TestMend(t *testing.T) {
	for name, b := range built() {
		c := append([]byte(nil), b...)
		if b[0]>>4 == 4 {
			c[8]-- // TTL
		}
		c[len(c)-1] ^= 1
		if name == "IP in IP" || name == "GRE with a checksum" {
			c[len(c)-1] ^= 1 // what is inside is not mended
		}
		if err := Check(Mend(c)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
