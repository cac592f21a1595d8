package lb

import (
	"fmt"
	"time"
)

// A Policy says how the flows of one service live, where there is more than
// one good answer. Its zero value asks for nothing special: every flow is kept
// until it ends by itself. [DefaultPolicy] is what operators get who say
// nothing, [IPVSPolicy] what the kernel's IPVS does.
//
// A reload puts a changed Policy into force for the flows that exist too,
// except where a field says otherwise.
type Policy struct {
	// OnePacket schedules every UDP datagram by itself and keeps no flow, so
	// that replies are not translated (ipvsadm -o).
	OnePacket bool

	// Sloppy lets any packet but a RST open a flow of TCP, and any but an ABORT
	// one of SCTP (sysctls sloppy_tcp, sloppy_sctp). With a scheduler that
	// chooses by the tuple alone, such as maglev, any director then takes over
	// flows in mid-stream.
	Sloppy bool

	// SecureTCP follows TCP by the second table of IPVS (sysctl secure_tcp 3),
	// in which a client alone cannot make a flow established.
	SecureTCP bool

	// Reuse says when a client's SYN, or INIT, opens a new flow in place of
	// the one that its tuple has.
	Reuse Reuse

	// Removed is what becomes of the flows of a removed real server.
	Removed Removed

	// Down is what becomes of the flows of a real server that is down, likewise.
	Down Removed

	// Drain is how long after its weight became 0, or after it was removed, the
	// flows of a real server may last at most; 0: until they end by themselves.
	Drain time.Duration

	// Failures is how many TCP connections in a row a real server must fail to
	// take for Options.OnFailing to be told; 0: nobody is.
	Failures int

	// ExpireQuiescedTemplates sends a persistent client elsewhere once its
	// real server has weight 0 (sysctl expire_quiescent_template).
	ExpireQuiescedTemplates bool

	// ScheduleICMP lets an ICMP error about a flow that is not known open that
	// flow (sysctl schedule_icmp).
	ScheduleICMP bool

	// AnswerUnknownReplies answers a packet that a real server sends from its
	// service port and that belongs to no flow by a port unreachable (sysctl
	// nat_icmp_send). Without, it goes back to the kernel as it is.
	AnswerUnknownReplies bool

	// ResetExpired ends a TCP flow that was idle for too long by a reset to
	// both ends, instead of forgetting it silently. It needs to have seen the
	// flow: what was established before the Policy said so, and had no packet
	// since, ends silently.
	ResetExpired bool

	// ClampMSS is the largest MSS in bytes that a SYN passes on, in both
	// directions as far as they cross the director; 0 leaves it. ClampAuto is
	// what fits the path to the real server.
	ClampMSS int
}

// Reuse is the bit mask of IPVS's conn_reuse_mode. The zero value never opens
// a new flow in place of an old one. It does not count for flows that follow a
// persistence template.
type Reuse uint8

const (
	// ReuseClosed opens a new flow in place of one that is closed: TIME_WAIT
	// and CLOSE of TCP, CLOSED of SCTP.
	ReuseClosed Reuse = 1 << iota

	// ReuseFinWait does so also in FIN_WAIT where the replies do not cross the
	// director. As in IPVS it implies ReuseClosed.
	ReuseFinWait

	reuseAll = ReuseClosed | ReuseFinWait
)

// Removed says what becomes of the flows of a real server that is no longer in
// its service, or whose service is gone, or that is down.
type Removed uint8

const (
	// RemovedServe goes on serving them until they end: a real server is taken
	// out without disturbing anybody.
	RemovedServe Removed = iota

	// RemovedKeep drops what the client sends, without a word, and keeps the
	// flow until its deadline; replies still go out. The flow goes on when
	// the real server is added again (sysctl expire_nodest_conn 0).
	RemovedKeep

	// RemovedReschedule forgets them; the client's next packet is treated as
	// that of an unknown flow. It also schedules anew a client's SYN for a real
	// server of weight 0 (sysctl expire_nodest_conn 1).
	RemovedReschedule

	// RemovedReset ends them by a reset to both ends where the protocol has
	// one, and forgets them.
	RemovedReset

	numRemoved
)

// DefaultPolicy is what suits an operator best who did not choose.
func DefaultPolicy() Policy {
	return Policy{Reuse: ReuseClosed, Removed: RemovedServe, Down: RemovedReset, ExpireQuiescedTemplates: true}
}

// IPVSPolicy is what IPVS does with the default values of its sysctls.
func IPVSPolicy() Policy { return Policy{Reuse: ReuseClosed, Removed: RemovedKeep} }

// maxMSS is the largest MSS that a TCP option can hold.
const maxMSS = 1<<16 - 1

// mayReset says whether connections may be ended by a reset of which the next
// sequence numbers must be known, see reset.go.
func (p *Policy) mayReset() bool { return p.ResetExpired || p.Removed == RemovedReset }

// check says what is out of range.
func (p *Policy) check() error {
	switch {
	case p.Reuse > reuseAll:
		return fmt.Errorf("policy: reuse %d is not within 0 and %d", p.Reuse, reuseAll)
	case p.Removed >= numRemoved:
		return fmt.Errorf("policy: removed %d is not known", p.Removed)
	case p.Down >= numRemoved:
		return fmt.Errorf("policy: down %d is not known", p.Down)
	case p.Drain < 0 || p.Drain > maxTimeout:
		return fmt.Errorf("policy: drain %v is not within 0 and %v", p.Drain, maxTimeout)
	case p.Failures < 0:
		return fmt.Errorf("policy: %d failures are below 0", p.Failures)
	case p.ClampMSS < ClampAuto || p.ClampMSS > maxMSS:
		return fmt.Errorf("policy: MSS %d is not within 0 and %d, nor ClampAuto", p.ClampMSS, maxMSS)
	}
	return nil
}
