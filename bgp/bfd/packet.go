package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A packet is a BFD Control packet without authentication (RFC 5880 section
// 4.1). Intervals have the resolution of a microsecond.
type packet struct {
	diag       Diag
	state      State
	poll       bool
	final      bool
	multiplier uint8
	mine       uint32 // the sender's discriminator, never 0
	yours      uint32 // the receiver's, 0 while unknown

	desiredMinTx  time.Duration
	requiredMinRx time.Duration
}

const (
	version      = 1
	packetLen    = 24
	flagPoll     = 0x20
	flagFinal    = 0x10
	flagAuth     = 0x04
	flagDemand   = 0x02
	flagMultiple = 0x01
)

var errShort = errors.New("shorter than a control packet")

// parsePacket reads b and holds it to those rules of RFC 5880 section 6.8.6
// that need no session.
func parsePacket(b []byte) (packet, error) {
	if len(b) < packetLen {
		return packet{}, errShort
	}
	p := packet{
		diag:          Diag(b[0] & 0x1f),
		state:         State(b[1] >> 6),
		poll:          b[1]&flagPoll != 0,
		final:         b[1]&flagFinal != 0,
		multiplier:    b[2],
		mine:          binary.BigEndian.Uint32(b[4:]),
		yours:         binary.BigEndian.Uint32(b[8:]),
		desiredMinTx:  microseconds(b[12:]),
		requiredMinRx: microseconds(b[16:]),
	}
	switch {
	case b[0]>>5 != version:
		return packet{}, fmt.Errorf("version %d", b[0]>>5)
	case int(b[3]) < packetLen || int(b[3]) > len(b):
		return packet{}, fmt.Errorf("length %d of %d", b[3], len(b))
	case b[1]&flagAuth != 0:
		return packet{}, errors.New("authenticated, and no key is configured")
	case b[1]&flagMultiple != 0:
		return packet{}, errors.New("reserved bit set")
	case p.multiplier == 0:
		return packet{}, errors.New("detection multiplier 0")
	case p.mine == 0:
		return packet{}, errors.New("discriminator 0")
	case p.yours == 0 && p.state != Down && p.state != AdminDown:
		return packet{}, fmt.Errorf("%v without our discriminator", p.state)
	}
	return p, nil
}

func microseconds(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}

// append adds the packet to b. We send no echo packets and know no demand
// mode, so both fields are zero.
func (p *packet) append(b []byte) []byte {
	flags := byte(p.state) << 6
	if p.poll {
		flags |= flagPoll
	}
	if p.final {
		flags |= flagFinal
	}
	b = append(b, version<<5|byte(p.diag), flags, p.multiplier, packetLen)
	b = binary.BigEndian.AppendUint32(b, p.mine)
	b = binary.BigEndian.AppendUint32(b, p.yours)
	b = binary.BigEndian.AppendUint32(b, uint32(p.desiredMinTx/time.Microsecond))
	b = binary.BigEndian.AppendUint32(b, uint32(p.requiredMinRx/time.Microsecond))
	return binary.BigEndian.AppendUint32(b, 0) // required min echo rx: none wanted
}
