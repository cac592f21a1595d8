package packet

import "encoding/binary"

// setErrorEndpoints translates an ICMP error: the outer addresses as those of
// any packet of its direction, and the embedded packet, which travelled the
// other way, by the mirror image. The embedded IPv4 header checksum is computed
// anew, so a wrong one is right then; the embedded transport checksum stays, as
// IPVS leaves both.
func (p *Packet) setErrorEndpoints(src, dst *Endpoint) Reason {
	if p.transportSum() != 0xffff {
		return BadICMP
	}
	b := p.buf[p.start:p.end]
	p.setAddrs(src, dst)
	e := b[p.inner.off:]
	if p.family == IPv4 {
		setAddrs4(e, dst, src)
		sumHeader4(e[:p.inner.l4-p.inner.off])
	} else {
		setAddrs6(e, dst, src)
	}
	if p.inner.hasPorts() {
		setPorts(b[p.inner.l4:], dst, src)
	}
	p.sumICMP()
	return OK
}

// sumICMP computes the checksum of an ICMP packet.
func (p *Packet) sumICMP() {
	t := p.buf[p.start+p.l4 : p.end]
	binary.BigEndian.PutUint16(t[icmpChecksum:], 0)
	binary.BigEndian.PutUint16(t[icmpChecksum:], ^p.transportSum())
}
