package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
)

// icmp sends an echo request and waits for its reply (RFC 792, RFC 4443). Its
// raw socket needs CAP_NET_RAW, as uvs itself does.
type icmp struct{}

// The types of the messages.
const (
	echoReply    = 0
	echoRequest  = 8
	echoRequest6 = 128
	echoReply6   = 129
)

func newICMP(*Options) (Check, error) { return icmp{}, nil }

func (icmp) Check(ctx context.Context, to Target) error {
	network, request, reply := "ip4:icmp", byte(echoRequest), byte(echoReply)
	if to.Addr.Addr().Is6() {
		network, request, reply = "ip6:ipv6-icmp", echoRequest6, echoReply6
	}
	conn, err := to.dial(ctx, network)
	if err != nil {
		return err
	}
	defer conn.Close()
	// What follows the first four bytes, the identifier, the sequence number
	// and the data, comes back as it was sent.
	echo := make([]byte, 16)
	echo[0] = request
	binary.BigEndian.PutUint32(echo[4:], rand.Uint32())
	binary.BigEndian.PutUint64(echo[8:], rand.Uint64())
	if to.Addr.Addr().Is4() { // of ICMPv6 the kernel does it
		binary.BigEndian.PutUint16(echo[2:], internetChecksum(echo))
	}
	if _, err := conn.Write(echo); err != nil {
		return err
	}
	return awaitReply(conn, reply, echo[4:])
}

// awaitReply reads until the reply with the given end comes: a raw socket
// gets every ICMP message of the real server, those of IPv4 with their header.
func awaitReply(conn net.Conn, kind byte, end []byte) error {
	buf := make([]byte, 1500)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return fmt.Errorf("no echo reply: %w", err)
		}
		message := buf[:n]
		if n > 0 && message[0]>>4 == 4 && kind == echoReply {
			message = message[min(n, int(message[0]&0xf)*4):]
		}
		if len(message) >= 4 && message[0] == kind && bytes.Equal(message[4:], end) {
			return nil
		}
	}
}

// internetChecksum is that of RFC 1071 over an even number of bytes.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	return ^uint16(sum)
}
