package sched_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/packet"
	"github.com/uvs-project/uvs/packet/packettest"
)

// TestExplainForetellsEveryChoice: what Explain says, as often as it is asked,
// is what the next packet does, and it moves no scheduler.
func TestExplainForetellsEveryChoice(t *testing.T) {
	options := variants()
	for _, name := range sched.Names() {
		options[name+" slow"] = sched.Options{SlowStart: time.Second}
	}
	for name, o := range options {
		t.Run(name, func(t *testing.T) {
			var first string
			fmt.Sscan(name, &first)
			b := newBench(t, first, o)
			for _, config := range []string{"A=1 B=2", "A=1 B=2 C=4<30 D=0", "A=1<3 B=2<3 C=4<3", "A=0 B=1 C=3 D=2"} {
				b.apply(config)
				for i := range 60 {
					b.now += 17 * time.Millisecond
					b.clients++
					client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i), 7}), uint16(1024+b.clients)).String()
					p := packettest.Parsed(t, packettest.TCP(client, "203.0.113.10:80", packettest.SYN))
					tuple := p.Tuple
					told := b.b.Explain(tuple, b.now)
					if again := b.b.Explain(tuple, b.now); again.Flow.Server != told.Flow.Server || again.Reason != told.Reason {
						t.Fatalf("asked twice: %+v, then %+v", told, again)
					}
					_, why := b.b.Queue(0).Handle(p, b.now)
					if why != told.Reason {
						t.Fatalf("flow %d of %s: %v, foretold %v", i, config, why, told.Reason)
					}
					if why != packet.OK {
						continue
					}
					if is := b.b.Explain(tuple, b.now); !is.Known || is.Flow.Server.Endpoint != told.Flow.Server.Endpoint {
						t.Fatalf("flow %d of %s: went to %v, foretold %v", i, config, is.Flow.Server.Endpoint.AddrPort(), told.Flow.Server.Endpoint.AddrPort())
					}
				}
			}
		})
	}
}
