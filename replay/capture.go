package replay

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/uvs-project/uvs/lb"
)

// ReadCapture reads a pcap or pcapng file as a vector that injects its IP
// packets at their times. Frames of other protocols are left out.
func ReadCapture(name string) (*Vector, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	v, err := readCapture(bufio.NewReader(f))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	v.Name = filepath.Base(name)
	return v, nil
}

// A source gives the packets of a capture.
type source interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	LinkType() layers.LinkType
}

func readCapture(r *bufio.Reader) (*Vector, error) {
	magic, err := r.Peek(4)
	if err != nil {
		return nil, errors.New("neither pcap nor pcapng: too short")
	}
	var s source
	if binary.BigEndian.Uint32(magic) == 0x0a0d0d0a {
		s, err = pcapgo.NewNgReader(r, pcapgo.DefaultNgReaderOptions)
	} else {
		s, err = pcapgo.NewReader(r)
	}
	if err != nil {
		return nil, fmt.Errorf("neither pcap nor pcapng: %w", err)
	}
	v := &Vector{StableMasked: true}
	var last time.Time
	at := time.Duration(0)
	for n := 1; ; n++ {
		frame, info, err := s.ReadPacketData()
		if errors.Is(err, io.EOF) && len(v.Steps) == 0 {
			return nil, errors.New("there is no IP packet in it")
		}
		if errors.Is(err, io.EOF) {
			return v, nil
		}
		if err != nil {
			return nil, fmt.Errorf("packet %d: %w", n, err)
		}
		b, err := packetOf(frame, s.LinkType())
		if err != nil {
			return nil, err
		}
		if b == nil {
			continue
		}
		if info.CaptureLength < info.Length {
			return nil, fmt.Errorf("packet %d: only %d of its %d bytes were captured: capture whole packets, with tcpdump by -s 0", n, info.CaptureLength, info.Length)
		}
		if !last.IsZero() {
			at += min(max(0, info.Timestamp.Sub(last)), longestGap)
		}
		last = info.Timestamp
		v.Steps = append(v.Steps, Step{Op: "inject", Leg: openLeg, Pkt: b, At: at.Milliseconds()})
	}
}

// longestGap is longer than anything that a director remembers. A capture whose
// clock was set meanwhile would take hours otherwise.
const longestGap = 32 * 24 * time.Hour

// Link types that gopacket has no name for.
const linkSLL2 = 276

// packetOf is the IP packet of a frame, nil if it has none.
func packetOf(frame []byte, link layers.LinkType) ([]byte, error) {
	ether, at := -1, 0
	switch link {
	case layers.LinkTypeRaw, layers.LinkTypeIPv4, layers.LinkTypeIPv6, 12, 14:
	case layers.LinkTypeEthernet:
		ether, at = 12, 14
	case layers.LinkTypeLinuxSLL:
		ether, at = 14, 16
	case linkSLL2:
		ether, at = 0, 20
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		at = 4
	default:
		return nil, fmt.Errorf("link type %v is not known: capture Ethernet, raw IP or Linux cooked", link)
	}
	if len(frame) < at {
		return nil, nil
	}
	if ether >= 0 {
		kind := binary.BigEndian.Uint16(frame[ether:])
		for ether == 12 && (kind == 0x8100 || kind == 0x88a8) && len(frame) >= at+4 { // VLAN tags
			kind = binary.BigEndian.Uint16(frame[at+2:])
			at += 4
		}
		if kind != 0x0800 && kind != 0x86dd {
			return nil, nil
		}
	}
	if b := frame[at:]; len(b) > 0 && (b[0]>>4 == 4 || b[0]>>4 == 6) {
		return slices.Clone(b), nil
	}
	return nil, nil
}

// openLeg is the only leg of an open network.
const openLeg = "wire"

// NewOpen makes a Director of c in a network of which nothing is known: every
// address is a neighbour on one leg with an MTU of 1500 bytes, but those of
// locals, which are the Director's. It knows no ipvsadm.
func NewOpen(c lb.Config, locals []netip.Addr) (*Director, error) {
	t := Topology{
		Legs:   []Leg{{Name: openLeg, MTU: 1500}},
		Routes: []string{"default dev " + openLeg, "::/0 dev " + openLeg},
		Sysctl: []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"},
	}
	for _, a := range locals {
		t.LocalAddrs = append(t.LocalAddrs, netip.PrefixFrom(a, a.BitLen()).String())
	}
	d, err := New(&t)
	if err != nil {
		return nil, err
	}
	d.host.net.legs[openLeg].open = true
	if err := d.balancer.Apply(c); err != nil {
		d.Close()
		return nil, err
	}
	for _, s := range c.Services {
		for _, rs := range s.RealServers {
			d.fits(rs.Address.Addr())
		}
	}
	return d, nil
}

// PlaySteps tells the Director the steps of a vector and returns the vector as
// it was played.
func (d *Director) PlaySteps(f *File, v *Vector) (*Vector, error) {
	played := *v
	played.Steps = make([]Step, len(v.Steps))
	for i := range v.Steps {
		if err := d.step(f, &v.Steps[i], &played.Steps[i]); err != nil {
			return nil, fmt.Errorf("step %d: %w", i, err)
		}
	}
	return &played, nil
}

// WriteCapture writes what left in played vectors as pcapng of raw IP, by
// whatever leg. Each vector begins a second after the end of the one before.
func WriteCapture(w io.Writer, vectors []*Vector) error {
	out, err := pcapgo.NewNgWriterInterface(w,
		pcapgo.NgInterface{Name: "uvs", LinkType: layers.LinkTypeRaw, TimestampResolution: 9},
		pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "uvs replay"}})
	if err != nil {
		return err
	}
	var start time.Duration
	for _, v := range vectors {
		var end time.Duration
		for _, s := range v.Steps {
			end = time.Duration(s.At+s.Ms) * time.Millisecond
			at := time.Unix(0, 0).Add(start + end)
			for _, f := range s.Out {
				info := gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(f.Pkt), Length: len(f.Pkt)}
				if err := out.WritePacket(info, f.Pkt); err != nil {
					return err
				}
			}
		}
		start += end + time.Second
	}
	return out.Flush()
}

// IsCapture says whether a file is a capture by its name.
func IsCapture(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return ext == ".pcap" || ext == ".pcapng" || ext == ".cap"
}
