package lb

import (
	"time"

	"github.com/uvs-project/uvs/packet"
)

// answers limits what one queue answers by itself, as Linux limits its ICMP
// errors (icmp_msgs_per_sec, icmp_msgs_burst): a token bucket.
type answers struct {
	each   time.Duration // between two answers in the long run; 0: no limit
	spent  int           // tokens that the bucket lacks
	filled time.Duration // when spent was right
}

const (
	defaultAnswers = 1000 // a second
	answersBurst   = 50
)

func newAnswers(o *Options) answers {
	switch {
	case o.EveryAnswer:
		return answers{}
	case o.Answers == 0:
		return answers{each: time.Second / defaultAnswers}
	}
	return answers{each: time.Second / time.Duration(o.Answers)}
}

// take says whether one more answer may be sent.
func (a *answers) take(now time.Duration) bool {
	if a.each == 0 {
		return true
	}
	if n := (now - a.filled) / a.each; n > 0 {
		a.spent = max(0, a.spent-int(n))
		a.filled += n * a.each
	}
	if a.spent == answersBurst {
		return false
	}
	a.spent++
	return true
}

// up lets the netstack behind the VIPs answer p.
func (q *Queue) up(p *packet.Packet, now time.Duration, why packet.Reason) (packet.Verdict, packet.Reason) {
	if !p.IsICMPError() && !q.replies.take(now) {
		return packet.Drop, packet.RateLimited
	}
	return packet.Pass, why
}

// reset turns p into the segment, or the packet of SCTP, that ends a
// connection which nobody here has. It is false for what has none, and the
// verdict is final otherwise.
func (q *Queue) reset(p *packet.Packet, now time.Duration, why packet.Reason) (packet.Verdict, packet.Reason, bool) {
	var turn func(*packet.Packet) bool
	switch {
	case p.IsICMPError():
		return packet.Drop, why, false
	case p.Tuple.Proto == packet.TCP:
		turn = (*packet.Packet).ReplyReset
	case p.Tuple.Proto == packet.SCTP:
		turn = (*packet.Packet).ReplyAbort
	default:
		return packet.Drop, why, false
	}
	if !q.replies.take(now) {
		return packet.Drop, packet.RateLimited, true
	}
	return packet.Send, why, turn(p)
}

// refuse tells a client that no real server takes its flow. Where it is to be
// told by a reset but there is none, as for UDP and for a fragment, it is told
// by ICMP. ICMP errors, which may open a flow too, are never answered, and so
// must not use up the answers that others get.
func (q *Queue) refuse(p *packet.Packet, how OnNoServer, now time.Duration) (packet.Verdict, packet.Reason) {
	if how == AnswerDrop || p.IsICMPError() {
		return packet.Drop, packet.NoRealServer
	}
	if how == AnswerReset {
		if v, why, ok := q.reset(p, now, packet.NoRealServer); ok {
			return v, why
		}
	}
	return q.answer(p, packet.PortUnreachable, 0, now, packet.NoRealServer)
}

// answer turns p into an ICMP error from the address that it was sent to.
func (q *Queue) answer(p *packet.Packet, kind packet.ErrorKind, mtu int, now time.Duration, why packet.Reason) (packet.Verdict, packet.Reason) {
	return q.answerFrom(p.Tuple.Dst, p, kind, mtu, now, why)
}

func (q *Queue) answerFrom(src packet.Addr, p *packet.Packet, kind packet.ErrorKind, mtu int, now time.Duration, why packet.Reason) (packet.Verdict, packet.Reason) {
	if !q.errors.take(now) {
		return packet.Drop, packet.RateLimited
	}
	if !p.ReplyError(src, kind, mtu) {
		return packet.Drop, why
	}
	return packet.Send, why
}
