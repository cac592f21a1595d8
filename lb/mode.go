package lb

import "github.com/uvs-project/uvs/packet"

// A Mode says how the packets of a flow are rewritten. Package modes has one
// file per forwarding mode.
//
// A Mode is a pure value: the same flow gives the same answer, so the packet
// loop, the fast lane and explain cannot disagree. Its methods are called from
// several goroutines, and with a lock of the flow table held: they block on
// nothing and allocate nothing. Two Modes that are deeply equal are the same
// Mode to a reload.
type Mode interface {
	// String is the mode's name in the configuration.
	String() string

	// Crosses says whether clients of one address family can be carried to a
	// real server of the other.
	Crosses() bool

	// Local proposes what the flow needs for its life, such as a source
	// address and port, as a number that only the mode itself reads back from
	// Flow.Local. It is called for a new flow with try 0, 1, 2 … until the
	// flow's ReplyTuple belongs to no other flow, or ok is false.
	//
	// A mode with a single proposal takes the reply tuple over from the flow
	// that has it: the newest flow wins, as in IPVS, until it ends.
	Local(f Flow, try int) (local uint32, ok bool)

	// ReplyTuple is the tuple of the packets that the real server sends back
	// through the director; ok is false where it answers the client directly.
	// It depends on f.Tuple, f.Server's address and f.Local only.
	ReplyTuple(f Flow) (t packet.Tuple, ok bool)

	// Rewrite fills in rw, which is zero, with what is done to packets of one
	// direction: for Reply packet.NoReply where ReplyTuple has none. Both
	// pointers are the caller's, since copies of such large values cost more
	// than the rewriting itself.
	Rewrite(f *Flow, d Direction, rw *packet.Rewrite)
}

// Direction is the way a packet of a flow travels.
type Direction uint8

const (
	Request Direction = iota // client to real server
	Reply                    // real server to client
)

// A Flow is a copy of what the Table knows about one client connection, or UDP
// exchange.
type Flow struct {
	Tuple  packet.Tuple // of the client's packets: CIP:cport to VIP:vport
	Server *RealServer  // never nil
	Local  uint32       // what the Mode chose, see Mode.Local
	State  State
}
