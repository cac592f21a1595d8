package replay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/uvs-project/uvs/config/compat"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/packet"
)

// listings are the listings that a vector knows by name.
var listings = map[string]string{
	"list":       "-L -n",
	"conn":       "-L -n -c",
	"stats":      "-L -n --stats --exact",
	"persist":    "-L -n --persistent-conn",
	"thresholds": "-L -n --thresholds",
	"timeout":    "-L -n --timeout",
	"daemon":     "-L -n --daemon",
	"save":       "-S -n",
}

// Show prints the listing of that name.
func (d *Director) Show(what string) (string, error) {
	args, ok := listings[what]
	if !ok {
		return "", fmt.Errorf("the listing %q is not known", what)
	}
	status, text := d.Ipvsadm(args)
	if status != 0 {
		return "", fmt.Errorf("ipvsadm %s: status %d: %s", args, status, text)
	}
	return text, nil
}

// list prints what a List or Save asks for.
func (d *Director) list(c *compat.Command) string {
	var b strings.Builder
	var err error
	switch {
	case c.Op == compat.Save:
		err = d.table.WriteRules(&b)
	case c.List.Connections:
		err = compat.WriteConnections(&b, d.connections(), c.List.PersistentConn)
	case c.List.Timeouts:
		err = d.table.WriteTimeouts(&b)
	case c.List.Daemon:
	case c.Service != nil:
		err = d.table.WriteServices(&b, c.List, []*compat.Service{d.table.Find(c.Service.Key)}, d.counter())
	default:
		err = d.table.WriteList(&b, c.List, d.counter())
	}
	if err != nil {
		panic(err) // a strings.Builder takes everything
	}
	return b.String()
}

// counter reads the counters once.
func (d *Director) counter() compat.Counter {
	stats := d.balancer.Stats()
	return func(s *compat.Service, rs *compat.Server) compat.Counts {
		for i := range stats.Services {
			svc := &stats.Services[i]
			if svc.Name != s.Key.String() {
				continue
			}
			if rs == nil {
				return counts(&svc.Measured)
			}
			return serverCounts(svc, rs.Addr)
		}
		return compat.Counts{}
	}
}

// serverCounts sums what a service has under the address of a real server: as
// it is now, and as it was with another forwarding method or before it was
// removed and added again. For IPVS that is all one destination.
func serverCounts(svc *lb.ServiceStats, addr netip.AddrPort) (sum compat.Counts) {
	for i := range svc.RealServers {
		r := &svc.RealServers[i]
		if r.Endpoint.AddrPort() != addr {
			continue
		}
		c := counts(&r.Measured)
		sum.Active += r.ActiveFlows
		sum.Inactive += r.InactiveFlows
		sum.Persistent += r.Templates
		sum.Connections += c.Connections
		sum.InPackets += c.InPackets
		sum.OutPackets += c.OutPackets
		sum.InBytes += c.InBytes
		sum.OutBytes += c.OutBytes
	}
	return sum
}

func counts(m *lb.Measured) compat.Counts {
	return compat.Counts{
		Connections: m.SinceZero.Flows,
		InPackets:   m.SinceZero.RequestPackets, OutPackets: m.SinceZero.ReplyPackets,
		InBytes: m.SinceZero.RequestBytes, OutBytes: m.SinceZero.ReplyBytes,
	}
}

// connections are the flows as IPVS lists them.
func (d *Director) connections() (all []compat.Connection) {
	marked := map[string]uint32{}
	for _, s := range d.table.Services {
		marked[s.Key.String()] = s.Key.Mark
	}
	for f := range d.balancer.Flows(d.now) {
		t := &f.Tuple
		c := compat.Connection{
			Proto:   protoName(t.Proto),
			Expires: f.Left,
			State:   stateName(f.State, t.Proto),
			Client:  netip.AddrPortFrom(t.Src.Netip(t.Family), t.SrcPort),
			Virtual: netip.AddrPortFrom(t.Dst.Netip(t.Family), t.DstPort),
			Dest:    f.Destination().AddrPort(),
		}
		if mark := marked[f.Server.Service()]; mark != 0 && (f.State == lb.TemplateNone || f.State == lb.TemplateAssured) {
			var vip packet.Addr // its first four bytes, in both families
			binary.BigEndian.PutUint32(vip[:], mark)
			c.Proto, c.Virtual = protoName(0), netip.AddrPortFrom(vip.Netip(t.Family), c.Virtual.Port())
		}
		all = append(all, c)
	}
	return all
}

func protoName(p uint8) string {
	switch p {
	case packet.TCP:
		return "TCP"
	case packet.UDP:
		return "UDP"
	case packet.SCTP:
		return "SCTP"
	}
	return "IP"
}

// sctpStates are the names that IPVS has for states of SCTP, where they are not
// ours in capitals.
var sctpStates = map[lb.State]string{
	lb.SCTPCookieSent:       "C-SENT",
	lb.SCTPCookieReplied:    "C-REPLIED",
	lb.SCTPCookieWait:       "C-WAIT",
	lb.SCTPCookieEchoed:     "C-ECHOED",
	lb.SCTPShutdownSent:     "S-SENT",
	lb.SCTPShutdownReceived: "S-RECEIVED",
	lb.SCTPShutdownAckSent:  "S-ACK-SENT",
}

// stateName is the state as IPVS lists it.
func stateName(s lb.State, proto uint8) string {
	if proto == packet.SCTP {
		if n := sctpStates[s]; n != "" {
			return n
		}
	}
	return strings.ToUpper(s.String())
}
