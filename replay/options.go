package replay

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// IPv4 option types.
const (
	optEnd         = 0
	optNop         = 1
	optRecord      = 7
	optTimestamp   = 68
	optLoose       = 131
	optStrict      = 137
	optRouterAlert = 148
)

// optionVerdict is what becomes of a packet for its IPv4 options.
type optionVerdict uint8

const (
	optionsGood optionVerdict = iota
	optionsDrop               // silently
	optionsBad                // with a parameter problem
)

// fillOptions does what a router's IP layer does with the options of the packet
// b, in place (ip_options_compile): record route and timestamp get the address
// spec. bad is the offset that a parameter problem points to.
func fillOptions(b []byte, spec netip.Addr, now time.Duration) (v optionVerdict, bad int) {
	end := int(b[0]&15) * 4
	changed, routed := false, false
	seen := map[byte]bool{}
	for i := 20; i < end; {
		o := b[i:end]
		if o[0] == optEnd {
			for j := range o {
				if o[j] != optEnd {
					o[j], changed = optEnd, true
				}
			}
			break
		}
		if o[0] == optNop {
			i++
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return optionsBad, i
		}
		n := int(o[1])
		switch o[0] {
		case optLoose, optStrict:
			switch {
			case n < 3:
				return optionsBad, i + 1
			case o[2] < 4:
				return optionsBad, i + 2
			case routed:
				return optionsBad, i
			}
			routed = true
		case optRecord:
			switch {
			case seen[optRecord]:
				return optionsBad, i
			case n < 3:
				return optionsBad, i + 1
			case o[2] < 4:
				return optionsBad, i + 2
			case int(o[2]) <= n && int(o[2])+3 > n:
				return optionsBad, i + 2
			case int(o[2]) <= n:
				copy(o[o[2]-1:], spec.AsSlice())
				o[2] += 4
				changed = true
			}
			seen[optRecord] = true
		case optTimestamp:
			switch {
			case seen[optTimestamp]:
				return optionsBad, i
			case n < 4:
				return optionsBad, i + 1
			case o[2] < 5:
				return optionsBad, i + 2
			}
			if int(o[2]) > n {
				if o[3]>>4 == 15 {
					return optionsBad, i + 3
				}
				o[3] += 0x10
				changed = true
				seen[optTimestamp] = true
				break
			}
			if int(o[2])+3 > n {
				return optionsBad, i + 2
			}
			at := int(o[2]) - 1
			stamp := uint32(now/time.Millisecond) % 86400000
			switch o[3] & 15 {
			case 0: // times only
				binary.BigEndian.PutUint32(o[at:], stamp)
				o[2] += 4
			case 1, 3: // addresses and times; addresses that the sender gave
				if int(o[2])+7 > n {
					return optionsBad, i + 2
				}
				if o[3]&15 == 1 {
					copy(o[at:], spec.AsSlice())
				} else if netip.AddrFrom4([4]byte(o[at:at+4])) != spec {
					break
				}
				binary.BigEndian.PutUint32(o[at+4:], stamp)
				o[2] += 8
			default:
				return optionsBad, i + 3
			}
			changed = true
			seen[optTimestamp] = true
		case optRouterAlert:
			if n < 4 {
				return optionsBad, i + 1
			}
		}
		i += n
	}
	if changed {
		sumHeader4(b)
	}
	if routed {
		return optionsDrop, 0
	}
	return optionsGood, 0
}

// echoOptions are the options of the answer to a packet with the options o
// (__ip_options_echo): what was recorded goes back.
func echoOptions(o []byte) (back []byte) {
	for i := 0; i < len(o) && o[i] != optEnd; {
		if o[i] == optNop {
			i++
			continue
		}
		if i+1 >= len(o) || o[i+1] < 2 || i+int(o[i+1]) > len(o) {
			return nil // not understood: no option goes back
		}
		n := int(o[i+1])
		if o[i] == optRecord || o[i] == optTimestamp {
			back = append(back, o[i:i+n]...)
		}
		i += n
	}
	for len(back)%4 != 0 {
		back = append(back, optEnd)
	}
	return back
}
