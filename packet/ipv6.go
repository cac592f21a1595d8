package packet

import "encoding/binary"

// maxExtensions is how many IPv6 extension headers are walked. Real packets
// have at most three or four; the cap bounds what a hostile one can cost.
const maxExtensions = 8

// Protocol numbers of the IPv6 extension headers.
const (
	extHopByHop    = 0
	extRouting     = 43
	extFragment    = 44
	extAuth        = 51
	extDestination = 60
)

// headers6 is what walk6 found.
type headers6 struct {
	l4    int   // offset of what follows the extension headers
	proto uint8 // of what follows
	only6 bool  // they say what IPv4 has no words for
	frag  Fragment
	part  int // offset of what follows the fragment header, if frag is one
}

// walk6 walks over the extension headers of the IPv6 packet b, which has at
// least 40 bytes and may be cut short behind them. It stops at the first
// header that is no extension known to it, and behind the fragment header of a
// later fragment, whose payload is no header.
func walk6(b []byte) (h headers6, why Reason) {
	h.proto, h.l4 = b[6], 40
	for n := 0; ; n++ {
		var size int
		switch h.proto {
		case extHopByHop, extDestination, extRouting, extAuth, extFragment:
			if n == maxExtensions {
				return h, TooManyHeaders
			}
			if h.l4+8 > len(b) {
				return h, Truncated
			}
			size = 8 + 8*int(b[h.l4+1])
		default:
			return h, OK
		}
		// Behind a fragment header it is part of what was cut to pieces.
		h.only6 = h.only6 || h.frag.Is
		ext := b[h.l4:]
		switch h.proto {
		case extAuth:
			size = 8 + 4*int(ext[1])
			h.only6 = true
		case extFragment:
			size = 8
			off := binary.BigEndian.Uint16(ext[2:4])
			if off&^6 == 0 {
				break // atomic (RFC 6946): a whole packet
			}
			if h.frag.Is {
				return h, BadHeader // a fragment of a fragment
			}
			h.frag = Fragment{ID: binary.BigEndian.Uint32(ext[4:8]), Offset: off &^ 7, More: off&1 != 0, Is: true}
			h.part = h.l4 + size
		case extRouting:
			h.only6 = h.only6 || ext[3] != 0 // segments left
		}
		if size > len(ext) {
			return h, Truncated
		}
		h.proto, h.l4 = ext[0], h.l4+size
		if h.frag.Offset != 0 {
			return h, OK
		}
	}
}
