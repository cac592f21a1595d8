// Package compat speaks the language of ipvsadm: it reads its arguments and the
// rules that ipvsadm -S saves, and prints what ipvsadm prints.
//
//	line ─► Split ─► Parse ─► Command ─► Table.Do ─► Table ─► WriteList, WriteRules …
//
// A [Command] is what one line asks for. A [Table] is the services and real
// servers that a series of them leads to; it refuses what the kernel's IPVS
// refuses. Errors have ipvsadm's own words and exit status, as scripts compare
// them. The rules are those of ipvsadm 1.31.
package compat

import (
	"fmt"
	"net/netip"
	"strings"
)

// An Error is a complaint of ipvsadm.
type Error struct {
	Text   string // a line without its end
	Status int    // the exit status
}

func (e *Error) Error() string { return e.Text }

// The exit statuses of ipvsadm: of a service that cannot be listed, of a mistake
// in the arguments, and of what the kernel, or the option parser, refuses.
const (
	statusUnlisted = 1
	statusUsage    = 2
	statusRefused  = 255
)

func usage(format string, args ...any) error {
	return &Error{Text: fmt.Sprintf(format, args...), Status: statusUsage}
}

func refused(text string) error { return &Error{Text: text, Status: statusRefused} }

// An Op is the command of a line.
type Op uint8

// The commands, in the order of ipvsadm's table.
const (
	Add Op = iota
	Edit
	Delete
	Flush
	List
	AddServer
	DeleteServer
	EditServer
	SetTimeouts
	StartDaemon
	StopDaemon
	Restore
	Save
	Zero
	numOps
)

var opNames = [numOps]string{
	"add-service", "edit-service", "delete-service", "flush", "list", "add-server", "delete-server", "edit-server",
	"set", "start-daemon", "stop-daemon", "restore", "save", "zero",
}

// String is the name that ipvsadm's messages have for the command.
func (o Op) String() string { return opNames[o] }

// A Command is what one line of arguments asks for.
type Command struct {
	Op      Op
	Service *Service // the one that -t, -u, --sctp-service or -f names, with its options; nil: none
	Server  Server   // of AddServer, EditServer and DeleteServer

	Timeouts Timeouts // of SetTimeouts, in seconds; 0 keeps
	Daemon   Daemon   // of StartDaemon and StopDaemon
	List     Listing  // of List and Save
}

// Timeouts are in seconds.
type Timeouts struct{ TCP, TCPFin, UDP int }

// A Daemon is the synchronisation daemon that is meant.
type Daemon struct {
	Master    bool // or backup
	Interface string
	SyncID    int
}

// A Listing says what is to be listed, and how.
type Listing struct {
	Connections, Timeouts, Daemon                   bool // instead of services; one at most
	Stats, Rate, Thresholds, PersistentConn, Tunnel bool // one at most counts
	Numeric, Exact, NoSort                          bool
}

// A Key names a service as IPVS does.
type Key struct {
	Proto uint8 // of IP; 0 with a mark
	Addr  netip.AddrPort
	Mark  uint32 // a firewall mark instead of address and protocol; 0: none
	V6    bool   // the mark is for IPv6
}

// Is6 says whether the clients of the service are of IPv6.
func (k Key) Is6() bool {
	if k.Mark != 0 {
		return k.V6
	}
	return k.Addr.Addr().Is6()
}

// String is the service as an option with its value.
func (k Key) String() string {
	if k.Mark == 0 {
		return protocols[k.Proto].option + " " + AddrPort(k.Addr)
	}
	s := fmt.Sprintf("-f %d", k.Mark)
	if k.V6 {
		s += " -6"
	}
	return s
}

// The protocols of services.
const (
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
)

var protocols = map[uint8]struct{ name, option string }{
	protoTCP:  {"TCP", "-t"},
	protoUDP:  {"UDP", "-u"},
	protoSCTP: {"SCTP", "--sctp-service"},
}

// A Service is a virtual service.
type Service struct {
	Key
	Scheduler  string
	Flags      Flags
	OnePacket  bool
	Persistent int        // seconds; 0: not
	Mask       netip.Addr // of a persistent IPv4 service; invalid: 255.255.255.255
	PrefixLen  int        // of a persistent IPv6 service; 0: 128
	Engine     string     // persistence engine; "": none

	Servers []*Server // in the order in which they were added
}

// Flags are the three flags of a scheduler, SCHED1 first.
type Flags [3]bool

// flagNames are what two schedulers call their flags.
var flagNames = map[string][3]string{
	"sh": {"sh-fallback", "sh-port"},
	"mh": {"mh-fallback", "mh-port"},
}

// Names are the flags by the names that the scheduler has for them.
func (f Flags) Names(scheduler string) (names []string) {
	for i, set := range f {
		if !set {
			continue
		}
		own, has := flagNames[scheduler]
		switch {
		case !has:
			names = append(names, fmt.Sprintf("flag-%d", i+1))
		case own[i] != "": // ipvsadm does not tell of the third flag of these
			names = append(names, own[i])
		}
	}
	return names
}

// parseFlags reads the value of -b for a scheduler.
func parseFlags(value, scheduler string) (f Flags, err error) {
	for name := range strings.SplitSeq(value, ",") {
		at := -1
		for i := range f {
			if name == fmt.Sprintf("flag-%d", i+1) {
				at = i
			}
		}
		for owner, names := range flagNames {
			for i, n := range names {
				if n == "" || n != name {
					continue
				}
				if owner != scheduler {
					return f, usage("incompatible scheduler flag `%s'", name)
				}
				at = i
			}
		}
		if at < 0 {
			return f, usage("invalid scheduler flag `%s'", name)
		}
		f[at] = true
	}
	return f, nil
}

// A Forward is a forwarding method.
type Forward uint8

// The forwarding methods of IPVS.
const (
	Route  Forward = iota // -g, direct routing
	Masq                  // -m, NAT
	Tunnel                // -i
)

var forwards = [...]struct{ name, option string }{Route: {"Route", "-g"}, Masq: {"Masq", "-m"}, Tunnel: {"Tunnel", "-i"}}

// String is the name in a listing.
func (f Forward) String() string { return forwards[f].name }

// A Server is a real server.
type Server struct {
	Addr         netip.AddrPort
	Forward      Forward
	Weight       int
	Upper, Lower int // thresholds of connections; 0: none
	Encap        Encap
}

// An Encap says how a Tunnel encapsulates.
type Encap struct {
	Type string // ipip, gue or gre; "": ipip
	Port uint16 // of gue
	Sum  Sum
}

// Sum is what becomes of the checksum of the outer header.
type Sum uint8

// The checksums of GUE and GRE.
const (
	NoSum     Sum = iota
	FullSum       // --tun-csum
	RemoteSum     // --tun-remcsum, of GUE
)
