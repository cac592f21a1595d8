package compat

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Counts are what a listing says of a real server, or of a whole service.
type Counts struct {
	Active, Inactive, Persistent int64 // connections and templates
	Connections                  uint64
	InPackets, OutPackets        uint64
	InBytes, OutBytes            uint64
	ConnectionRate               uint64 // a second, as all rates
	InPacketRate, OutPacketRate  uint64
	InByteRate, OutByteRate      uint64
}

// A Counter gives the Counts of a service, with rs nil, or of one of its real
// servers.
type Counter func(s *Service, rs *Server) Counts

const versionLine = "IP Virtual Server version 1.2.1 (size=4096)\n"

// WriteList prints the services as ipvsadm -L does with l's options, addresses
// and ports always as numbers.
func (t *Table) WriteList(w io.Writer, l Listing, count Counter) error {
	if _, err := io.WriteString(w, versionLine); err != nil {
		return err
	}
	return t.WriteServices(w, l, t.sorted(l.NoSort), count)
}

// WriteServices is WriteList for some of the services, which ipvsadm lists
// without its first line.
func (t *Table) WriteServices(w io.Writer, l Listing, services []*Service, count Counter) error {
	var b strings.Builder
	l.title(&b)
	for _, s := range services {
		switch {
		case l.Stats, l.Rate:
			c := count(s, nil)
			fmt.Fprintf(&b, "%-33s", clip(s.title(), 33))
			l.numbers(&b, &c)
		default:
			b.WriteString(s.title() + " " + s.settings())
		}
		b.WriteByte('\n')
		for _, rs := range s.sorted(l.NoSort) {
			c := count(s, rs)
			l.server(&b, rs, &c)
			b.WriteByte('\n')
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (l Listing) title(b *strings.Builder) {
	const servers = "  -> RemoteAddress:Port"
	switch {
	case l.Stats:
		fmt.Fprintf(b, "%-33s %8s %8s %8s %8s %8s\n%s\n", "Prot LocalAddress:Port", "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes", servers)
	case l.Rate:
		fmt.Fprintf(b, "%-33s %8s %8s %8s %8s %8s\n%s\n", "Prot LocalAddress:Port", "CPS", "InPPS", "OutPPS", "InBPS", "OutBPS", servers)
	case l.Thresholds:
		fmt.Fprintf(b, "%-33s %-10s %-10s %-10s %-10s\n%s\n", "Prot LocalAddress:Port", "Uthreshold", "Lthreshold", "ActiveConn", "InActConn", servers)
	case l.PersistentConn:
		fmt.Fprintf(b, "%-33s %-9s %-11s %-10s %-10s\n%s\n", "Prot LocalAddress:Port", "Weight", "PersistConn", "ActiveConn", "InActConn", servers)
	case l.Tunnel:
		b.WriteString("Prot LocalAddress:Port Scheduler Flags\n" + servers + "           Forward TunnelInfo    Weight ActiveConn InActConn\n")
	default:
		b.WriteString("Prot LocalAddress:Port Scheduler Flags\n" + servers + "           Forward Weight ActiveConn InActConn\n")
	}
}

func (l Listing) server(b *strings.Builder, rs *Server, c *Counts) {
	fmt.Fprintf(b, "  -> %-28s", clip(AddrPort(rs.Addr), 28))
	switch {
	case l.Stats, l.Rate:
		l.numbers(b, c)
	case l.Thresholds:
		fmt.Fprintf(b, " %-10d %-10d %-10d %-10d", rs.Upper, rs.Lower, c.Active, c.Inactive)
	case l.PersistentConn:
		fmt.Fprintf(b, " %-9d %-11d %-10d %-10d", rs.Weight, c.Persistent, c.Active, c.Inactive)
	case l.Tunnel:
		fmt.Fprintf(b, " %-7s %-13s %-6d %-10d %-10d", rs.Forward, rs.tunnelInfo(), rs.Weight, c.Active, c.Inactive)
	default:
		fmt.Fprintf(b, " %-7s %-6d %-10d %-10d", rs.Forward, rs.Weight, c.Active, c.Inactive)
	}
}

// AddrPort prints an address and port as ipvsadm does: by inet_ntop, which has
// the last four bytes of an IPv4-compatible IPv6 address with dots.
func AddrPort(a netip.AddrPort) string {
	b := a.Addr().As16()
	if a.Addr().Is4() || slices.ContainsFunc(b[:12], func(x byte) bool { return x != 0 }) || b[12] == 0 && b[13] == 0 {
		return a.String()
	}
	return fmt.Sprintf("[::%v]:%d", netip.AddrFrom4([4]byte(b[12:])), a.Port())
}

// clip cuts the name of an IPv4 service or server, which ipvsadm keeps in its
// column.
func clip(s string, n int) string {
	if strings.Contains(s, "[") {
		return s
	}
	return s[:min(len(s), n)]
}

// numbers are the five of --stats and --rate.
func (l Listing) numbers(b *strings.Builder, c *Counts) {
	all := [...]uint64{c.Connections, c.InPackets, c.OutPackets, c.InBytes, c.OutBytes}
	if l.Rate {
		all = [...]uint64{c.ConnectionRate, c.InPacketRate, c.OutPacketRate, c.InByteRate, c.OutByteRate}
	}
	for i, n := range all {
		if l.Exact {
			fmt.Fprintf(b, "%*d", max(9, len(fmt.Sprint(n))+1), n)
			continue
		}
		if l.Rate && i < 3 {
			fmt.Fprintf(b, " %8d", n)
			continue
		}
		b.WriteString(large(n))
	}
}

// large shortens a number to its column.
func large(n uint64) string {
	switch {
	case n < 1e8:
		return fmt.Sprintf("%9d", n)
	case n < 1e9:
		return fmt.Sprintf("%8dK", n/1e3)
	case n < 1e11:
		return fmt.Sprintf("%8dM", n/1e6)
	case n < 1e14:
		return fmt.Sprintf("%8dG", n/1e9)
	}
	return fmt.Sprintf("%8dT", n/1e12)
}

// title is the protocol and address of s.
func (s *Service) title() string {
	if s.Mark == 0 {
		return fmt.Sprintf("%-4s %s", protocols[s.Proto].name, AddrPort(s.Addr))
	}
	t := fmt.Sprintf("FWM  %d", s.Mark)
	if s.V6 {
		t += " IPv6"
	}
	return t
}

// settings are what -Ln says of s.
func (s *Service) settings() string {
	t := s.Scheduler
	if names := s.Flags.Names(s.Scheduler); len(names) > 0 {
		t += " (" + strings.Join(names, ",") + ")"
	}
	if s.Persistent > 0 {
		t += fmt.Sprintf(" persistent %d", s.Persistent)
		if m := s.mask(); m != "" {
			t += " mask " + m
		}
		if s.Engine != "" {
			t += " pe " + s.Engine
		}
	}
	if s.OnePacket {
		t += " ops"
	}
	return t
}

// mask is the granularity of the persistence, "" for a single client.
func (s *Service) mask() string {
	switch {
	case s.Is6() && s.PrefixLen != 0 && s.PrefixLen != 128:
		return fmt.Sprint(s.PrefixLen)
	case !s.Is6() && s.Mask.IsValid() && s.Mask != netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return s.Mask.String()
	}
	return ""
}

func (rs *Server) tunnelInfo() string {
	if rs.Forward != Tunnel {
		return "n/a"
	}
	sum := [...]string{NoSum: "-c", FullSum: "+c", RemoteSum: "r+c"}[rs.Encap.Sum]
	switch rs.Encap.Type {
	case "gue":
		return fmt.Sprintf("gue:%d:%s", rs.Encap.Port, sum)
	case "gre":
		return "gre:" + sum
	}
	return "ipip"
}

// WriteRules prints what ipvsadm -S -n prints.
func (t *Table) WriteRules(w io.Writer) error {
	var b strings.Builder
	for _, s := range t.sorted(false) {
		fmt.Fprintf(&b, "-A %s -s %s", s.Key, s.Scheduler)
		if s.Persistent > 0 {
			fmt.Fprintf(&b, " -p %d", s.Persistent)
			if m := s.mask(); m != "" {
				b.WriteString(" -M " + m)
			}
		}
		if s.Engine != "" {
			b.WriteString(" --pe " + s.Engine)
		}
		if s.OnePacket {
			b.WriteString(" -o")
		}
		if names := s.Flags.Names(s.Scheduler); len(names) > 0 {
			b.WriteString(" -b " + strings.Join(names, ","))
		}
		b.WriteByte('\n')
		for _, rs := range s.sorted(false) {
			fmt.Fprintf(&b, "-a %s -r %s %s -w %d%s\n", s.Key, AddrPort(rs.Addr), forwards[rs.Forward].option, rs.Weight, rs.tunnelRule())
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (rs *Server) tunnelRule() string {
	if rs.Forward != Tunnel {
		return ""
	}
	sum := [...]string{NoSum: " --tun-nocsum", FullSum: " --tun-csum", RemoteSum: " --tun-remcsum"}[rs.Encap.Sum]
	switch rs.Encap.Type {
	case "gue":
		return fmt.Sprintf(" --tun-type gue --tun-port %d", rs.Encap.Port) + sum
	case "gre":
		return " --tun-type gre" + sum
	}
	return " --tun-type ipip"
}

// WriteTimeouts prints what ipvsadm -L --timeout prints.
func (t *Table) WriteTimeouts(w io.Writer) error {
	now := t.CurrentTimeouts()
	_, err := fmt.Fprintf(w, "Timeout (tcp tcpfin udp): %d %d %d\n", now.TCP, now.TCPFin, now.UDP)
	return err
}

// A Connection is a line of ipvsadm -Lc.
type Connection struct {
	Proto                 string // TCP, UDP, SCTP, IP
	Expires               time.Duration
	State                 string
	Client, Virtual, Dest netip.AddrPort
	Engine, EngineData    string // of a template with a persistence engine
}

// WriteConnections prints what ipvsadm -Lnc prints; engine adds the columns of
// the persistence engine, as --persistent-conn does.
func WriteConnections(w io.Writer, all []Connection, engine bool) error {
	var b strings.Builder
	b.WriteString("IPVS connection entries\npro expire state       source             virtual            destination")
	if engine {
		b.WriteString("        pe name          pe_data")
	}
	b.WriteByte('\n')
	for _, c := range all {
		left := max(0, int(c.Expires/time.Second))
		expires := fmt.Sprintf("%02d:%02d", left/60, left%60)
		if engine && c.Engine != "" {
			fmt.Fprintf(&b, "%-3s %-6s %-11s %-18s %-18s %-16s %-18s %s\n", c.Proto, expires, c.State, AddrPort(c.Client), AddrPort(c.Virtual), AddrPort(c.Dest), c.Engine, c.EngineData)
			continue
		}
		fmt.Fprintf(&b, "%-3s %-6s %-11s %-18s %-18s %s\n", c.Proto, expires, c.State, AddrPort(c.Client), AddrPort(c.Virtual), AddrPort(c.Dest))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// sorted are the services in the order of a listing.
func (t *Table) sorted(not bool) []*Service {
	all := slices.Clone(t.Services)
	if not {
		return all
	}
	slices.SortStableFunc(all, func(a, b *Service) int {
		return cmp.Or(
			cmp.Compare(a.Mark, b.Mark),
			family(a.Is6())-family(b.Is6()),
			cmp.Compare(a.Proto, b.Proto),
			compareAddrs(a.Addr.Addr(), b.Addr.Addr()),
			cmp.Compare(a.Addr.Port(), b.Addr.Port()),
		)
	})
	return all
}

// compareAddrs orders IPv4 addresses as ipvsadm does, by a difference of 32
// bits: some large ones come before small ones.
func compareAddrs(a, b netip.Addr) int {
	if !a.Is4() || !b.Is4() {
		return a.Compare(b)
	}
	x, y := a.As4(), b.As4()
	return cmp.Compare(int32(binary.BigEndian.Uint32(x[:])-binary.BigEndian.Uint32(y[:])), 0)
}

func family(is6 bool) int {
	if is6 {
		return 6
	}
	return 4
}

func (s *Service) sorted(not bool) []*Server {
	all := slices.Clone(s.Servers)
	if not {
		return all
	}
	slices.SortStableFunc(all, func(a, b *Server) int {
		return cmp.Or(compareAddrs(a.Addr.Addr(), b.Addr.Addr()), cmp.Compare(a.Addr.Port(), b.Addr.Port()))
	})
	return all
}
