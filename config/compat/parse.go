package compat

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultScheduler  = "wlc"
	defaultPersistent = 360               // seconds
	maxTimeout        = 31 * 24 * 60 * 60 // seconds
)

// Split cuts a line of rules into arguments: by white space, without quotes,
// and without the program's name in front, as ipvsadm -R does.
func Split(line string) []string {
	f := strings.Fields(line)
	if len(f) > 0 && f[0] == "ipvsadm" {
		f = f[1:]
	}
	return f
}

// commands are the options that must stand first.
var commands = map[string]Op{
	"add-service": Add, "edit-service": Edit, "delete-service": Delete, "clear": Flush, "list": List,
	"add-server": AddServer, "edit-server": EditServer, "delete-server": DeleteServer, "set": SetTimeouts,
	"start-daemon": StartDaemon, "stop-daemon": StopDaemon, "restore": Restore, "save": Save, "zero": Zero,
}

var errTryHelp = refused("Try `ipvsadm -h' or 'ipvsadm --help' for more information.")

// Parse reads the arguments of ipvsadm, without the program's name. The error
// is an *Error. Names of hosts and of ports are not looked up: addresses and
// ports are numbers.
func Parse(args []string) (*Command, error) {
	options, rest, err := words(args)
	if len(options) == 0 {
		return nil, errTryHelp
	}
	if err != nil {
		return nil, err
	}
	op, ok := commands[options[0].name]
	if !ok {
		return nil, errTryHelp
	}
	p := parser{
		Command: Command{Op: op, Server: Server{Weight: 1}},
		svc:     Service{Scheduler: defaultScheduler},
		set:     map[option]bool{},
	}
	if err := p.daemon(options[0]); err != nil {
		return nil, err
	}
	for _, a := range options[1:] {
		if err := p.option(a); err != nil {
			return nil, err
		}
	}
	if op == SetTimeouts {
		if rest, err = p.timeouts(rest); err != nil {
			return nil, err
		}
	}
	if len(rest) > 0 {
		return nil, usage("unexpected argument %s", rest[0])
	}
	if err := check(op, p.set); err != nil {
		return nil, err
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	return &p.Command, nil
}

// A parser collects the options of one line.
type parser struct {
	Command
	svc   Service
	flags string // the value of -b, read when the scheduler is known
	set   map[option]bool
}

func (p *parser) daemon(a argument) error {
	switch {
	case p.Op != StartDaemon && p.Op != StopDaemon:
		return nil
	case a.value != "master" && a.value != "backup" && p.Op == StartDaemon:
		return usage("illegal start-daemon parameter specified")
	case a.value != "master" && a.value != "backup":
		return usage("illegal start_daemon specified")
	}
	p.Daemon = Daemon{Master: a.value == "master", Interface: "eth0"}
	return nil
}

// switches are the options without a value.
var switches = map[string]option{
	"connection": optConnection, "numeric": optNumeric, "timeout": optTimeout, "daemon": optDaemon,
	"stats": optStats, "rate": optRate, "thresholds": optThresholds, "persistent-conn": optPersistentConn,
	"nosort": optNoSort, "exact": optExact, "tun-info": optTunInfo, "ops": optOnePacket, "tun-nocsum": optTunNoSum,
	"tun-csum": optTunSum, "tun-remcsum": optTunRemSum, "masquerading": optForward, "ipip": optForward,
	"gatewaying": optForward, "tcp-service": optService, "udp-service": optService, "sctp-service": optService,
	"fwmark-service": optService, "scheduler": optScheduler, "persistent": optPersistent, "netmask": optNetmask,
	"real-server": optServer, "weight": optWeight, "u-threshold": optUpper, "l-threshold": optLower,
	"mcast-interface": optMcast, "syncid": optSyncID, "sync-maxlen": optSyncMaxLen, "mcast-group": optMcastGroup,
	"mcast-port": optMcastPort, "mcast-ttl": optMcastTTL, "pe": optEngine, "sched-flags": optFlags,
	"tun-type": optTunType, "tun-port": optTunPort, "sort": optNone, "ipv6": optNone,
}

// option reads one option behind the command.
func (p *parser) option(a argument) error {
	o, ok := switches[a.name]
	switch {
	case !ok:
		return usage("invalid option `%s'", a.flag)
	case o != optNone && p.set[o]:
		return usage("multiple '%s' options specified", optionNames[o])
	}
	p.set[o] = true
	var err error
	switch a.name {
	case "tcp-service", "udp-service", "sctp-service":
		p.svc.Proto = map[string]uint8{"tcp-service": protoTCP, "udp-service": protoUDP, "sctp-service": protoSCTP}[a.name]
		if p.svc.Addr, _, ok = address(a.value); !ok {
			return usage("illegal virtual server address[:port] specified")
		}
	case "fwmark-service":
		n, err := strconv.ParseUint(a.value, 10, 32)
		if err != nil || n == 0 {
			return usage("invalid fwmark value `%s' specified", a.value)
		}
		p.svc.Mark = uint32(n)
	case "ipv6":
		if p.svc.Mark == 0 {
			return usage("-6 used before -f\n")
		}
		p.svc.V6 = true
	case "scheduler":
		p.svc.Scheduler = a.value
	case "sched-flags":
		p.flags = a.value
	case "persistent":
		p.svc.Persistent = defaultPersistent
		if a.given {
			p.svc.Persistent, err = seconds(a.value, 1)
		}
	case "netmask":
		err = p.netmask(a.value)
	case "pe":
		p.svc.Engine = a.value
	case "ops":
		p.svc.OnePacket = true
	case "real-server":
		var port bool
		if p.Server.Addr, port, ok = address(a.value); !ok {
			return usage("illegal real server address[:port] specified")
		}
		if !port {
			p.Server.Addr = netip.AddrPortFrom(p.Server.Addr.Addr(), p.svc.Addr.Port())
		}
	case "gatewaying":
		p.Server.Forward = Route
	case "masquerading":
		p.Server.Forward = Masq
	case "ipip":
		p.Server.Forward = Tunnel
	case "weight":
		p.Server.Weight, err = number(a.value, 0, math.MaxInt32, "illegal weight specified")
	case "u-threshold":
		p.Server.Upper, err = number(a.value, 0, math.MaxInt32, "illegal u_threshold specified")
	case "l-threshold":
		p.Server.Lower, err = number(a.value, 0, math.MaxInt32, "illegal l_threshold specified")
	case "tun-type":
		if tunnelAllowed[a.value] == "" {
			return usage("illegal tunnel type specified")
		}
		p.Server.Encap.Type = a.value
	case "tun-port":
		var n int
		n, err = number(a.value, 1, math.MaxUint16, "illegal tunnel port specified")
		p.Server.Encap.Port = uint16(n)
	case "tun-csum":
		p.Server.Encap.Sum = FullSum
	case "tun-remcsum":
		p.Server.Encap.Sum = RemoteSum
	case "mcast-interface":
		p.Daemon.Interface = a.value
	case "syncid":
		p.Daemon.SyncID, err = number(a.value, 0, 255, "illegal syncid specified")
	case "sync-maxlen":
		_, err = number(a.value, 1, 65507, "illegal sync-maxlen specified")
	case "mcast-port":
		_, err = number(a.value, 1, math.MaxUint16, "illegal mcast-port specified")
	case "mcast-ttl":
		_, err = number(a.value, 1, 255, "illegal mcast-ttl specified")
	case "mcast-group":
		if ip, bad := netip.ParseAddr(a.value); bad != nil || !ip.IsMulticast() {
			family := "IPv4"
			if strings.Contains(a.value, ":") {
				family = "IPv6"
			}
			return usage("invalid %s mcast-group `%s'", family, a.value)
		}
	}
	return err
}

// finish does what depends on several options.
func (p *parser) finish() error {
	l := &p.Command.List
	l.Connections, l.Timeouts, l.Daemon = p.set[optConnection], p.set[optTimeout], p.set[optDaemon]
	l.Stats, l.Rate, l.Thresholds = p.set[optStats], p.set[optRate], p.set[optThresholds]
	l.PersistentConn, l.Tunnel = p.set[optPersistentConn], p.set[optTunInfo]
	l.Numeric, l.Exact, l.NoSort = p.set[optNumeric], p.set[optExact], p.set[optNoSort]
	if p.set[optService] {
		p.Service = &p.svc
	}
	switch p.Op {
	case List:
		if (l.Connections || l.Timeouts || l.Daemon) && (l.Stats || l.Rate || l.Thresholds) ||
			(l.Timeouts || l.Daemon) && l.PersistentConn {
			return usage("options conflicts in the list command")
		}
	case Add, Edit:
		if p.svc.Mark == 0 && p.svc.Addr.Port() == 0 && p.svc.Persistent == 0 {
			return usage("Zero port specified for non-persistent service")
		}
		if p.svc.OnePacket && p.svc.Mark == 0 && p.svc.Proto != protoUDP {
			return usage("One-Packet Scheduling is only for UDP virtual services")
		}
		if p.set[optFlags] {
			var err error
			p.svc.Flags, err = parseFlags(p.flags, p.svc.Scheduler)
			return err
		}
	case AddServer, EditServer:
		return p.finishServer()
	}
	return nil
}

func (p *parser) finishServer() error {
	s := &p.Server
	if p.svc.Mark == 0 && s.Forward != Masq {
		s.Addr = netip.AddrPortFrom(s.Addr.Addr(), p.svc.Addr.Port())
	}
	if s.Addr.Addr().Is6() != p.svc.Is6() && s.Forward != Tunnel {
		return usage("Different address family is allowed only for tunneling servers")
	}
	tunnel := slices.ContainsFunc([]option{optTunType, optTunPort, optTunNoSum, optTunSum, optTunRemSum},
		func(o option) bool { return p.set[o] })
	if !tunnel {
		return nil
	}
	if s.Forward != Tunnel {
		return usage("Tunnel options conflict with forward method")
	}
	if s.Encap.Type == "" {
		s.Encap.Type = "ipip"
	}
	return checkTunnel(s.Encap.Type, p.set)
}

func (p *parser) netmask(value string) error {
	if p.svc.Is6() {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > 128 {
			return usage("illegal ipv6 netmask specified")
		}
		p.svc.PrefixLen = n
		return nil
	}
	m, ok := addr4(value)
	if !ok {
		return usage("illegal virtual server persistent mask specified")
	}
	p.svc.Mask = m
	return nil
}

// timeouts takes the three values of --set.
func (p *parser) timeouts(rest []string) ([]string, error) {
	if len(rest) < 3 {
		return nil, usage("--set option requires 3 timeout values")
	}
	for i, to := range []*int{&p.Timeouts.TCP, &p.Timeouts.TCPFin, &p.Timeouts.UDP} {
		var err error
		if *to, err = seconds(rest[i], 0); err != nil {
			return nil, err
		}
	}
	return rest[3:], nil
}

func seconds(s string, least int) (int, error) {
	n, err := number(s, least, maxTimeout, "")
	if err != nil {
		return 0, usage("invalid timeout value `%s' specified", s)
	}
	return n, nil
}

// number reads one between both ends, or complains with text.
func number(s string, least, most int, text string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, usage("%s", text)
	}
	return n, nil
}

// address reads A, A:P or [A]:P; port says whether there was one.
func address(s string) (ap netip.AddrPort, port, ok bool) {
	host, p := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || end+1 == len(s) || s[end+1] != ':' {
			return ap, false, false
		}
		host, p, port = s[1:end], s[end+2:], true
	} else if strings.Count(s, ":") == 1 {
		host, p, port = s[:strings.IndexByte(s, ':')], s[strings.IndexByte(s, ':')+1:], true
	}
	a, ok := addr4(host)
	if _, err := strconv.Atoi(s); err == nil {
		return ap, false, false
	}
	if !ok {
		var err error
		if a, err = netip.ParseAddr(host); err != nil || a.Zone() != "" {
			return ap, false, false
		}
	}
	var n uint64
	if port {
		var err error
		if n, err = strconv.ParseUint(p, 10, 16); err != nil {
			return ap, false, false
		}
	}
	return netip.AddrPortFrom(a, uint16(n)), port, true
}

// addr4 reads an IPv4 address as inet_aton does: of fewer than four numbers the
// last one fills what is left.
func addr4(s string) (netip.Addr, bool) {
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var all uint32
	for i, part := range parts {
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (4 - i)
		}
		n, err := strconv.ParseUint(part, 10, bits)
		if err != nil {
			return netip.Addr{}, false
		}
		if i == len(parts)-1 {
			all |= uint32(n)
		} else {
			all |= uint32(n) << (24 - 8*i)
		}
	}
	return netip.AddrFrom4([4]byte{byte(all >> 24), byte(all >> 16), byte(all >> 8), byte(all)}), true
}
