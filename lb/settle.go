package lb

import "github.com/uvs-project/uvs/packet"

// settle says of every record of one service whose real server is not in the
// set any more what becomes of its flows. now is the service's new form, nil
// where it was removed, and then under gone, unless that is nil; served are the
// families, IPv4 and IPv6, that any service serves; byID is the new registry.
func (a *account) settle(now *service, gone *Policy, served [2]bool, byID []*RealServer) {
	var present map[packet.Endpoint]*RealServer // the set, once it is needed
	for i, was := range a.servers {
		if was.service == now {
			continue // in the set
		}
		rs := &RealServer{
			Endpoint: was.Endpoint, Mode: was.Mode, LastWeight: was.LastWeight, mapped: was.mapped,
			service: now, record: was.record, load: was.load,
		}
		switch {
		case now == nil:
			rs.service = was.service.under(gone)
		case present == nil:
			present = now.endpoints()
		}
		if p := present[was.Endpoint]; p != nil {
			rs.replaced, rs.Weight = true, p.Weight
		} else {
			rs.removed, rs.judged = true, true
			for family := range rs.fates {
				rs.fates[family] = fateOf(rs.service.policy.Removed, served[family])
			}
		}
		a.servers[i] = rs
		byID[rs.id] = rs
	}
}

// familyIndex is 0 for IPv4 and 1 for IPv6.
func familyIndex(family uint8) int { return int(family>>1) & 1 }
