package host

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/stack"
)

// An announcement tells the hosts on a link where an address is now: a
// gratuitous ARP request, or an unsolicited neighbour advertisement.
type announcement struct {
	proxy
	mac stack.MAC
}

// tellTimes is how often an announcement is sent, tellGap apart: frames get
// lost, and switches that have just seen a link come up take a moment.
const (
	tellTimes = 3
	tellGap   = time.Second
)

// An announcer sends announcements without keeping its caller waiting.
type announcer struct {
	log *slog.Logger
	in  chan []announcement
}

func newAnnouncer(log *slog.Logger) *announcer {
	return &announcer{log: log, in: make(chan []announcement, 16)}
}

// announce hands over what is to be told. Where the announcer is behind, the
// news are left to ARP and neighbour discovery, which answer for them too.
func (a *announcer) announce(news []announcement) {
	select {
	case a.in <- news:
	default:
	}
}

// run sends until ctx ends.
func (a *announcer) run(ctx context.Context, send func(announcement) error) {
	type round struct {
		news  []announcement
		times int
	}
	var rounds []round
	timer := time.NewTimer(tellGap)
	timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case news := <-a.in:
			a.send(news, send)
			if len(rounds) == 0 {
				timer.Reset(tellGap)
			}
			rounds = append(rounds, round{news, 1})
		case <-timer.C:
			kept := rounds[:0]
			for _, r := range rounds {
				a.send(r.news, send)
				if r.times++; r.times < tellTimes {
					kept = append(kept, r)
				}
			}
			if rounds = kept; len(rounds) > 0 {
				timer.Reset(tellGap)
			}
		}
	}
}

func (a *announcer) send(news []announcement, send func(announcement) error) {
	for _, n := range news {
		if err := send(n); err != nil {
			a.log.Warn("cannot announce an address on the LAN", "address", n.addr, "error", err)
			return
		}
	}
}

// frameSender opens a packet socket that receives nothing.
func frameSender() (send func(announcement) error, closeSocket func(), err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	send = func(n announcement) error {
		return unix.Sendto(fd, n.frame(), 0, &unix.SockaddrLinklayer{Ifindex: n.link})
	}
	return send, func() { unix.Close(fd) }, nil
}

func (n announcement) frame() []byte {
	if n.addr.Is4() {
		return n.gratuitousARP()
	}
	return n.unsolicitedNA()
}

// gratuitousARP is an ARP request whose sender and target are the address
// (RFC 5227 3: an ARP Announcement).
func (n announcement) gratuitousARP() []byte {
	f := ethernet(stack.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, n.mac, unix.ETH_P_ARP)
	f = append(f, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, their lengths, request
	f = append(append(f, n.mac[:]...), n.addr.AsSlice()...)
	return append(append(f, make([]byte, 6)...), n.addr.AsSlice()...)
}

// unsolicitedNA is a neighbour advertisement to all nodes that overrides what
// they know (RFC 4861 7.2.6).
func (n announcement) unsolicitedNA() []byte {
	const allNodes = "ff02::1"
	dst := netip.MustParseAddr(allNodes)
	na := []byte{136, 0, 0, 0, 0x20, 0, 0, 0} // type, code, checksum, override
	na = append(na, n.addr.AsSlice()...)
	na = append(append(na, 2, 1), n.mac[:]...) // option: target link-layer address

	f := ethernet(stack.MAC{0x33, 0x33, 0, 0, 0, 1}, n.mac, unix.ETH_P_IPV6)
	f = append(f, 0x60, 0, 0, 0, 0, byte(len(na)), packet.ICMPv6, 255)
	f = append(append(f, n.addr.AsSlice()...), dst.AsSlice()...)
	pseudo := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, tcpip.AddrFrom16(n.addr.As16()), tcpip.AddrFrom16(dst.As16()), uint16(len(na)))
	binary.BigEndian.PutUint16(na[2:], ^checksum.Checksum(na, pseudo))
	return append(f, na...)
}

func ethernet(dst, src stack.MAC, kind uint16) []byte {
	return append(append(append(make([]byte, 0, 96), dst[:]...), src[:]...), byte(kind>>8), byte(kind))
}
