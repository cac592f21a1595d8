// Package health says which real servers are fit for flows.
//
// A [Check] asks one real server once; each kind is one file here and one line
// in the list below. A [Monitor] has every real server checked over and over
// and turns the results into a [State]:
//
//	due ─► Check ─► rise, fall ─► State ─► Changed ─► weights, announcements
//	 ▲                 │
//	 └── interval, or the fast interval while a result speaks against the state
//
// The package knows nothing of packets and of balancing: whoever made the
// Monitor reads [Monitor.Status] when told that something changed.
package health

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// A Check asks a real server whether it works. It may be used for many at
// once.
type Check interface {
	// Check returns nil where the real server is fit, and else what was wrong
	// with it, in words for an operator. It returns soon after ctx ends; the
	// deadline of ctx is the time limit.
	Check(ctx context.Context, to Target) error
}

// A Target is what a check is sent to.
type Target struct {
	Addr netip.AddrPort // port 0 for checks without one

	// Prepare, if not nil, is called with the socket of each connection that a
	// check makes before it is connected to Addr. The function that it returns
	// is called when that connection is closed.
	Prepare func(fd int, proto uint8) (done func(), err error)
}

// builders lists every check by its name in the configuration. Type none is
// no check and has no line.
var builders = map[string]func(*Options) (Check, error){
	"dns":    newDNS,
	"grpc":   newGRPC,
	"grpcs":  newGRPCS,
	"http":   newHTTP,
	"https":  newHTTPS,
	"icmp":   newICMP,
	"redis":  newRedis,
	"script": newScript,
	"smtp":   newSMTP,
	"tcp":    newTCP,
	"tls":    newSecured,
	"udp":    newUDP,
}

// None is the type of check that takes every real server as up.
const None = "none"

// Options say what is checked. Only Type is for every check.
type Options struct {
	Type string

	Method string  // http, https: default GET
	Path   string  // http, https: default /
	Host   string  // http, https: the Host header, default the target's address; smtp: who greets, default localhost
	Expect []Codes // http, https: the status codes that are good; default 200 to 399
	Body   string  // http, https: a text that the first 64 KiB of the answer must hold
	TLS    TLS     // https, grpcs, tls

	Send    string // tcp, udp: what is sent
	Receive string // tcp, udp: a text that the answer must hold; dns: a record that must be among the answers

	Name    string   // dns: what is asked for
	Record  string   // dns: and of what type; default A
	Service string   // grpc, grpcs: whose health; empty: that of the whole server
	Command []string // script: the program and its arguments
}

// Codes is a range of HTTP status codes, both included.
type Codes struct{ First, Last int }

// New builds the check that o describes; nil is none.
func New(o Options) (Check, error) {
	if o.Type == None {
		return nil, nil
	}
	build, ok := builders[o.Type]
	if !ok {
		return nil, fmt.Errorf("check %q: none of %s", o.Type, strings.Join(Names(), ", "))
	}
	c, err := build(&o)
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", o.Type, err)
	}
	return c, nil
}

// Names are the names of all checks, sorted.
func Names() []string {
	names := append(slices.Collect(maps.Keys(builders)), None)
	slices.Sort(names)
	return names
}
