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
// spec, and the time where an address that the sender gave isOurs. bad is the
// offset that a parameter problem points to.
func fillOptions(b []byte, spec netip.Addr, isOurs func(netip.Addr) bool, now time.Duration) (v optionVerdict, bad int) {
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
				if o[3]&15 != 3 {
					if o[3]>>4 == 15 {
						return optionsBad, i + 3
					}
					o[3] += 0x10
					changed = true
				}
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
				} else if !isOurs(netip.AddrFrom4([4]byte(o[at : at+4]))) {
					break
				}
				binary.BigEndian.PutUint32(o[at+4:], stamp)
				o[2] += 8
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

// echoOptions are the options of the answer from src to a packet whose options
// o were filled (__ip_options_echo, ip_options_build): what was recorded goes
// back, with one record more if there is room.
func echoOptions(o []byte, src netip.Addr, now time.Duration) (back []byte) {
	var record, stamp []byte
	for i := 0; i < len(o) && o[i] != optEnd; {
		if o[i] == optNop {
			i++
			continue
		}
		if i+1 >= len(o) || o[i+1] < 2 || i+int(o[i+1]) > len(o) {
			break // not understood: from here on nothing goes back
		}
		switch whole := o[i : i+int(o[i+1])]; {
		case o[i] == optRecord && len(whole) >= 3:
			record = append([]byte(nil), whole...)
		case o[i] == optTimestamp && len(whole) >= 4:
			stamp = append([]byte(nil), whole...)
		}
		i += int(o[i+1])
	}
	if at := room(record, 4); at > 0 {
		copy(record[at:], src.AsSlice())
		record[2] += 4
	}
	if stamp != nil {
		size := 4
		if stamp[3]&15 == 1 {
			size = 8
		}
		if at := room(stamp, size); at > 0 && stamp[3]&15 <= 1 {
			if size == 8 {
				copy(stamp[at:], src.AsSlice())
				at += 4
			}
			binary.BigEndian.PutUint32(stamp[at:], uint32(now/time.Millisecond)%86400000)
			stamp[2] += byte(size)
		}
	}
	back = append(record, stamp...)
	for len(back)%4 != 0 {
		back = append(back, optEnd)
	}
	return back
}

// room is where the next record of so many bytes goes in an option, 0: it is
// full.
func room(o []byte, size int) int {
	if len(o) < 3 || o[2] < 4 || int(o[2])-1+size > len(o) {
		return 0
	}
	return int(o[2]) - 1
}
