package lb

import "github.com/uvs-project/uvs/packet"

// An outcome is what a lookup in the Table ends with.
type outcome uint8

const (
	unknown outcome = iota // no flow has the packet
	known                  // the flow's life was taken on
	ours                   // likewise, and it is one of Pin

	// Of a flow whose real server was removed, or is down. Its life stays as it is.
	barred  // the packet has to be dropped
	refused // its sender has to be reset
)

// replaces says whether a client that starts anew gets a new flow in place of
// that of r in entry e, as IPVS decides it (ip_vs_in). A template's flows stay
// with their real server.
func (r *RealServer) replaces(e *entry) bool {
	p := &r.service.policy
	if e.flags&flagPinned != 0 {
		return false
	}
	if r.Weight == 0 && p.Removed == RemovedReschedule {
		return true
	}
	switch e.state {
	case TCPTimeWait, TCPClose, SCTPClosed:
		return p.Reuse != 0 && e.flags&flagControlled == 0
	case TCPFinWait:
		return p.Reuse&ReuseFinWait != 0 && e.flags&(flagControlled|flagOneSided) == flagOneSided
	}
	return false
}

// isolates says whether a client's datagram in the flow of r in entry e is
// scheduled by itself, and gets another. Fragments that follow their first, and
// ICMP errors, stay with the flow: for them it was kept.
func (r *RealServer) isolates(e *entry, ev event) bool {
	return e.state == UDPBrief && ev == udpDatagram && r.service.policy.OnePacket
}

// A fate is what becomes of the packets of flows whose real server was removed,
// or is down.
type fate uint8

const (
	fateServe  fate = iota // what becomes of any flow's
	fateBar                // requests are dropped, replies go on
	fateHide               // the flow is not found, and stays
	fateForget             // the flow ends, and the packet is one of an unknown flow
	fateReset              // the sender is reset
)

// fateOf is the fate of such a real server's flows with clients of one
// address family. Once that has no service left at all, IPVS lets all its
// packets pass (ip_vs_unregister_hooks).
func fateOf(how Removed, familyServed bool) fate {
	switch how {
	case RemovedKeep:
		if !familyServed {
			return fateHide
		}
		return fateBar
	case RemovedReschedule:
		return fateForget
	case RemovedReset:
		return fateReset
	}
	return fateServe
}

// judge says what becomes of one packet of a flow of the judged real server r.
// ends says that the flow ends by it.
func (r *RealServer) judge(t *packet.Tuple, d Direction, ev event, anew bool) (o outcome, ends bool) {
	switch r.fates[familyIndex(t.Family)] {
	case fateBar:
		if d == Request && ev != eventPeek {
			return barred, false
		}
	case fateHide:
		return unknown, false
	case fateForget:
		return unknown, true
	case fateReset:
		switch {
		case ev == eventPeek:
		case t.Proto != packet.TCP, d == Request && anew:
			return unknown, true
		default:
			return refused, false
		}
	}
	return known, false
}
