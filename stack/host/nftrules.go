package host

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/packet"
)

// A layout says where the fields of a family's headers stand. Offsets count
// from the IP header, those of an embedded packet from the ICMP header.
type layout struct {
	suffix   string // of set names
	nfproto  byte
	addrType nftables.SetDatatype
	addrLen  uint32
	src, dst uint32
	icmp     byte
	embProto uint32 // next header of the packet embedded in an ICMP error
	embDst   uint32
	embPort  uint32 // its destination port, where it has no options
}

var layouts = map[uint8]layout{
	packet.IPv4: {suffix: "4", nfproto: unix.NFPROTO_IPV4, addrType: nftables.TypeIPAddr, addrLen: 4, src: 12, dst: 16,
		icmp: packet.ICMPv4, embProto: 8 + 9, embDst: 8 + 16, embPort: 8 + 20 + 2},
	packet.IPv6: {suffix: "6", nfproto: unix.NFPROTO_IPV6, addrType: nftables.TypeIP6Addr, addrLen: 16, src: 8, dst: 24,
		icmp: packet.ICMPv6, embProto: 8 + 6, embDst: 8 + 24, embPort: 8 + 40 + 2},
}

// Registers of 16 bytes: 1 is the first, and regSecond is where the field
// behind an address of n bytes stands when the two are looked up together.
const regFirst = 1

func regSecond(addrLen uint32) uint32 { return 8 + addrLen/4 } // in registers of 4 bytes

type ruleBuilder struct {
	conn       *nftables.Conn
	table      *nftables.Table
	mark, mask uint32
	err        error
}

// family adds the rules of one family, where notrack is "notrack accept":
//
//	ip daddr @vip4 notrack
//	ip daddr @pool4 notrack
//	ip saddr @server4 FRAGMENT mark
//	ip saddr . meta l4proto . th sport @reply4 notrack (and mark, where they are too many for rules)
//	ip saddr . meta l4proto @any4 notrack (likewise)
//	meta l4proto icmp TYPE IS ERROR, embedded daddr . l4proto . dport @reply4 (or daddr . l4proto @any4) mark notrack
func (b *ruleBuilder) family(in, out *nftables.Chain, l layout, f filter) error {
	if len(f.vips) > 0 {
		vips := b.set("vip", l, l.addrType, false, addrElements(f.vips))
		b.exempt(l, vips, in, out)
	}
	if len(f.lips) > 0 {
		pools := b.set("pool", l, l.addrType, true, intervalElements(f.lips))
		b.exempt(l, pools, in, out)
	}
	if len(f.replies) > 0 {
		b.replies(in, l, f.replies)
	}
	return b.err
}

// exempt exempts packets to the addresses of a set.
func (b *ruleBuilder) exempt(l layout, to *nftables.Set, chains ...*nftables.Chain) {
	for _, c := range chains {
		b.rule(c, family(l), address(l, l.dst), lookup(to), notrack())
	}
}

func (b *ruleBuilder) replies(in *nftables.Chain, l layout, replies []Reply) {
	var ports, every []nftables.SetElement
	var servers []netip.Addr
	for _, r := range replies {
		servers = append(servers, r.Addr)
		key := append(r.Addr.AsSlice(), r.Proto, 0, 0, 0)
		if r.Port == 0 {
			every = append(every, nftables.SetElement{Key: key})
			continue
		}
		key = append(key, byte(r.Port>>8), byte(r.Port), 0, 0)
		ports = append(ports, nftables.SetElement{Key: key})
	}
	servers = slices.Compact(servers) // sorted already
	server := b.set("server", l, l.addrType, false, addrElements(servers))
	// Before the others: a first fragment has ports that they would match.
	b.rule(in, family(l), address(l, l.src), lookup(server), fragment(l), b.setMark())
	withProto := nftables.MustConcatSetType(l.addrType, nftables.TypeInetProto)
	withPort := nftables.MustConcatSetType(l.addrType, nftables.TypeInetProto, nftables.TypeInetService)

	second, third := regSecond(l.addrLen), regSecond(l.addrLen)+1
	proto := &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: second}
	var markReply []expr.Any
	if tooManyRules(replies) {
		markReply = b.setMark()
	}
	embedded := []expr.Any{transport(regFirst, l.embDst, l.addrLen), transport(second, l.embProto, 1)}
	if len(ports) > 0 {
		set := b.set("reply", l, withPort, false, ports)
		b.rule(in, family(l), address(l, l.src), []expr.Any{proto, transport(third, 0, 2)}, lookup(set), markReply, notrack())
		b.rule(in, family(l), icmpError(l), embedded, []expr.Any{transport(third, l.embPort, 2)}, lookup(set), b.setMark(), notrack())
	}
	if len(every) > 0 {
		set := b.set("any", l, withProto, false, every)
		b.rule(in, family(l), address(l, l.src), []expr.Any{proto}, lookup(set), markReply, notrack())
		b.rule(in, family(l), icmpError(l), embedded, lookup(set), b.setMark(), notrack())
	}
}

// rule adds a rule that is made of parts.
func (b *ruleBuilder) rule(c *nftables.Chain, parts ...[]expr.Any) {
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: slices.Concat(parts...)})
}

// maxElements is how many elements one message may hold: the length of an
// attribute has 16 bits, and an element takes up to 64 bytes.
const maxElements = 900

func (b *ruleBuilder) set(name string, l layout, key nftables.SetDatatype, interval bool, elements []nftables.SetElement) *nftables.Set {
	s := &nftables.Set{Table: b.table, Name: name + l.suffix, KeyType: key, Interval: interval, KeyByteOrder: binaryutil.BigEndian}
	b.fail(b.conn.AddSet(s, nil))
	for chunk := range slices.Chunk(elements, maxElements) {
		b.fail(b.conn.SetAddElements(s, chunk))
	}
	return s
}

func (b *ruleBuilder) fail(err error) {
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("build the table: %w", err)
	}
}

func addrElements(addrs []netip.Addr) []nftables.SetElement {
	var es []nftables.SetElement
	for _, a := range addrs {
		es = append(es, nftables.SetElement{Key: a.AsSlice()})
	}
	return es
}

// intervalElements are the starts and ends of prefixes. One inside another is
// left out, for intervals may not overlap.
func intervalElements(prefixes []netip.Prefix) []nftables.SetElement {
	var es []nftables.SetElement
	for _, p := range prefixes {
		if slices.ContainsFunc(prefixes, func(o netip.Prefix) bool { return o.Bits() < p.Bits() && o.Contains(p.Addr()) }) {
			continue
		}
		es = append(es, nftables.SetElement{Key: p.Addr().AsSlice()})
		if end := lastAddr(p).Next(); end.IsValid() {
			es = append(es, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return es
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < p.Addr().BitLen(); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// notrack ends the chain too: no packet is exempted twice, and it has two of
// our hooks to pass.
func notrack() []expr.Any {
	return []expr.Any{&expr.Notrack{}, &expr.Verdict{Kind: expr.VerdictAccept}}
}

func iifname(device string) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, device)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: regFirst},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regFirst, Data: name},
	}
}

func family(l layout) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: regFirst},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regFirst, Data: []byte{l.nfproto}},
	}
}

// address loads an address of the IP header.
func address(l layout, offset uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: regFirst, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: l.addrLen}}
}

// transport loads from the transport header. In a later fragment there is
// none, and the rule does not match.
func transport(reg, offset, n uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: n}
}

func lookup(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: regFirst, SetName: s.Name, SetID: s.ID}}
}

// icmpError matches the types that carry the packet they are about.
func icmpError(l layout) []expr.Any {
	es := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regFirst},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regFirst, Data: []byte{l.icmp}},
		transport(regFirst, 0, 1),
	}
	if l.icmp == packet.ICMPv6 { // below 128
		return append(es, &expr.Cmp{Op: expr.CmpOpLt, Register: regFirst, Data: []byte{128}})
	}
	// 3 destination unreachable, 11 time exceeded, 12 parameter problem. The
	// types between 3 and 12 that are no errors carry nothing that could match.
	return append(es,
		&expr.Cmp{Op: expr.CmpOpGte, Register: regFirst, Data: []byte{3}},
		&expr.Cmp{Op: expr.CmpOpLte, Register: regFirst, Data: []byte{12}})
}

// fragment matches the first and every later fragment of a datagram.
func fragment(l layout) []expr.Any {
	if l.icmp == packet.ICMPv6 {
		return []expr.Any{
			&expr.Exthdr{DestRegister: regFirst, Type: unix.IPPROTO_FRAGMENT, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6},
			&expr.Cmp{Op: expr.CmpOpEq, Register: regFirst, Data: []byte{1}},
		}
	}
	return []expr.Any{ // more fragments, or an offset
		&expr.Payload{DestRegister: regFirst, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2},
		&expr.Bitwise{SourceRegister: regFirst, DestRegister: regFirst, Len: 2, Mask: []byte{0x3f, 0xff}, Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: regFirst, Data: []byte{0, 0}},
	}
}

// setMark sets the bits of our mark and keeps the others.
func (b *ruleBuilder) setMark() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: regFirst},
		&expr.Bitwise{SourceRegister: regFirst, DestRegister: regFirst, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^b.mask), Xor: binaryutil.NativeEndian.PutUint32(b.mark & b.mask)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: regFirst, SourceRegister: true},
	}
}
