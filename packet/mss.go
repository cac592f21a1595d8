package packet

import "encoding/binary"

// ClampMSS lowers the MSS option (RFC 9293 section 3.7.1) of a SYN to mss bytes
// where it is more, and says whether it did. It is for segments with SYN and
// leaves others alone, as it does options that are cut short and a segment
// that has no such option.
func (p *Packet) ClampMSS(mss uint16) bool {
	const end, nop, kindMSS, lenMSS = 0, 1, 2, 4
	if p.TCPFlags()&SYN == 0 {
		return false
	}
	t := p.buf[p.start+p.l4 : p.end]
	for at, head := tcpHeaderLen, tcpDataOffset(t); at < head && t[at] != end; {
		if t[at] == nop {
			at++
			continue
		}
		if at+1 >= head || t[at+1] < 2 || at+int(t[at+1]) > head {
			return false
		}
		if t[at] != kindMSS || t[at+1] != lenMSS {
			at += int(t[at+1])
			continue
		}
		if binary.BigEndian.Uint16(t[at+2:]) <= mss {
			return false
		}
		p.setWord(t, at+2, mss)
		return true
	}
	return false
}

// setWord stores a word at any place of the TCP segment t, and amends its
// checksum. One that is left to the hardware covers the word when it is
// completed.
func (p *Packet) setWord(t []byte, at int, to uint16) {
	around := t[at&^1 : (at+3)&^1] // whole words as the checksum counts them
	var delta uint64
	for i := 0; i < len(around); i += 2 {
		delta += uint64(^binary.BigEndian.Uint16(around[i:]))
	}
	binary.BigEndian.PutUint16(t[at:], to)
	for i := 0; i < len(around); i += 2 {
		delta += uint64(binary.BigEndian.Uint16(around[i:]))
	}
	if p.VNet.Flags&VNetNeedsCsum == 0 {
		amend(t[tcpChecksum:], delta)
	}
}
