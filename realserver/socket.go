package realserver

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// The IP protocols of tunnels.
const (
	protoIPIP = 4
	protoIPv6 = 41
	protoGRE  = 47
)

// receiveBuffer is what the kernel may hold for a socket, in bytes: 20 ms of
// packets at 1.5 Gbit/s, as long as another process may keep us from the CPU.
const receiveBuffer = 4 << 20

// A socket receives the tunnel packets of one kind, IP protocol and outer
// family.
type socket struct {
	kind   packet.EncapKind
	proto  uint8 // IP protocol of the outer packet; 17 for GUE
	header bool  // the outer IP header comes along: raw IPv4 sockets give it
	file   *os.File
	conn   syscall.RawConn
}

// protocols are the outer IP protocols of each kind of tunnel.
var protocols = map[packet.EncapKind][]uint8{
	packet.IPIP: {protoIPIP, protoIPv6},
	packet.GRE:  {protoGRE},
	packet.GUE:  {packet.UDP},
}

// openSockets opens what receives tunnel packets of these kinds, over IPv4
// and, where the host has it, IPv6. gueSockets is how many share the port of
// GUE in each family.
func openSockets(kinds []packet.EncapKind, port uint16, gueSockets int) ([]*socket, error) {
	var sockets []*socket
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		err := func() error {
			for _, kind := range kinds {
				for _, proto := range protocols[kind] {
					for i := 0; i == 0 || kind == packet.GUE && i < gueSockets; i++ {
						s, err := openSocket(kind, family, proto, port)
						if err != nil {
							return err
						}
						sockets = append(sockets, s)
					}
				}
			}
			return nil
		}()
		if family == unix.AF_INET6 && errors.Is(err, unix.EAFNOSUPPORT) {
			break // a host without IPv6
		}
		if err != nil {
			for _, s := range sockets {
				err = errors.Join(err, s.Close())
			}
			return nil, err
		}
	}
	return sockets, nil
}

func openSocket(kind packet.EncapKind, family int, proto uint8, port uint16) (*socket, error) {
	typ, what := unix.SOCK_RAW, fmt.Sprintf("raw socket for IP protocol %d", proto)
	if kind == packet.GUE {
		typ, what = unix.SOCK_DGRAM, fmt.Sprintf("UDP port %d for GUE", port)
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, explainRaw(err))
	}
	if err := prepare(fd, kind, family, port); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	s := &socket{kind: kind, proto: proto, header: family == unix.AF_INET && typ == unix.SOCK_RAW, file: os.NewFile(uintptr(fd), what)}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", what, err), s.Close())
	}
	return s, nil
}

// prepare sets the options of the socket fd. The traffic class of each packet
// is asked for, as it carries the congestion mark.
func prepare(fd int, kind packet.EncapKind, family int, port uint16) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		// Without the capability for more, the most that the host allows.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return err
		}
	}
	level, class := unix.IPPROTO_IP, unix.IP_RECVTOS
	if family == unix.AF_INET6 {
		level, class = unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS
	}
	if err := unix.SetsockoptInt(fd, level, class, 1); err != nil || kind != packet.GUE {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return err
	}
	var addr unix.Sockaddr = &unix.SockaddrInet4{Port: int(port)}
	if family == unix.AF_INET6 {
		addr = &unix.SockaddrInet6{Port: int(port)}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
		// A director leaves the sum of the outer UDP header out, as the
		// kernel's IPVS does; the inner packet has its own (RFC 6936).
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, addr); err != nil {
		return fmt.Errorf("in use? ss -lunp sport = :%d: %w", port, err)
	}
	return nil
}

// Close wakes a receive that is under way.
func (s *socket) Close() error { return s.file.Close() }

func explainRaw(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("missing capability NET_RAW: run as root; in a container, start it with --cap-add NET_ADMIN --cap-add NET_RAW: %w", err)
	}
	return err
}
