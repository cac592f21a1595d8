package bgp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// A message is one of a peer's, with its header (RFC 4271 section 4.1).
type message []byte

func (m message) kind() uint8  { return m[bgp.BGP_HEADER_LENGTH-1] }
func (m message) body() []byte { return m[bgp.BGP_HEADER_LENGTH:] }

// A refusal is what is wrong with a message of a peer, in words and as it is
// told to the peer.
type refusal struct {
	code, subcode uint8
	text          string
}

func (r *refusal) Error() string { return "malformed message from the peer: " + r.text }

// notification is the message that tells it.
func (r *refusal) notification() message { return notify(r.code, r.subcode) }

func notify(code, subcode uint8) message {
	return frame(bgp.BGP_MSG_NOTIFICATION, code, subcode)
}

func frame(kind uint8, body ...byte) message {
	m := make(message, bgp.BGP_HEADER_LENGTH, bgp.BGP_HEADER_LENGTH+len(body))
	for i := range bgp.BGP_HEADER_LENGTH - 3 {
		m[i] = 0xff
	}
	binary.BigEndian.PutUint16(m[bgp.BGP_HEADER_LENGTH-3:], uint16(bgp.BGP_HEADER_LENGTH+len(body)))
	m[bgp.BGP_HEADER_LENGTH-1] = kind
	return append(m, body...)
}

// minLength is of a whole message, by type; a type without one is none that
// GoBGP can read.
var minLength = map[uint8]int{
	bgp.BGP_MSG_OPEN: 29, bgp.BGP_MSG_UPDATE: 23, bgp.BGP_MSG_NOTIFICATION: 21, bgp.BGP_MSG_KEEPALIVE: 19, bgp.BGP_MSG_ROUTE_REFRESH: 23,
}

// readMessage reads the next message into buf, which holds the longest. The
// error is a refusal where the peer broke the protocol.
func readMessage(r io.Reader, buf []byte) (message, error) {
	if _, err := io.ReadFull(r, buf[:bgp.BGP_HEADER_LENGTH]); err != nil {
		return nil, err
	}
	for _, b := range buf[:bgp.BGP_HEADER_LENGTH-3] {
		if b != 0xff {
			return nil, &refusal{bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_SUB_CONNECTION_NOT_SYNCHRONIZED, "it does not begin as one"}
		}
	}
	length, kind := int(binary.BigEndian.Uint16(buf[bgp.BGP_HEADER_LENGTH-3:])), buf[bgp.BGP_HEADER_LENGTH-1]
	least, known := minLength[kind]
	switch {
	case !known:
		return nil, &refusal{bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_SUB_BAD_MESSAGE_TYPE, fmt.Sprintf("type %d", kind)}
	case length < least, length > bgp.BGP_MAX_MESSAGE_LENGTH, kind == bgp.BGP_MSG_KEEPALIVE && length != least:
		return nil, &refusal{bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_SUB_BAD_MESSAGE_LENGTH, fmt.Sprintf("length %d of type %d", length, kind)}
	}
	if _, err := io.ReadFull(r, buf[bgp.BGP_HEADER_LENGTH:length]); err != nil {
		return nil, err
	}
	return buf[:length], nil
}

// checkOpen holds an OPEN to what GoBGP can read. Should GoBGP's parser panic,
// it does so here, where that is only a refusal.
func checkOpen(m message) (err error) {
	refused := &refusal{code: bgp.BGP_ERROR_OPEN_MESSAGE_ERROR}
	defer func() {
		if p := recover(); p != nil {
			refused.text = "an OPEN that cannot be read"
			err = refused
		}
	}()
	h := &bgp.BGPHeader{Len: uint16(len(m)), Type: m.kind()}
	parsed, parseErr := bgp.ParseBGPBody(h, m.body())
	if parseErr == nil && parsed == nil {
		parseErr = errors.New("nothing in it")
	}
	if parseErr == nil {
		parseErr = bgp.ValidateBGPMessage(parsed)
	}
	if parseErr != nil {
		refused.text = "OPEN: " + parseErr.Error()
		return refused
	}
	return nil
}

// countPrefixes counts the prefixes that an UPDATE announces (RFC 4271 section
// 4.3, RFC 4760 section 3). Nothing else of it is of interest.
func countPrefixes(m message) (int, error) {
	broken := &refusal{bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_MALFORMED_ATTRIBUTE_LIST, "an UPDATE whose lengths do not fit"}
	withdrawn, rest, ok := cut(m.body(), 2)
	if !ok {
		return 0, broken
	}
	attributes, nlri, ok := cut(rest, 2)
	if !ok {
		return 0, broken
	}
	_, ok = prefixes(withdrawn)
	n, ok2 := prefixes(nlri)
	if !ok || !ok2 {
		return 0, broken
	}
	for len(attributes) > 0 {
		if len(attributes) < 3 {
			return 0, broken
		}
		kind, width := bgp.BGPAttrType(attributes[1]), 1
		if bgp.BGPAttrFlag(attributes[0])&bgp.BGP_ATTR_FLAG_EXTENDED_LENGTH != 0 {
			width = 2
		}
		var value []byte
		if value, attributes, ok = cut(attributes[2:], width); !ok {
			return 0, broken
		}
		if kind == bgp.BGP_ATTR_TYPE_MP_REACH_NLRI {
			reached, ok := reached(value)
			if !ok {
				return 0, broken
			}
			n += reached
		}
	}
	return n, nil
}

// cut takes a value off b that has its length, of width bytes, before it.
func cut(b []byte, width int) (value, rest []byte, ok bool) {
	if len(b) < width {
		return nil, nil, false
	}
	length := int(b[0])
	if width == 2 {
		length = int(binary.BigEndian.Uint16(b))
	}
	if len(b) < width+length {
		return nil, nil, false
	}
	return b[width : width+length], b[width+length:], true
}

// prefixes counts those of b: each is a length in bits and its bytes.
func prefixes(b []byte) (n int, ok bool) {
	for len(b) > 0 {
		size := 1 + (int(b[0])+7)/8
		if size > len(b) {
			return 0, false
		}
		b = b[size:]
		n++
	}
	return n, true
}

// reached counts the prefixes of MP_REACH_NLRI. Those of a family that we did
// not offer count as one.
func reached(b []byte) (n int, ok bool) {
	if len(b) < 5 {
		return 0, false
	}
	unicast := b[2] == bgp.SAFI_UNICAST
	_, rest, ok := cut(b[3:], 1)
	if !ok || len(rest) < 1 {
		return 0, false
	}
	if !unicast {
		return 1, true
	}
	return prefixes(rest[1:])
}

// isRefresh says whether a ROUTE-REFRESH asks for a family that we have (RFC
// 2918).
func isRefresh(m message) bool {
	b := m.body()
	afi := binary.BigEndian.Uint16(b)
	return len(b) == 4 && (afi == bgp.AFI_IP || afi == bgp.AFI_IP6) && b[2] == 0 && b[3] == bgp.SAFI_UNICAST
}

// farewell is what a NOTIFICATION says.
func farewell(m message) string {
	b := m.body()
	why := bgp.NewNotificationErrorCode(b[0], b[1]).String()
	if b[0] == bgp.BGP_ERROR_CEASE && len(b) > 3 && int(b[2]) <= len(b)-3 { // RFC 9003
		why += fmt.Sprintf(" (%q)", b[3:3+int(b[2])])
	}
	return why
}
