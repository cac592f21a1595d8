package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/uvs-project/uvs/packet"
)

// learnedFor is how long a path MTU that a router has told is believed, as
// long as the kernel does (net.ipv4.route.mtu_expires).
const learnedFor = 10 * time.Minute

// The least path MTUs, in bytes, that a router is believed: what the kernel
// believes (net.ipv4.route.min_pmtu), and what every IPv6 link carries.
const (
	minPathMTU4 = 552
	minPathMTU6 = 1280
)

// pathErrors learns from ICMP errors what the way to a real server carries, and
// hands on all errors about packets to real servers.
//
// The packets of a tunnel go out from an address of the host, so a router that
// cannot forward one tells the host and not uvs, and the kernel, which knows
// no such tunnel, does not take it in. Two raw sockets get a copy.
type pathErrors struct {
	changed func()                       // called after an answer of mtu may have changed
	tell    atomic.Pointer[func([]byte)] // see Host.OnTunnelError; nil: nobody
	readers sync.WaitGroup
	sockets []net.PacketConn

	mu     sync.Mutex
	paths  map[netip.Addr]*learnedMTU // guarded by mu; only of addresses that mtu was asked for
	closed bool                       // guarded by mu
}

// A learnedMTU is what routers said of one path.
type learnedMTU struct {
	mtu   int // bytes; 0: nothing, or no longer
	timer *time.Timer
}

// newPathErrors opens the sockets, of those families that the host has, and
// reads them until close.
func newPathErrors(changed func()) (*pathErrors, error) {
	p := &pathErrors{changed: changed, paths: map[netip.Addr]*learnedMTU{}}
	for _, f := range []struct {
		network, address string
		filter           func(fd int) error
		parse            func([]byte) (netip.Addr, int, bool)
	}{
		{"ip4:icmp", "0.0.0.0", onlyErrors4, parseFragmentationNeeded},
		{"ip6:ipv6-icmp", "::", onlyErrors6, parsePacketTooBig},
	} {
		s, err := net.ListenPacket(f.network, f.address)
		if noFamily(err) {
			continue
		}
		if err == nil {
			p.sockets = append(p.sockets, s)
			err = control(s, f.filter)
		}
		if err != nil {
			p.close()
			return nil, fmt.Errorf("raw socket for ICMP errors: %w", err)
		}
		p.readers.Go(func() { p.read(s, f.parse) })
	}
	return p, nil
}

func control(s net.PacketConn, f func(fd int) error) error {
	raw, err := s.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = f(int(fd)) }), err)
}

const destinationUnreachable, fragmentationNeeded, timeExceeded = 3, 4, 11

// onlyErrors4 keeps all other ICMP away from the socket. The filter of
// linux/icmp.h names what is not wanted.
func onlyErrors4(fd int) error {
	const icmpFilter = 1
	return unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1<<destinationUnreachable | 1<<timeExceeded))
}

const packetTooBig, lastError6 = 2, 4

func onlyErrors6(fd int) error {
	f := &unix.ICMPv6Filter{}
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[0] &^= 1<<(lastError6+1) - 2 // from 1 on
	return unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, f)
}

// read takes in errors until the socket is closed.
func (p *pathErrors) read(s net.PacketConn, parse func([]byte) (netip.Addr, int, bool)) {
	buf := make([]byte, 2048)
	for {
		n, from, err := s.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of one message only
		}
		if dst, mtu, ok := parse(buf[:n]); ok && p.learn(dst, mtu) {
			p.changed()
		}
		if f := p.tell.Load(); f != nil {
			if ip := p.whole(buf[:n], from); ip != nil {
				(*f)(ip)
			}
		}
	}
}

// whole makes the ICMP error b a packet again, if it is about one to an address
// that mtu was asked for. It was sent to whoever had sent that one.
func (p *pathErrors) whole(b []byte, from net.Addr) []byte {
	const head = 8
	a, ok := from.(*net.IPAddr)
	if !ok || len(b) < head+1 {
		return nil
	}
	source, _ := netip.AddrFromSlice(a.IP)
	source = source.Unmap()
	about := b[head:]
	var src, dst netip.Addr
	var ip []byte
	switch {
	case about[0]>>4 == packet.IPv4 && len(about) >= 20 && source.Is4():
		src, dst = netip.AddrFrom4([4]byte(about[12:16])), netip.AddrFrom4([4]byte(about[16:20]))
		ip = make([]byte, 20, 20+len(b))
		ip[0], ip[8], ip[9] = 0x45, 1, packet.ICMPv4
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(b)))
		copy(ip[12:16], source.AsSlice())
		copy(ip[16:20], src.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], ^checksum.Checksum(ip, 0))
	case about[0]>>4 == packet.IPv6 && len(about) >= 40 && source.Is6():
		src, dst = netip.AddrFrom16([16]byte(about[8:24])), netip.AddrFrom16([16]byte(about[24:40]))
		ip = make([]byte, 40, 40+len(b))
		ip[0], ip[6], ip[7] = 0x60, packet.ICMPv6, 1
		binary.BigEndian.PutUint16(ip[4:], uint16(len(b)))
		copy(ip[8:24], source.AsSlice())
		copy(ip[24:40], src.AsSlice())
	}
	if ip == nil || !p.asked(dst) {
		return nil
	}
	return append(ip, b...)
}

// asked says whether mtu was asked for the path to dst.
func (p *pathErrors) asked(dst netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paths[dst] != nil
}

// parseFragmentationNeeded reads an ICMP message (RFC 1191) without its IP
// header: where the packet that it is about went, and what fits the way there.
func parseFragmentationNeeded(b []byte) (dst netip.Addr, mtu int, ok bool) {
	const head, embedded = 8, 20
	if len(b) < head+embedded || b[0] != destinationUnreachable || b[1] != fragmentationNeeded || b[head]>>4 != packet.IPv4 ||
		checksum.Checksum(b, 0) != 0xffff { // the kernel gives it to the socket unchecked
		return netip.Addr{}, 0, false
	}
	return netip.AddrFrom4([4]byte(b[head+16:])), max(int(binary.BigEndian.Uint16(b[6:])), minPathMTU4), true
}

// parsePacketTooBig is the same for ICMPv6 (RFC 4443 3.2), whose checksum the
// kernel has verified.
func parsePacketTooBig(b []byte) (dst netip.Addr, mtu int, ok bool) {
	const head, embedded = 8, 40
	if len(b) < head+embedded || b[0] != packetTooBig || b[head]>>4 != packet.IPv6 {
		return netip.Addr{}, 0, false
	}
	told := min(binary.BigEndian.Uint32(b[4:]), maxMTU)
	return netip.AddrFrom16([16]byte(b[head+24:])), max(int(told), minPathMTU6), true
}

// learn notes that the path to dst carries no more than mtu bytes, and says
// whether that is news. What nobody asked for is not noted, so strangers cannot
// fill the memory.
func (p *pathErrors) learn(dst netip.Addr, mtu int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.paths[dst]
	if l == nil || p.closed || l.mtu != 0 && l.mtu <= mtu {
		return false
	}
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mtu = mtu
	l.timer = time.AfterFunc(learnedFor, func() { p.forget(dst) })
	return true
}

// forget lets larger packets try the path again.
func (p *pathErrors) forget(dst netip.Addr) {
	p.mu.Lock()
	p.paths[dst].mtu = 0
	closed := p.closed
	p.mu.Unlock()
	if !closed {
		p.changed()
	}
}

// mtu is what was learned of the path to dst, 0 where nothing was. From now on
// errors about it are taken in.
func (p *pathErrors) mtu(dst netip.Addr) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.paths[dst]
	if l == nil {
		l = &learnedMTU{}
		p.paths[dst] = l
	}
	return l.mtu
}

func (p *pathErrors) close() {
	for _, s := range p.sockets {
		s.Close()
	}
	p.readers.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, l := range p.paths {
		if l.timer != nil {
			l.timer.Stop()
		}
	}
}
