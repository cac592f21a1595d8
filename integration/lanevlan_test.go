package integration

// The fast lane and tags, in the topology of lanebed_test.go: the uplinks of
// the director are devices upon others, which have the addresses.

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
)

// stacked is a kind of device that stands upon another.
type stacked struct {
	name string
	kind []string // as ip link add names it
	tags string   // of the device below, for ethtool: whether tags travel beside frames, as with most network cards, or in them
}

var stackedDevices = []stacked{
	{"VLAN, the tag beside the frame", []string{"vlan", "id", "100"}, "on"},
	{"VLAN, the tag in the frame", []string{"vlan", "id", "100"}, "off"},
	{"macvlan", []string{"macvlan", "mode", "private"}, "on"},
}

// join joins two hosts by devices of the kind, upon a link.
func (s *stacked) join(t *testing.T) func(a, b *lab.Host, ours, theirs string) {
	return func(a, b *lab.Host, ours, theirs string) {
		a.Link(b, "", "")
		drawn(t, a.Lab())
		for _, end := range []struct {
			host  *lab.Host
			dev   string
			addrs string
		}{{a, b.Name, ours}, {b, a.Name, theirs}} {
			upper := end.dev + ".100"
			run(t, end.host, "ethtool", "-K", end.dev, "txvlan", s.tags, "rxvlan", s.tags)
			run(t, end.host, "ip", append([]string{"link", "add", "link", end.dev, "name", upper, "type"}, s.kind...)...)
			run(t, end.host, "ip", "link", "set", upper, "up")
			end.host.Addr(upper, end.addrs)
		}
	}
}

// unknown says whether the kernel has no such devices.
func (s *stacked) unknown(t *testing.T) bool {
	h := newLab(t).Host("probe")
	_, err := h.Run(within(t), "ip", append([]string{"link", "add", "link", "lo", "name", "upper", "type"}, s.kind...)...)
	return err != nil && strings.Contains(err.Error(), "Unknown device type")
}

func TestTheFastLaneOverStackedDevices(t *testing.T) {
	need(t, "ip", "ethtool")
	for _, s := range stackedDevices {
		t.Run(s.name, func(t *testing.T) {
			if s.unknown(t) {
				t.Skipf("this kernel has no %s devices", s.kind[0])
			}
			b := joinedLaneBed(t, s.join(t))
			d := startDirector(t, b.director, laneServices)
			k := b.talk(t)
			k.intoTheLane(t, d)
			k.staysInTheLane(t, d, "from the first")
		})
	}
}

// TestTaggedFramesComeUp: where a frame with a tag arrives, the program is at
// the link below the VLAN devices, and knows nothing of them. One with a tag
// for a priority only is the link's own, and takes the TUN road; one of a VLAN
// for which there is no device ends there, be it a packet of a flow in the lane.
func TestTaggedFramesComeUp(t *testing.T) {
	need(t)
	b := newLaneBed(t)
	d := startDirector(t, b.director, laneServices)
	k := b.talk(t)
	k.intoTheLane(t, d)
	is := func(f *lab.Frame) bool {
		tcp, ok := f.Packet(false).TransportLayer().(*layers.TCP)
		return ok && string(tcp.Payload) == smuggled
	}
	seen, err := b.rs.Capture("director", is)
	if err != nil {
		t.Fatal(err)
	}
	before := crossedTUN(t, d)
	smuggle(t, b, k, 999)
	smuggle(t, b, k, 0)
	if _, err := seen.Wait(within(t), "the frame with a priority", is); err != nil {
		t.Fatal(err)
	}
	// It is counted when it has been sent.
	if err := lab.Wait(within(t), "the frame with a priority to take the TUN road", func() error {
		if crossedTUN(t, d) == before {
			return errors.New("no packet came by it")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if n := len(seen.Stop()); n != 1 {
		t.Errorf("%d frames arrived, want the one with a priority", n)
	}
}

const smuggled = "smuggled"

// smuggle sends a segment of the connection k with a tag.
func smuggle(t *testing.T, b *laneBed, k *talk, tag uint16) {
	t.Helper()
	local := k.LocalAddr().(*net.TCPAddr)
	ether := &layers.Ethernet{SrcMAC: b.client.MAC("director"), DstMAC: b.director.MAC("client"), EthernetType: layers.EthernetTypeDot1Q}
	vlan := &layers.Dot1Q{VLANIdentifier: tag, Type: layers.EthernetTypeIPv4}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: local.IP, DstIP: net.ParseIP("203.0.113.10")}
	tcp := &layers.TCP{SrcPort: layers.TCPPort(local.Port), DstPort: 80, ACK: true, Window: 1}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	frame := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(frame, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		ether, vlan, ip, tcp, gopacket.Payload(smuggled)); err != nil {
		t.Fatal(err)
	}
	if err := b.client.Do(func() error {
		dev, err := net.InterfaceByName("director")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame.Bytes(), 0, &unix.SockaddrLinklayer{Ifindex: dev.Index})
	}); err != nil {
		t.Fatal(err)
	}
}
