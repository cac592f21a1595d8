package compat

import (
	"cmp"
	"net/netip"
	"slices"
)

// A Table is the services of an IPVS, with their real servers. Its zero value
// has none and IPVS's timeouts.
type Table struct {
	Services []*Service // in the order in which they were added
	Timeouts Timeouts   // those that were set; 0: IPVS's default

	// Unicast says whether an address can be a real server's on the host; nil:
	// every one that is not obviously none.
	Unicast func(netip.Addr) bool

	running [2]bool // the daemons: backup, master

	// Scheduler says whether there is one of the name; nil: all that IPVS has.
	Scheduler func(name string) bool
}

var errNotUnicast = refused("Invalid operation.  Possibly wrong module version, address not unicast, ...")

var schedulers = []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos"}

// DefaultTimeouts are IPVS's, in seconds.
var DefaultTimeouts = Timeouts{TCP: 900, TCPFin: 120, UDP: 300}

// CurrentTimeouts are those in force, in seconds.
func (t *Table) CurrentTimeouts() Timeouts {
	return Timeouts{
		TCP:    cmp.Or(t.Timeouts.TCP, DefaultTimeouts.TCP),
		TCPFin: cmp.Or(t.Timeouts.TCPFin, DefaultTimeouts.TCPFin),
		UDP:    cmp.Or(t.Timeouts.UDP, DefaultTimeouts.UDP),
	}
}

// Find is the service of that name, or nil.
func (t *Table) Find(k Key) *Service {
	for _, s := range t.Services {
		if s.Key == k {
			return s
		}
	}
	return nil
}

// Find is the real server of that address, or nil.
func (s *Service) Find(a netip.AddrPort) *Server {
	for _, rs := range s.Servers {
		if rs.Addr == a {
			return rs
		}
	}
	return nil
}

// Do changes the table as c says, or refuses with an *Error and changes
// nothing. Commands that change no service and no real server do nothing.
func (t *Table) Do(c *Command) error {
	var s *Service
	if c.Service != nil {
		s = t.Find(c.Service.Key)
	}
	switch c.Op {
	case Add:
		return t.add(s, c.Service)
	case Edit:
		if s == nil {
			return refused("No such service")
		}
		if err := t.checkScheduler(c.Service); err != nil {
			return err
		}
		servers := s.Servers
		*s = *c.Service
		s.Servers = servers
	case Delete:
		if s == nil {
			return refused("No such service")
		}
		t.Services = slices.DeleteFunc(t.Services, func(o *Service) bool { return o == s })
	case Flush:
		t.Services = nil
	case List:
		if c.Service != nil && s == nil {
			return &Error{Text: "No such service", Status: statusUnlisted}
		}
	case Zero:
		if c.Service != nil && s == nil {
			return refused("No such service")
		}
	case AddServer, EditServer, DeleteServer:
		if s == nil {
			return refused("Service not defined")
		}
		if c.Op != DeleteServer && t.Unicast != nil && !t.Unicast(c.Server.Addr.Addr()) {
			return errNotUnicast
		}
		return s.do(c)
	case StartDaemon, StopDaemon:
		which := 0
		if c.Daemon.Master {
			which = 1
		}
		switch {
		case c.Op == StartDaemon && t.running[which]:
			return refused("Daemon has already run")
		case c.Op == StopDaemon && !t.running[which]:
			return refused("No daemon is running")
		}
		t.running[which] = c.Op == StartDaemon
	case SetTimeouts:
		t.Timeouts.TCP = cmp.Or(c.Timeouts.TCP, t.Timeouts.TCP)
		t.Timeouts.TCPFin = cmp.Or(c.Timeouts.TCPFin, t.Timeouts.TCPFin)
		t.Timeouts.UDP = cmp.Or(c.Timeouts.UDP, t.Timeouts.UDP)
	}
	return nil
}

func (t *Table) add(there, s *Service) error {
	if there != nil {
		return refused("Service already exists")
	}
	if err := t.checkScheduler(s); err != nil {
		return err
	}
	added := *s
	t.Services = append(t.Services, &added)
	return nil
}

func (t *Table) checkScheduler(s *Service) error {
	known := slices.Contains(schedulers, s.Scheduler)
	if t.Scheduler != nil {
		known = t.Scheduler(s.Scheduler)
	}
	if !known || s.Engine != "" && s.Engine != "sip" {
		return refused("Scheduler or persistence engine not found")
	}
	return nil
}

// do changes the real servers.
func (s *Service) do(c *Command) error {
	rs := s.Find(c.Server.Addr)
	if c.Op == DeleteServer {
		if rs == nil {
			return refused("No such destination")
		}
		s.Servers = slices.DeleteFunc(s.Servers, func(o *Server) bool { return o == rs })
		return nil
	}
	a := c.Server.Addr.Addr()
	switch {
	case c.Server.Lower > c.Server.Upper:
		return refused("Numerical result out of range")
	case c.Op == AddServer && rs != nil:
		return refused("Destination already exists")
	case c.Op == EditServer && rs == nil:
		return refused("No such destination")
	case a.IsMulticast(), a.IsUnspecified(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}), a.Is6() && a.IsLinkLocalUnicast():
		return errNotUnicast
	}
	if rs != nil {
		*rs = c.Server
		return nil
	}
	added := c.Server
	s.Servers = append(s.Servers, &added)
	return nil
}
