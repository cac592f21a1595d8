package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/uvs-project/uvs/integration/lab"
)

// look sends one HTTP request and one datagram, and holds what each side saw
// against what the mode promises.
func (n *network) look(ctx context.Context, r *Result) error {
	seen, err := n.lookAt(ctx, r.Case, "tcp", httpPort)
	r.Seen = seen
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	if _, err := n.lookAt(ctx, r.Case, "udp", udpPort); err != nil {
		return fmt.Errorf("udp: %w", err)
	}
	return nil
}

// lookAt sends one request, which carries a token that is in the answer too,
// and returns what was captured of both, in the order of the road.
func (n *network) lookAt(ctx context.Context, c Case, proto string, port uint16) ([]Sight, error) {
	token := fmt.Sprintf("%s-%s.demo", c.name(), proto)
	w, err := n.watch(func(f *lab.Frame) bool { return bytes.Contains(f.Data, []byte(token)) })
	if err != nil {
		return nil, err
	}
	defer w.stop()
	echo, err := n.ask(proto)(ctx, netip.AddrPortFrom(c.vip(), port), token)
	if err != nil {
		return n.trace(ctx, c, proto, port), err
	}
	i := slices.IndexFunc(n.rs[:], func(h *lab.Host) bool { return h.Name == echo.Server })
	if i < 0 {
		return nil, fmt.Errorf("an unknown server %q answered", echo.Server)
	}

	// The answer is here, so all has been captured, but maybe not yet read.
	patience, done := context.WithTimeout(ctx, askTime)
	defer done()
	var seen []Sight
	err = lab.Wait(patience, "captures", func() error {
		seen = w.sights()
		return diff(c.promise(seen, i, port), seen)
	})
	if err != nil {
		err = diff(c.promise(seen, i, port), seen)
	}
	return seen, err
}

// trace asks once more where nobody answered, and returns everything that was
// captured of it, so that one sees how far the request came.
func (n *network) trace(ctx context.Context, c Case, proto string, port uint16) []Sight {
	ends := [][]byte{c.vip().AsSlice()}
	for i := range n.rs {
		ends = append(ends, c.rip(i).AsSlice())
	}
	w, err := n.watch(func(f *lab.Frame) bool {
		return slices.ContainsFunc(ends, func(addr []byte) bool { return bytes.Contains(f.Data, addr) })
	})
	if err != nil {
		return nil
	}
	defer w.stop()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := n.ask(proto)(ctx, netip.AddrPortFrom(c.vip(), port), "trace"); err == nil {
		return nil // now it works
	}
	return slices.DeleteFunc(w.sights(), func(s Sight) bool { return s.Src.Port() == 0 }) // ARP, ICMP
}

// promise is what a mode promises to be seen when real server i answers a
// request to a port of the VIP. The client's port, and the LIP that stands in for the
// client, are as seen.
func (c Case) promise(seen []Sight, i int, port uint16) []Sight {
	var client, local netip.AddrPort
	for _, s := range seen {
		switch {
		case s.Host == "client" && s.Sent && clientAddr(s.Src.Addr()):
			client = s.Src
		case s.Host == "director" && s.Link == "lan" && s.Sent && inPool(s.Src.Addr()):
			local = s.Src
		}
	}
	rs := fmt.Sprintf("rs%d", i+1)
	vip := netip.AddrPortFrom(c.vip(), port)
	back := "director" // where the real server sends its answer
	inside := Sight{Src: client, Dst: vip}
	switch c.Mode {
	case "dr":
		back = "router"
	case "tun":
		back = "router"
		inside.Tunnel, inside.Into, inside.From = c.Tunnel, c.rip(i), netip.MustParseAddr(dip4)
		if c.RealServers == ipv6 {
			inside.From = netip.MustParseAddr(dip6)
		}
	case "nat":
		inside.Dst = c.served(i, port)
	case "fullnat":
		inside.Src, inside.Dst = local, c.served(i, port)
	}
	at := func(p Sight, host, link string, sent bool, to string) Sight {
		p.Host, p.Link, p.Sent, p.To = host, link, sent, to
		return p
	}
	outside := Sight{Src: client, Dst: vip}
	answer := Sight{Src: inside.Dst, Dst: inside.Src}
	list := []Sight{
		at(outside, "client", "router", true, "router"),
		at(outside, "director", "router", false, "director"),
		at(inside, "director", "lan", true, rs),
		at(inside, rs, "lan", false, rs),
		at(answer, rs, "lan", true, back),
	}
	last := Sight{Src: vip, Dst: client}
	if back == "director" {
		list = append(list, at(answer, "director", "lan", false, "director"), at(last, "director", "router", true, "router"))
	}
	return append(list, at(last, "client", "router", false, "client"))
}

func clientAddr(a netip.Addr) bool {
	return a == netip.MustParseAddr("198.18.0.2") || a == netip.MustParseAddr("2001:db8:c::2")
}

func inPool(a netip.Addr) bool {
	return netip.MustParsePrefix(pool4).Contains(a) || netip.MustParsePrefix(pool6).Contains(a)
}

// diff says where what was seen is not what was promised.
func diff(want, seen []Sight) error {
	var errs []error
	for _, w := range want {
		if !slices.Contains(seen, w) {
			errs = append(errs, fmt.Errorf("not seen: %s %v", w.place(), w))
		}
	}
	for _, s := range seen {
		if !slices.Contains(want, s) {
			errs = append(errs, fmt.Errorf("seen, but wrong: %s %v", s.place(), s))
		}
	}
	return errors.Join(errs...)
}
