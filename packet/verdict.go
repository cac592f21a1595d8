package packet

// A Verdict says where a packet goes next. The zero value drops, so that a
// path which forgets to decide is safe.
type Verdict uint8

const (
	Drop   Verdict = iota // discarded; the Reason that comes with it is counted
	Send                  // leaves the director, rewritten
	Pass                  // goes up to the netstack behind the VIPs
	Return                // is not ours and goes back to the kernel unchanged
)

func (v Verdict) String() string {
	return [...]string{"drop", "send", "pass", "return"}[v]
}
