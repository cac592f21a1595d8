package demo

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/uvs-project/uvs/integration/lab"
	"github.com/uvs-project/uvs/realserver"
)

// A Sight is a packet as it was captured at one place.
type Sight struct {
	Host   string         `json:"host"`
	Link   string         `json:"link"`             // the interface, named after what is at its other end
	Sent   bool           `json:"sent"`             // by the host; otherwise received
	To     string         `json:"to"`               // the host whose link address the frame went to
	Tunnel string         `json:"tunnel,omitempty"` // ipip, gue or gre
	From   netip.Addr     `json:"outer_source,omitzero"`
	Into   netip.Addr     `json:"outer_destination,omitzero"`
	Src    netip.AddrPort `json:"source"` // of the packet itself, inside any tunnel
	Dst    netip.AddrPort `json:"destination"`
}

// String is the packet, without the place.
func (s Sight) String() string {
	if s.Tunnel == "" {
		return fmt.Sprintf("%v → %v, to %s", s.Src, s.Dst, s.To)
	}
	return fmt.Sprintf("%v → %v %s (%v → %v), to %s", s.From, s.Into, s.Tunnel, s.Src, s.Dst, s.To)
}

// place is where a packet was seen.
func (s Sight) place() string {
	verb := "received from"
	if s.Sent {
		verb = "sent to"
	}
	return fmt.Sprintf("%s %s %s", s.Host, verb, s.Link)
}

// A watch captures packets at every place of the road.
type watch struct {
	macs   map[string]string
	places []place
}

type place struct {
	host    *lab.Host
	link    string
	capture *lab.Capture
}

// watch begins to capture what filter keeps.
func (n *network) watch(filter func(*lab.Frame) bool) (*watch, error) {
	w := &watch{macs: n.macs, places: []place{{host: n.client, link: "router"}, {host: n.director, link: "router"}, {host: n.director, link: "lan"}}}
	for _, rs := range n.rs {
		w.places = append(w.places, place{host: rs, link: "lan"})
	}
	for i := range w.places {
		p := &w.places[i]
		var err error
		p.capture, err = p.host.Capture(p.link, filter)
		if err != nil {
			w.places = w.places[:i]
			w.stop()
			return nil, err
		}
	}
	return w, nil
}

func (w *watch) stop() {
	for _, p := range w.places {
		p.capture.Stop()
	}
}

// sights are the different packets captured up to now, in the order of the
// road.
func (w *watch) sights() []Sight {
	var list []Sight
	for _, p := range w.places {
		for _, f := range p.capture.Frames() {
			s := w.read(&f)
			s.Host, s.Link, s.Sent = p.host.Name, p.link, f.Out
			if !slices.Contains(list, s) { // a segment that was sent again counts once
				list = append(list, s)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b Sight) int { return a.road() - b.road() })
	return list
}

// road numbers the places in the order in which a request and its answer
// cross them.
func (s Sight) road() int {
	switch {
	case s.Host == "client" && s.Sent:
		return 0
	case s.Host == "director" && s.Link == "router" && !s.Sent:
		return 1
	case s.Host == "director" && s.Link == "lan" && s.Sent:
		return 2
	case s.Host == "director" && s.Link == "lan":
		return 5
	case s.Host == "director":
		return 6
	case s.Host == "client":
		return 7
	case s.Sent: // by a real server
		return 4
	}
	return 3
}

// read reads the addresses of a frame.
func (w *watch) read(f *lab.Frame) Sight {
	var s Sight
	for _, l := range f.Packet(false).Layers() {
		s.layer(l, w.macs)
	}
	return s
}

// layer adds what one header says. A second IP header makes the first one a tunnel's.
func (s *Sight) layer(l gopacket.Layer, macs map[string]string) {
	switch l := l.(type) {
	case *layers.Ethernet:
		s.To = macs[l.DstMAC.String()]
	case *layers.IPv4:
		s.ip(l.SrcIP, l.DstIP)
	case *layers.IPv6:
		s.ip(l.SrcIP, l.DstIP)
	case *layers.GRE:
		s.Tunnel = "gre"
	case *layers.TCP:
		s.ports(uint16(l.SrcPort), uint16(l.DstPort))
	case *layers.UDP:
		if l.DstPort != realserver.DefaultGUEPort || len(l.Payload) < 4 || binary.BigEndian.Uint16(l.Payload[2:]) != 0 {
			s.ports(uint16(l.SrcPort), uint16(l.DstPort))
			return
		}
		s.Tunnel = "gue"
		first := layers.LayerTypeIPv4
		if l.Payload[1] == uint8(layers.IPProtocolIPv6) {
			first = layers.LayerTypeIPv6
		}
		for _, inner := range gopacket.NewPacket(l.Payload[4:], first, gopacket.Default).Layers() {
			s.layer(inner, macs)
		}
	}
}

func (s *Sight) ip(src, dst []byte) {
	if s.Src.IsValid() {
		s.From, s.Into = s.Src.Addr(), s.Dst.Addr()
		if s.Tunnel == "" {
			s.Tunnel = "ipip"
		}
	}
	from, _ := netip.AddrFromSlice(src)
	to, _ := netip.AddrFromSlice(dst)
	s.Src, s.Dst = netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 0)
}

func (s *Sight) ports(src, dst uint16) {
	s.Src, s.Dst = netip.AddrPortFrom(s.Src.Addr(), src), netip.AddrPortFrom(s.Dst.Addr(), dst)
}
