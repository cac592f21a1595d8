package packet

// A Reason says why a packet was dropped, or, with another verdict, that
// something worth counting happened to it. It is the label of the metric.
type Reason uint8

// The reasons in the order of the road.
const (
	OK               Reason = iota
	Truncated               // shorter than its headers say
	BadVersion              // neither IPv4 nor IPv6
	BadHeader               // IP header with an impossible length
	BadIPChecksum           // IPv4 header checksum wrong
	BadChecksum             // transport checksum wrong, where it had to be verified
	BadSource               // a source address that no packet may have
	TooManyHeaders          // more IPv6 extension headers than the cap
	BadVNet                 // virtio-net header that does not fit its packet
	FragmentOverflow        // fragment table full
	FragmentTimeout         // what a fragment waited for did not come in time
	FragmentOverlap         // of a datagram whose fragments overlap or contradict each other (RFC 5722)
	FragmentRepeated        // came before
	NoService               // a VIP, but no service on that port
	NoRealServer            // no real server of the service can take the flow
	NoPort                  // the FullNAT pool has no port left for this real server
	TableFull               // the flow table is at its limit
	NotSYN                  // a TCP or SCTP packet that no flow has and that may not start one
	NoFlow                  // a real server's packet that belongs to no flow
	TooBig                  // does not fit the path to the real server and may not be fragmented
	PathTooSmall            // the path to the real server carries less than a tunnel needs for the smallest packets
	CannotTranslate         // cannot be carried to the other address family or through NAT
	NoReplyPath             // a reply of a mode whose real servers answer directly
	BadICMP                 // ICMP error that is about no flow, or may not be translated
	NoRoute                 // no way to the next hop
	NoNeighbour             // the next hop's link address could not be resolved
	QueueFull               // the short queue of an unresolved neighbour is full
	SendFailed              // the kernel did not take the packet
	BadTunnel               // a tunnel packet with an impossible header, checksum or congestion mark
	Overload                // would have opened a flow while the defence drops a part of those
	RateLimited             // an answer of our own was not sent, to keep the limit of such answers
	NoCallID                // a packet to a service with SIP persistence that says no Call-ID
	ServerRemoved           // the flow's real server was removed, and the policy says not to serve it any more
	numReasons
)

// NumReasons is the length of an array indexed by Reason.
const NumReasons = int(numReasons)

var reasonNames = [NumReasons]string{
	"ok", "truncated", "bad_version", "bad_header", "bad_ip_checksum", "bad_checksum", "bad_source", "too_many_headers",
	"bad_vnet", "fragment_overflow", "fragment_timeout", "fragment_overlap", "fragment_repeated", "no_service", "no_real_server",
	"no_port", "table_full", "not_syn", "no_flow", "too_big", "path_too_small", "cannot_translate", "no_reply_path", "bad_icmp", "no_route",
	"no_neighbour", "queue_full", "send_failed", "bad_tunnel", "overload", "rate_limited", "no_call_id",
	"server_removed",
}

// String is the value of the metric's label reason.
func (r Reason) String() string { return reasonNames[r] }
