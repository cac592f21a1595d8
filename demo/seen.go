package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

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

// look sends one HTTP request and one datagram, and holds what each side saw
// against what the mode promises.
func (n *network) look(ctx context.Context, r *Result) error {
	seen, err := n.lookAt(ctx, r.Case, "tcp", httpPort)
	r.Seen = seen
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	if _, err := n.lookAt(ctx, r.Case, "udp", udpPort); err != nil {
		return fmt.Errorf("udp: %w", err)
	}
	return nil
}

// lookAt sends one request, which carries a token that is in the answer too,
// and returns what was captured of both, in the order of the road.
func (n *network) lookAt(ctx context.Context, c Case, proto string, port uint16) ([]Sight, error) {
	token := fmt.Sprintf("%s-%s.demo", c.name(), proto)
	w, err := n.watch(func(f *lab.Frame) bool { return bytes.Contains(f.Data, []byte(token)) })
	if err != nil {
		return nil, err
	}
	defer w.stop()
	echo, err := n.ask(proto)(ctx, netip.AddrPortFrom(c.vip(), port), token)
	if err != nil {
		return n.trace(ctx, c, proto, port), err
	}
	i := slices.IndexFunc(n.rs[:], func(h *lab.Host) bool { return h.Name == echo.Server })
	if i < 0 {
		return nil, fmt.Errorf("an unknown server %q answered", echo.Server)
	}

	// The answer is here, so all has been captured, but maybe not yet read.
	patience, done := context.WithTimeout(ctx, 2*time.Second)
	defer done()
	var seen []Sight
	err = lab.Wait(patience, "captures", func() error {
		seen = w.sights()
		return diff(c.promise(seen, i, port), seen)
	})
	if err != nil {
		err = diff(c.promise(seen, i, port), seen)
	}
	return seen, err
}

// trace asks once more where nobody answered, and returns everything that was
// captured of it, so that one sees how far the request came.
func (n *network) trace(ctx context.Context, c Case, proto string, port uint16) []Sight {
	ends := [][]byte{c.vip().AsSlice()}
	for i := range n.rs {
		ends = append(ends, c.rip(i).AsSlice())
	}
	w, err := n.watch(func(f *lab.Frame) bool {
		return slices.ContainsFunc(ends, func(addr []byte) bool { return bytes.Contains(f.Data, addr) })
	})
	if err != nil {
		return nil
	}
	defer w.stop()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := n.ask(proto)(ctx, netip.AddrPortFrom(c.vip(), port), "trace"); err == nil {
		return nil // now it works
	}
	return slices.DeleteFunc(w.sights(), func(s Sight) bool { return s.Src.Port() == 0 }) // ARP, ICMP
}

// promise is what a mode promises to be seen when real server i answers a
// request to a port of the VIP. The client's port, and the LIP that stands in for the
// client, are as seen.
func (c Case) promise(seen []Sight, i int, port uint16) []Sight {
	var client, local netip.AddrPort
	for _, s := range seen {
		switch {
		case s.Host == "client" && s.Sent && clientAddr(s.Src.Addr()):
			client = s.Src
		case s.Host == "director" && s.Link == "lan" && s.Sent && inPool(s.Src.Addr()):
			local = s.Src
		}
	}
	rs := fmt.Sprintf("rs%d", i+1)
	vip := netip.AddrPortFrom(c.vip(), port)
	back := "director" // where the real server sends its answer
	inside := Sight{Src: client, Dst: vip}
	switch c.Mode {
	case "dr":
		back = "router"
	case "tun":
		back = "router"
		inside.Tunnel, inside.Into, inside.From = c.Tunnel, c.rip(i), netip.MustParseAddr(dip4)
		if c.RealServers == ipv6 {
			inside.From = netip.MustParseAddr(dip6)
		}
	case "nat":
		inside.Dst = c.served(i, port)
	case "fullnat":
		inside.Src, inside.Dst = local, c.served(i, port)
	}
	at := func(p Sight, host, link string, sent bool, to string) Sight {
		p.Host, p.Link, p.Sent, p.To = host, link, sent, to
		return p
	}
	outside := Sight{Src: client, Dst: vip}
	answer := Sight{Src: inside.Dst, Dst: inside.Src}
	list := []Sight{
		at(outside, "client", "router", true, "router"),
		at(outside, "director", "router", false, "director"),
		at(inside, "director", "lan", true, rs),
		at(inside, rs, "lan", false, rs),
		at(answer, rs, "lan", true, back),
	}
	last := Sight{Src: vip, Dst: client}
	if back == "director" {
		list = append(list, at(answer, "director", "lan", false, "director"), at(last, "director", "router", true, "router"))
	}
	return append(list, at(last, "client", "router", false, "client"))
}

func clientAddr(a netip.Addr) bool {
	return a == netip.MustParseAddr("198.18.0.2") || a == netip.MustParseAddr("2001:db8:c::2")
}

func inPool(a netip.Addr) bool {
	return netip.MustParsePrefix(pool4).Contains(a) || netip.MustParsePrefix(pool6).Contains(a)
}

// diff says where what was seen is not what was promised.
func diff(want, seen []Sight) error {
	var errs []error
	for _, w := range want {
		if !slices.Contains(seen, w) {
			errs = append(errs, fmt.Errorf("not seen: %s %v", w.place(), w))
		}
	}
	for _, s := range seen {
		if !slices.Contains(want, s) {
			errs = append(errs, fmt.Errorf("seen, but wrong: %s %v", s.place(), s))
		}
	}
	return errors.Join(errs...)
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
