// Package bgp announces VIPs to routers.
//
// A [Speaker] holds one BGP session to each of its [Peer]s and tells them the
// routes that it is given:
//
//	Announce(ctx, all routes) ──► what changed ──► the local table ──► export
//	                                                per peer: is it chosen,
//	                                                next hop ──► UPDATE ──► gate ──► peer
//
// What is to be announced goes in whole, never as single additions and
// removals; the Speaker finds the difference. It takes no routes from its
// peers: they are refused and counted.
//
// GoBGP speaks the protocol, in this process and without its API port. This
// package is its only importer. Between it and each peer stands a gate, which
// connects to the peer and lets in what is harmless.
package bgp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"
)

// Options say who the speaker is and whom it talks to.
type Options struct {
	AS       uint32     // 0: the speaker is silent
	RouterID netip.Addr // an IPv4 address, by which peers tell speakers apart

	// ListenPort takes sessions that peers open. Zero: none, the speaker
	// connects to all.
	ListenPort int

	// GracefulRestart is how long peers keep routes to us after the session
	// is lost. Zero: not at all, they go at once.
	GracefulRestart time.Duration

	Peers []Peer
	Log   *slog.Logger // nil: slog.Default
}

// A Peer is a router that the speaker has a session with.
type Peer struct {
	Name string // how routes and the statistics call it; no two have the same

	Address   netip.Addr // with a zone where it is link-local
	Interface string     // instead of an address: the one router on that link

	AS           uint32
	LocalAddress netip.Addr // of the session; zero: as the host routes
	Port         uint16     // zero: 179
	Password     string     // TCP MD5 (RFC 2385); empty: none
	Passive      bool       // waits until the peer connects

	// Multihop is how many hops away an eBGP peer may be. Zero: it is on the
	// same link. An iBGP peer may be anywhere, for it this only counts in
	// TTLSecurity and BFD.
	Multihop int

	// TTLSecurity drops packets that came over more hops than Multihop, or
	// any where that is zero (GTSM, RFC 5082). The peer must send with TTL 255.
	TTLSecurity bool

	HoldTime     time.Duration // whole seconds, 3 or more; a third of it is the time between keepalives
	ConnectRetry time.Duration // between attempts to connect

	IPv4, IPv6 bool // the families of the routes that it gets, at least one

	// NextHop4 and NextHop6 are where it sends the packets of each family.
	// Zero: the local address of the session. That of an IPv6 session does for
	// IPv4 routes too (RFC 8950); that of an IPv4 session not for IPv6 ones.
	NextHop4, NextHop6 netip.Addr

	// AddPath sends routes with path identifiers (RFC 7911).
	AddPath bool

	BFD BFD // zero: none
}

// carries says whether the peer gets routes of a family.
func (p *Peer) carries(a netip.Addr) bool {
	if a.Is4() {
		return p.IPv4
	}
	return p.IPv6
}

// check finds what no speaker can do.
func (o *Options) check() error {
	if o.AS == 0 {
		if len(o.Peers) > 0 {
			return errors.New("bgp: peers, but AS 0")
		}
		return nil
	}
	var errs []error
	if !o.RouterID.Is4() || o.RouterID.IsUnspecified() {
		errs = append(errs, fmt.Errorf("bgp: router ID %v is not an IPv4 address", o.RouterID))
	}
	seen := map[string]bool{}
	for i := range o.Peers {
		p := &o.Peers[i]
		switch {
		case seen[p.Name]:
			errs = append(errs, fmt.Errorf("bgp: peer %s: there twice", p.Name))
		case p.Address.IsValid() == (p.Interface != "") || p.Address.Is4In6():
			errs = append(errs, fmt.Errorf("bgp: peer %s: an address or an interface finds it", p.Name))
		case p.Passive && o.ListenPort <= 0:
			errs = append(errs, fmt.Errorf("bgp: peer %s: passive, and nothing listens", p.Name))
		case p.IPv6 && p.Address.Is4() && !p.NextHop6.IsValid():
			errs = append(errs, fmt.Errorf("bgp: peer %s: IPv6 routes over an IPv4 session need a next hop", p.Name))
		case p.BFD != (BFD{}) && o.GracefulRestart > 0:
			errs = append(errs, fmt.Errorf("bgp: peer %s: BFD drops the routes at once that graceful restart keeps", p.Name))
		}
		seen[p.Name] = true
	}
	return errors.Join(errs...)
}
