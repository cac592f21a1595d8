package replay_test

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
	"github.com/uvs-project/uvs/replay"
)

// TestCapture plays the packets of captures with every kind of link.
func TestCapture(t *testing.T) {
	syn := packettest.TCP("198.51.100.7:40000", "192.0.2.10:80", packettest.SYN)
	syn6 := packettest.TCP("[2001:db8::7]:40000", "[2001:db8:ff::10]:80", packettest.SYN)
	tests := []struct {
		name  string
		link  layers.LinkType
		frame []byte
		want  []byte // nil: left out
	}{
		{"Ethernet", layers.LinkTypeEthernet, slices.Concat(make([]byte, 12), []byte{8, 0}, syn), syn},
		{"Ethernet with padding", layers.LinkTypeEthernet, slices.Concat(make([]byte, 12), []byte{8, 0}, syn, make([]byte, 6)), append(slices.Clone(syn), make([]byte, 6)...)},
		{"Ethernet with two VLAN tags", layers.LinkTypeEthernet, slices.Concat(make([]byte, 12), []byte{0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x86, 0xdd}, syn6), syn6},
		{"Ethernet, ARP", layers.LinkTypeEthernet, slices.Concat(make([]byte, 12), []byte{8, 6}, make([]byte, 28)), nil},
		{"Ethernet, cut short", layers.LinkTypeEthernet, make([]byte, 5), nil},
		{"raw IP", layers.LinkTypeRaw, syn6, syn6},
		{"Linux cooked", layers.LinkTypeLinuxSLL, slices.Concat(make([]byte, 14), []byte{8, 0}, syn), syn},
		{"Linux cooked, the newer one", 276, slices.Concat([]byte{8, 0}, make([]byte, 18), syn), syn},
		{"BSD loopback", layers.LinkTypeNull, slices.Concat([]byte{2, 0, 0, 0}, syn), syn},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := replay.ReadCapture(capture(t, tt.link, tt.frame))
			if tt.want == nil {
				if err == nil || !strings.Contains(err.Error(), "there is no IP packet in it") {
					t.Errorf("%v, want that there is nothing to play", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(v.Steps) != 1 || !bytes.Equal(v.Steps[0].Pkt, tt.want) {
				t.Errorf("steps %v, want the one packet %x", v.Steps, tt.want)
			}
		})
	}
	for _, bad := range []string{"", "abc", "no capture at all"} {
		name := filepath.Join(t.TempDir(), "bad.pcap")
		if err := os.WriteFile(name, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := replay.ReadCapture(name); err == nil {
			t.Errorf("%q was read as a capture", bad)
		}
	}
	if _, err := replay.ReadCapture(capture(t, layers.LinkTypeIEEE802_11, []byte{1, 2})); err == nil {
		t.Error("a link type that nobody knows was read")
	}
}

// TestClockOfACapture: a clock that was set meanwhile costs no more than the
// longest timeout, and does not run back.
func TestClockOfACapture(t *testing.T) {
	syn := packettest.TCP("198.51.100.7:40000", "192.0.2.10:80", packettest.SYN)
	var infos []gopacket.CaptureInfo
	for _, at := range []int64{1000, 1002, 1_790_000_000, 5, 6} {
		infos = append(infos, gopacket.CaptureInfo{Timestamp: time.Unix(at, 0), CaptureLength: len(syn), Length: len(syn)})
	}
	v, err := replay.ReadCapture(captureOf(t, layers.LinkTypeRaw, infos, syn, syn, syn, syn, syn))
	if err != nil {
		t.Fatal(err)
	}
	const set = 2000 + 32*24*3600*1000
	want := []int64{0, 2000, set, set, set + 1000}
	for i, s := range v.Steps {
		if s.At != want[i] {
			t.Errorf("packet %d at %d ms, want %d", i, s.At, want[i])
		}
	}
}

func TestPacketsThatWereNotCapturedWholeAreRefused(t *testing.T) {
	syn := packettest.TCP("198.51.100.7:40000", "192.0.2.10:80", packettest.SYN)
	info := gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: 34, Length: len(syn)}
	_, err := replay.ReadCapture(captureOf(t, layers.LinkTypeRaw, []gopacket.CaptureInfo{info}, syn[:34]))
	if want := "packet 1: only 34 of its 40 bytes were captured: capture whole packets, with tcpdump by -s 0"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// capture writes a pcap file of frames a second apart.
func capture(t *testing.T, link layers.LinkType, frames ...[]byte) string {
	t.Helper()
	var infos []gopacket.CaptureInfo
	for i, b := range frames {
		infos = append(infos, gopacket.CaptureInfo{Timestamp: time.Unix(1000+int64(i), 0), CaptureLength: len(b), Length: len(b)})
	}
	return captureOf(t, link, infos, frames...)
}

// captureOf writes a pcap file of frames with what is said of each.
func captureOf(t *testing.T, link layers.LinkType, infos []gopacket.CaptureInfo, frames ...[]byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "test.pcap")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := pcapgo.NewWriter(f)
	if err := w.WriteFileHeader(65536, link); err != nil {
		t.Fatal(err)
	}
	for i, b := range frames {
		if err := w.WritePacket(infos[i], b); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// TestOpenDirector plays a capture to a service, and reads again what left.
func TestOpenDirector(t *testing.T) {
	listens := []lb.Listen{{VIP: netip.MustParseAddr("192.0.2.10"), FirstPort: 80, Proto: packet.TCP}}
	rs := netip.MustParseAddrPort("10.2.0.11:8080")
	m, err := modes.New("nat", modes.Options{Listens: listens, RealServer: rs})
	if err != nil {
		t.Fatal(err)
	}
	build, err := sched.New("rr", sched.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := replay.NewOpen(lb.Config{Services: []lb.ServiceConfig{{
		Name: "web", Listens: listens, Scheduler: build, RealServers: []lb.RealServerConfig{{Address: rs, Weight: 1, Mode: m}},
	}}}, []netip.Addr{listens[0].VIP})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	v, err := replay.ReadCapture(capture(t, layers.LinkTypeRaw,
		packettest.TCP("198.51.100.7:40000", "192.0.2.10:80", packettest.SYN),
		packettest.TCP("10.2.0.11:8080", "198.51.100.7:40000", packettest.SYNACK),
		packettest.TCP("198.51.100.7:40000", "192.0.2.10:81", packettest.SYN),
	))
	if err != nil {
		t.Fatal(err)
	}
	played, err := d.PlaySteps(&replay.File{}, v)
	if err != nil {
		t.Fatal(err)
	}
	var left bytes.Buffer
	if err := replay.WriteCapture(&left, []*replay.Vector{played}); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "left.pcapng")
	if err := os.WriteFile(name, left.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := replay.ReadCapture(name)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]byte{
		packettest.TCP("198.51.100.7:40000", "10.2.0.11:8080", packettest.SYN, packettest.TTL(63)),
		packettest.TCP("192.0.2.10:80", "198.51.100.7:40000", packettest.SYNACK, packettest.TTL(63)),
		packettest.TCP("192.0.2.10:81", "198.51.100.7:40000", packettest.Flags(packet.RST|packet.ACK), packettest.Ack(1), packettest.Window(0), packettest.DF),
	}
	if len(again.Steps) != len(want) {
		t.Fatalf("%d packets left, want %d", len(again.Steps), len(want))
	}
	for i, s := range again.Steps {
		if !bytes.Equal(s.Pkt, want[i]) || s.At != int64(i)*1000 {
			t.Errorf("packet %d at %d ms:\n%swant\n%s", i, s.At, replay.Describe(s.Pkt), replay.Describe(want[i]))
		}
	}
}
