package lb

import (
	"net/netip"
	"time"

	"github.com/uvs-project/uvs/packet"
)

// maxCallID is the longest Call-ID in bytes that tells a call
// (IP_VS_PEDATA_MAXLEN).
const maxCallID = 255

// sipCallID is the value of the first usable Call-ID header in a SIP message,
// or nil. As in IPVS (ip_vs_pe_sip.c, ct_sip_get_header) the header may have
// its compact name i (RFC 3261 section 7.3.3), lines may end by CR, LF or
// both, a value may stand on a continuation line, and a message that ends
// within the line has none. The first line is never a header.
func sipCallID(msg []byte) []byte {
	for {
		var rest []byte
		if rest = nextLine(msg); rest == nil {
			return nil
		}
		msg = rest
		value, ok := cutCallIDName(msg)
		if !ok {
			continue
		}
		if value = skipLWS(value); len(value) == 0 || value[0] != ':' {
			return nil
		}
		if value = skipLWS(value[1:]); len(value) == 0 {
			return nil
		}
		n := callIDLen(value)
		switch {
		case n == 0:
			msg = value
		case n > maxCallID || n == len(value) || value[n] != '\r' && value[n] != '\n':
			return nil
		default:
			return value[:n]
		}
	}
}

// nextLine is what follows the next end of a line, nil where nothing does.
func nextLine(b []byte) []byte {
	for i, c := range b {
		if c != '\r' && c != '\n' {
			continue
		}
		if i++; c == '\r' && i < len(b) && b[i] == '\n' {
			i++
		}
		if i >= len(b) {
			return nil
		}
		return b[i:]
	}
	return nil
}

// cutCallIDName cuts the header's name off a line. The compact one must not be
// the beginning of another name.
func cutCallIDName(line []byte) (rest []byte, ok bool) {
	const name = "call-id"
	if len(line) >= len(name) && equalFold(line[:len(name)], name) {
		return line[len(name):], true
	}
	if len(line) >= 2 && line[0]|0x20 == 'i' && !isLetter(line[1]) {
		return line[1:], true
	}
	return nil, false
}

// equalFold compares b with lower, which is in lower case.
func equalFold(b []byte, lower string) bool {
	for i, c := range b {
		if isLetter(c) {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// isLetter says whether c is one of Latin-1, as for the kernel (lib/ctype.c).
func isLetter(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0xc0 && c != 0xd7 && c != 0xf7
}

// skipLWS skips blanks, and the end of a line that a blank follows: then the
// header goes on (RFC 3261 section 7.3.1). At the end of the header it is nil.
func skipLWS(b []byte) []byte {
	b = skipBlanks(b)
	if len(b) == 0 || b[0] != '\r' && b[0] != '\n' {
		return b
	}
	if b = nextLine(b); len(b) == 0 || !isBlank(b[0]) {
		return nil
	}
	return skipBlanks(b)
}

func skipBlanks(b []byte) []byte {
	for len(b) > 0 && isBlank(b[0]) {
		b = b[1:]
	}
	return b
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// callIDLen is the length of the callid at the start of b, word [ "@" word ]
// (RFC 3261 section 25.1), or 0.
func callIDLen(b []byte) int {
	n := wordLen(b)
	if n == 0 || n == len(b) || b[n] != '@' {
		return n
	}
	host := wordLen(b[n+1:])
	if host == 0 {
		return 0
	}
	return n + 1 + host
}

func wordLen(b []byte) int {
	for i, c := range b {
		if !wordChars[c] {
			return i
		}
	}
	return len(b)
}

// wordChars are the bytes that a word has.
var wordChars = func() (set [256]bool) {
	for c := range set {
		set[c] = isLetter(byte(c)) || c >= '0' && c <= '9'
	}
	for _, c := range "-.!%*_+`'~()<>:\\\"/[]?{}" {
		set[c] = true
	}
	return set
}()

// A caller is a real server of a service with SIP persistence, which sends
// requests to clients too (ip_vs_sip_conn_out). The client shall see them come
// from the VIP, and its answers shall reach the caller.
type caller struct {
	service *service
	server  *RealServer
	vip     packet.Endpoint
}

// callers are the callers of all services, by their address and port.
type callers map[packet.Endpoint]caller

// calls says whether the real servers of s may call.
func (s *service) calls() bool { return s.persistent != nil && s.persistent.Engine == SIPEngine }

// findCallers brings the callers up to date with the services.
func (s *snapshot) findCallers() {
	all := callers{}
	for _, p := range s.services {
		if svc := p.Load(); svc.calls() {
			all.add(svc)
		}
	}
	if len(all) == 0 {
		s.callers.Store(nil)
		return
	}
	s.callers.Store(&all)
}

func (c callers) add(s *service) {
	for _, l := range s.listens {
		vip := packet.EndpointFrom(netip.AddrPortFrom(l.VIP, l.FirstPort))
		if l.Proto != packet.UDP || vip.Port == 0 {
			continue
		}
		for _, rs := range s.set {
			from := packet.Endpoint{Addr: rs.Endpoint.Addr, Port: rs.DestinationPort(vip.Port), Family: rs.Endpoint.Family}
			if _, taken := c[from]; !taken && !rs.oneSided && from.Family == vip.Family {
				c[from] = caller{s, rs, vip}
			}
		}
	}
}

// call opens a flow for a packet that a real server sends by itself and that
// no flow has; false: it is no call.
func (q *Queue) call(s *snapshot, p *packet.Packet, now time.Duration) (packet.Verdict, packet.Reason, bool) {
	t := &p.Tuple
	all := s.callers.Load()
	if all == nil || t.Proto != packet.UDP || p.IsICMPError() || p.Fragment().Offset > 0 {
		return 0, 0, false
	}
	c, ok := (*all)[packet.Endpoint{Addr: t.Src, Port: t.SrcPort, Family: t.Family}]
	if !ok {
		return 0, 0, false
	}
	f := &q.flow
	*f = Flow{
		Tuple: packet.Tuple{
			Src: t.Dst, SrcPort: t.DstPort,
			Dst: c.vip.Addr, DstPort: c.vip.Port,
			Proto: t.Proto, Family: t.Family,
		},
		Server: c.server,
		State:  UDPNormal,
	}
	if replies, _ := c.server.Mode.ReplyTuple(*f); replies != *t {
		return 0, 0, false // the mode's replies go elsewhere
	}
	key, ok := c.service.persistent.identify(p, &t.Dst)
	if !ok {
		return 0, 0, false
	}
	table, tick := q.b.table, tickOf(now)
	hash := key.Hash(table.seed)
	chosen, ok := table.useTemplate(c.service, &key, hash, tick, c.server)
	if !ok {
		if !c.server.acquire() {
			return 0, 0, false
		}
		var why packet.Reason
		if chosen, why = table.addTemplate(c.service, &key, hash, c.server, tick); why != packet.OK {
			return packet.Drop, why, true
		}
	}
	if !chosen.server.Same(c.server) { // the client was given another one a moment ago
		table.unchoose(chosen)
		return 0, 0, false
	}
	table.assure(chosen.template)
	if c.service.policy.OnePacket {
		table.unchoose(chosen)
	} else {
		hash := f.Tuple.Hash(table.seed)
		table.yield(&f.Tuple, hash, c.server)
		if why := table.insert(f, chosen.template, 0, hash, tick); why != packet.OK {
			return packet.Drop, why, true
		}
	}
	f.Server.traffic[q.index].count(p, Reply)
	v, why := q.forward(p, f, Reply, now)
	return v, why, true
}
