package bfd

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An eventFD wakes a thread that waits in ppoll.
type eventFD struct{ fd int }

func newEventFD() (*eventFD, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &eventFD{fd}, nil
}

func (e *eventFD) signal() error {
	_, err := unix.Write(e.fd, binary.NativeEndian.AppendUint64(nil, 1))
	return err
}

// drain takes back what signal wrote; nothing to take back is no error.
func (e *eventFD) drain() {
	var b [8]byte
	_, _ = unix.Read(e.fd, b[:])
}

func (e *eventFD) close() { unix.Close(e.fd) }

// A listener takes the packets of all sessions of a family and kind.
type listener struct {
	fd       int
	v6       bool
	multihop bool
	buf      []byte
	oob      []byte
	msg      unix.Msghdr
	iov      unix.Iovec
	name     unix.RawSockaddrInet6 // large enough for both families
}

// maxPacket is more than any control packet, so that a longer one is seen to
// be longer.
const maxPacket = 512

func openListener(on netip.Addr, v6, multihop bool, port int) (*listener, error) {
	domain, options := unix.AF_INET, [][3]int{
		{unix.IPPROTO_IP, unix.IP_RECVTTL, 1}, {unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
	}
	if v6 {
		domain, options = unix.AF_INET6, [][3]int{
			{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1}, {unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1}, {unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
		}
	}
	fd, err := openSocket(domain, options)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, sockaddr(on, 0, port, v6)); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("UDP port %d is in use: does another program on this host speak BFD (BIRD, FRR's bfdd)? ss -ulpn sport = %d shows it", port, port)
		}
		return nil, fmt.Errorf("UDP port %d: %w", port, err)
	}
	l := &listener{fd: fd, v6: v6, multihop: multihop, buf: make([]byte, maxPacket), oob: make([]byte, 256)}
	l.iov.Base = &l.buf[0]
	l.iov.SetLen(len(l.buf))
	l.msg.Name = (*byte)(unsafe.Pointer(&l.name))
	l.msg.Iov = &l.iov
	l.msg.SetIovlen(1)
	l.msg.Control = &l.oob[0]
	return l, nil
}

func openSocket(domain int, options [][3]int) (int, error) {
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, fmt.Errorf("UDP socket: %w", err)
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("UDP socket: option %d: %w", o[1], err)
		}
	}
	return fd, nil
}

// receive reads one packet into buf: n is its length, negative when there is
// none. A packet without its TTL has the TTL 0.
func (l *listener) receive() (from netip.Addr, ttl, ifindex, n int) {
	l.msg.Namelen = uint32(unsafe.Sizeof(l.name))
	l.msg.SetControllen(len(l.oob))
	r, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(l.fd), uintptr(unsafe.Pointer(&l.msg)), 0)
	if errno != 0 {
		return netip.Addr{}, 0, 0, -1
	}
	if l.v6 {
		from = netip.AddrFrom16(l.name.Addr)
	} else {
		from = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&l.name)).Addr)
	}
	ttl, ifindex = ancillary(l.oob[:l.msg.Controllen])
	return from, ttl, ifindex, int(r)
}

// ancillary finds the TTL and the interface among the control messages.
func ancillary(oob []byte) (ttl, ifindex int) {
	for len(oob) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr || size > len(oob) {
			return ttl, ifindex
		}
		data := oob[unix.CmsgLen(0):size]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TTL && len(data) >= 4,
			h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_HOPLIMIT && len(data) >= 4:
			ttl = int(binary.NativeEndian.Uint32(data))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			ifindex = int((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Ifindex)
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			ifindex = int((*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])).Ifindex)
		}
		oob = oob[min(len(oob), unix.CmsgSpace(size-unix.CmsgLen(0))):]
	}
	return ttl, ifindex
}

// The source ports of control packets (RFC 5881 section 4), one a session.
const (
	firstSource = 49152
	lastSource  = 65535
)

// openSender opens the socket that a session sends from.
func openSender(p Peer, zone int) (int, error) {
	domain, options := unix.AF_INET, [][3]int{{unix.IPPROTO_IP, unix.IP_TTL, maxTTL}, {unix.IPPROTO_IP, unix.IP_TOS, dscpCS6}}
	if p.Address.Is6() {
		domain, options = unix.AF_INET6, [][3]int{
			{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1}, {unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, maxTTL}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS, dscpCS6},
		}
	}
	fd, err := openSocket(domain, options)
	if err != nil {
		return -1, err
	}
	const attempts = 64
	for range attempts {
		var b [2]byte
		if _, err = rand.Read(b[:]); err != nil {
			break
		}
		port := firstSource + int(binary.NativeEndian.Uint16(b[:]))%(lastSource-firstSource+1)
		if err = unix.Bind(fd, sockaddr(p.Local, zone, port, p.Address.Is6())); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("cannot send from %v: %w", p.Local, err)
	}
	return fd, nil
}

// dscpCS6 marks packets of network control, as routers mark theirs.
const dscpCS6 = 0xc0

// sockaddr is an address of the family, any where a is not valid.
func sockaddr(a netip.Addr, zone, port int, v6 bool) unix.Sockaddr {
	if !v6 {
		s := &unix.SockaddrInet4{Port: port}
		if a.IsValid() {
			s.Addr = a.As4()
		}
		return s
	}
	s := &unix.SockaddrInet6{Port: port}
	if a.IsValid() {
		s.Addr = a.As16()
	}
	if a.IsLinkLocalUnicast() {
		s.ZoneId = uint32(zone)
	}
	return s
}

// zoneIndex is the number of an interface, 0 for none.
func zoneIndex(zone string) (int, error) {
	if zone == "" {
		return 0, nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", zone, err)
	}
	return i.Index, nil
}
