package replay

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/uvs-project/uvs/config/compat"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// uvs has no firewall marks, but services with several listens. A mark is
// played as one that listens on all that the packets of the vector which get the
// mark are sent to.

// marks say what each service of a firewall mark listens on.
type marks map[compat.Key][]lb.Listen

// A marking is a rule of nftables that sets a mark.
type marking struct {
	dst  netip.Prefix
	port uint16 // of TCP; 0: every port and protocol
	mark uint32
}

var markRule = regexp.MustCompile(`ip6? daddr (\S+) (?:tcp dport (\d+) )?meta mark set (\d+)`)

// isMarking says whether a line of the set-up sets a firewall mark.
func isMarking(line string) bool {
	return strings.HasPrefix(line, "nft ") || routesByMark(line)
}

// routesByMark says whether a line of the set-up chooses routes by a mark.
func routesByMark(line string) bool { return strings.Contains(line, "fwmark") }

// markings are those of the vector's set-up that can be read.
func (v *Vector) markings() (all []marking) {
	for _, line := range v.Setup {
		for _, m := range markRule.FindAllStringSubmatch(line, -1) {
			dst, err := netip.ParsePrefix(m[1])
			if err != nil {
				a, err := netip.ParseAddr(m[1])
				if err != nil {
					continue
				}
				dst = netip.PrefixFrom(a, a.BitLen())
			}
			all = append(all, marking{dst: dst, port: uint16(number(m[2])), mark: uint32(number(m[3]))})
		}
	}
	return all
}

// marks reads what the packets of the vector that get a mark are sent to.
func (v *Vector) marks(f *File) marks {
	all, rules := marks{}, v.markings()
	if len(rules) == 0 {
		return all
	}
	for _, s := range v.Steps {
		switch s.Op {
		case "flows":
			proto := uint8(packet.TCP)
			if s.Proto == "udp" {
				proto = packet.UDP
			}
			for _, flow := range f.FlowSets[s.FlowSet] {
				all.add(rules, flow.Dst, proto)
			}
		case "inject":
			p := readHeader(s.Pkt)
			switch p.proto {
			case packet.TCP, packet.UDP, packet.SCTP:
				if t := s.Pkt[p.l4:]; p.fragOff == 0 && len(t) >= 4 {
					all.add(rules, netip.AddrPortFrom(p.dst, uint16(t[2])<<8|uint16(t[3])), p.proto)
				}
			}
		}
	}
	return all
}

// add notes that a packet is sent to dst. As in a chain of nftables the last
// rule that fits sets the mark.
func (m marks) add(rules []marking, dst netip.AddrPort, proto uint8) {
	for _, r := range slices.Backward(rules) {
		if !r.dst.Contains(dst.Addr()) || r.port != 0 && (r.port != dst.Port() || proto != packet.TCP) {
			continue
		}
		key := compat.Key{Mark: r.mark, V6: dst.Addr().Is6()}
		if l := (lb.Listen{VIP: dst.Addr(), FirstPort: dst.Port(), Proto: proto}); !slices.Contains(m[key], l) {
			m[key] = append(m[key], l)
		}
		return
	}
}
