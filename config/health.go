package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Health is how the real servers of a service are checked. After Parse what
// was not set has its default. Which keys a check has is in checkKeys.
type Health struct {
	Type         string        `mapstructure:"type"` // none: all are taken as up
	Via          Via           `mapstructure:"via"`
	Port         int           `mapstructure:"port"`          // 0: see Service.CheckPort
	Interval     time.Duration `mapstructure:"interval"`      // from one check to the next
	FastInterval time.Duration `mapstructure:"fast_interval"` // while results speak against the state
	Timeout      time.Duration `mapstructure:"timeout"`       // of one check
	Rise         int           `mapstructure:"rise"`          // good checks in a row that bring a real server up
	Fall         int           `mapstructure:"fall"`          // bad ones that bring it down

	Method  string   `mapstructure:"method"`
	Path    string   `mapstructure:"path"`
	Host    string   `mapstructure:"host"`
	Send    string   `mapstructure:"send"`
	Expect  Expect   `mapstructure:"expect"` // http, https: status codes as ParseCodes reads them; else a text
	Body    string   `mapstructure:"expect_body"`
	TLS     TLS      `mapstructure:"tls"`
	Name    string   `mapstructure:"name"`
	Record  string   `mapstructure:"record"`
	Service string   `mapstructure:"service"`
	Command []string `mapstructure:"command"`
	Agent   Agent    `mapstructure:"agent"`
	Passive Passive  `mapstructure:"passive"`
}

// Passive is what the connections of clients say of a real server, in nat and
// fullnat: those that it refuses or does not answer.
type Passive struct {
	Failures int           `mapstructure:"failures"` // so many in a row eject it; 0: they do not count
	Ejection time.Duration `mapstructure:"ejection"` // for so long the first time
	Limit    int           `mapstructure:"limit"`    // per cent of the service's weight that is ejected at one time at most
}

// inherit fills in the defaults where they count.
func (p *Passive) inherit() {
	if *p != (Passive{}) {
		p.Ejection = cmp.Or(p.Ejection, 10*time.Second)
		p.Limit = cmp.Or(p.Limit, 50)
	}
}

// Via is the way that a check takes.
type Via string

// The ways.
const (
	ViaServer Via = "server" // to the real server's own address
	ViaMode   Via = "mode"   // to the VIP, by the forwarding mode
)

// Agent is a program on each real server that says how it is, as HAProxy's
// agent-check asks it.
type Agent struct {
	Port     int           `mapstructure:"port"` // 0: there is none
	Send     string        `mapstructure:"send"`
	Interval time.Duration `mapstructure:"interval"`
	Timeout  time.Duration `mapstructure:"timeout"`
}

// inherit fills in the defaults of an agent that there is.
func (a *Agent) inherit() {
	if *a != (Agent{}) {
		a.Interval = cmp.Or(a.Interval, 2*time.Second)
		a.Timeout = cmp.Or(a.Timeout, min(a.Interval, time.Second))
	}
}

// TLS is how a check secures its connection.
type TLS struct {
	ServerName string `mapstructure:"server_name"`
	CA         string `mapstructure:"ca"` // path, or system; empty: the certificate is not verified
	Cert       string `mapstructure:"cert"`
	Key        string `mapstructure:"key"`
}

// Expect is what a check wants to be answered. A file may write it as a number.
type Expect string

// Codes is a range of HTTP status codes, both included.
type Codes struct{ First, Last int }

// ParseCodes reads "200-299, 301".
func ParseCodes(s Expect) ([]Codes, error) {
	var codes []Codes
	for part := range strings.SplitSeq(string(s), ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		c := Codes{}
		var errs [2]error
		c.First, errs[0] = strconv.Atoi(first)
		c.Last, errs[1] = strconv.Atoi(last)
		if errs != [2]error{} || c.First < 100 || c.Last > 599 || c.Last < c.First {
			return nil, fmt.Errorf("%q is not a list of status codes such as 200-299, 301", string(s))
		}
		codes = append(codes, c)
	}
	return codes, nil
}

// healthDefaults are those of a section that is there.
var healthDefaults = map[string]any{
	"type":     "none",
	"via":      string(ViaServer),
	"interval": "2s",
	"rise":     2,
	"fall":     3,
}

// inherit fills in what depends on other keys. What is not checked has no
// timing.
func (h *Health) inherit() {
	h.Agent.inherit()
	h.Passive.inherit()
	if h.Type = cmp.Or(h.Type, "none"); h.Type == "none" {
		h.Via, h.Interval, h.FastInterval, h.Timeout, h.Rise, h.Fall = "", 0, 0, 0, 0, 0
		return
	}
	h.FastInterval = cmp.Or(h.FastInterval, h.Interval/4)
	h.Timeout = cmp.Or(h.Timeout, min(h.Interval, time.Second))
	if h.Type == "dns" {
		h.Record = cmp.Or(h.Record, "A")
	}
	if h.WantsCodes() {
		h.Method = cmp.Or(h.Method, "GET")
		h.Path = cmp.Or(h.Path, "/")
		h.Expect = cmp.Or(h.Expect, "200-399")
	}
}

// WantsCodes says whether Expect holds status codes of HTTP.
func (h *Health) WantsCodes() bool { return checkKeys[h.Type].http }

// A checkKind says what a type of check needs and takes.
type checkKind struct {
	over Protocol // what it is sent by; empty: it has no port of its own
	port bool     // it takes a port all the same
	keys []string // of its own
	need string   // the one of them that must be given
	http bool
}

var (
	httpKeys = []string{"method", "path", "host", "expect", "expect_body"}

	checkKeys = map[string]checkKind{
		"dns":    {over: UDP, keys: []string{"name", "record", "expect"}, need: "name"},
		"grpc":   {over: TCP, keys: []string{"service"}},
		"grpcs":  {over: TCP, keys: []string{"service", "host", "tls"}},
		"http":   {over: TCP, http: true, keys: httpKeys},
		"https":  {over: TCP, http: true, keys: append([]string{"tls"}, httpKeys...)},
		"icmp":   {},
		"none":   {},
		"redis":  {over: TCP},
		"script": {port: true, keys: []string{"command"}, need: "command"},
		"smtp":   {over: TCP, keys: []string{"host"}},
		"tcp":    {over: TCP, keys: []string{"send", "expect"}},
		"tls":    {over: TCP, keys: []string{"host", "tls"}},
		"udp":    {over: UDP, keys: []string{"send", "expect"}, need: "send"},
	}
)

func checkNames() []string { return slices.Sorted(maps.Keys(checkKeys)) }

// CheckPort is the port of rs that is checked: that of the health section, or
// the real server's own, or the one that all listens of a fitting protocol
// share; 0 where none of these is one port, or the check has none.
func (s *Service) CheckPort(rs *RealServer) uint16 {
	kind := checkKeys[s.Health.Type]
	switch {
	case s.Health.Port != 0:
		return uint16(s.Health.Port)
	case kind.port:
		return rs.Address.Port()
	case kind.over == "":
		return 0
	}
	var port uint16
	fits := false
	for _, l := range s.Listen {
		if l.Protocol != kind.over {
			continue
		}
		fits = true
		if !l.SinglePort() || port != 0 && port != l.First {
			port = 0
			break
		}
		port = l.First
	}
	if fits && rs.Address.Port() != 0 {
		return rs.Address.Port()
	}
	return port
}

const (
	minInterval = 10 * time.Millisecond
	maxInterval = time.Hour
	maxStreak   = 1000
)

func (fs *faults) checkHealth(path string, s *Service) {
	h := &s.Health
	kind, ok := checkKeys[h.Type]
	if !ok {
		fs.add(path+".type", "%q is none of %s", h.Type, strings.Join(checkNames(), ", "))
		return
	}
	fs.checkKeysOf(path, h, kind)
	if a := &h.Agent; *a != (Agent{}) {
		fs.between(path+".agent.port", a.Port, 1, 65535)
		fs.duration(path+".agent.interval", a.Interval, minInterval, maxInterval)
		fs.duration(path+".agent.timeout", a.Timeout, time.Millisecond, a.Interval)
	}
	fs.checkPassive(path+".passive", s)
	if h.Type == "none" {
		return
	}
	fs.duration(path+".interval", h.Interval, minInterval, maxInterval)
	fs.duration(path+".fast_interval", h.FastInterval, time.Millisecond, h.Interval)
	fs.duration(path+".timeout", h.Timeout, time.Millisecond, h.Interval)
	fs.between(path+".rise", h.Rise, 1, maxStreak)
	fs.between(path+".fall", h.Fall, 1, maxStreak)
	fs.between(path+".port", h.Port, 0, 65535)
	if kind.http {
		if _, err := ParseCodes(h.Expect); err != nil {
			fs.add(path+".expect", "%v", err)
		}
		if !strings.HasPrefix(h.Path, "/") {
			fs.add(path+".path", "%q does not begin with /", h.Path)
		}
	}
	if slices.Contains(kind.keys, "tls") {
		fs.checkTLS(path+".tls", h)
	}
	if len(h.Command) > 0 {
		fs.checkFile(path+".command[0]", h.Command[0])
	}
	oneOf(fs, path+".via", h.Via, ViaServer, ViaMode)
	if h.Via == ViaMode {
		fs.checkVia(path+".via", s, kind)
		return
	}
	fs.checkCheckPort(path, s, kind)
}

// checkPassive notes what is out of range, and services whose connections
// nobody sees being answered.
func (fs *faults) checkPassive(path string, s *Service) {
	p := &s.Health.Passive
	if *p == (Passive{}) {
		return
	}
	fs.between(path+".failures", p.Failures, 1, maxStreak)
	fs.duration(path+".ejection", p.Ejection, 100*time.Millisecond, maxInterval)
	fs.between(path+".limit", p.Limit, 1, 100)
	if !slices.ContainsFunc(s.Listen, func(l Listen) bool { return l.Protocol == TCP || l.Protocol == "" }) {
		fs.add(path, "no listen of the service is over tcp, which alone has connections")
	}
	for j := range s.RealServers {
		if m := s.RealServers[j].Mode; m == DR || m == TUN {
			fs.add(path, "real_servers[%d] is in mode %s, in which it answers clients past uvs", j, m)
		}
	}
}

// checkVia notes real servers that no check can reach by their mode.
func (fs *faults) checkVia(path string, s *Service, kind checkKind) {
	if kind.over == "" {
		fs.add(path, "a check of type %s does not go to a VIP", s.Health.Type)
		return
	}
	for j := range s.RealServers {
		rs := &s.RealServers[j]
		if rs.Mode == NAT {
			fs.add(path, "real_servers[%d] is in mode nat, in which the replies to the director's own address do not cross uvs; check it by its own address", j)
		}
		if _, ok := s.CheckVIP(rs); !ok && rs.Address.IsValid() {
			fs.add(path, "no listen over %s on the port of the check takes it to real_servers[%d], %v", kind.over, j, rs.Address.Addr())
		}
	}
}

// CheckVIP is the VIP with the port by which a check through the mode reaches
// rs. Where several do, it is the first, of the family of rs if there is one.
func (s *Service) CheckVIP(rs *RealServer) (vip netip.AddrPort, ok bool) {
	for _, l := range s.Listen {
		port := uint16(s.Health.Port)
		if port == 0 && l.SinglePort() {
			port = l.First
		}
		switch same := l.Addr.Is4() == rs.Address.Addr().Is4(); {
		case l.Protocol != checkKeys[s.Health.Type].over, port == 0, port < l.First, port > l.Last:
		case same:
			return netip.AddrPortFrom(l.Addr, port), true
		case !ok && (rs.Mode == TUN || rs.Mode == FullNAT):
			vip, ok = netip.AddrPortFrom(l.Addr, port), true
		}
	}
	return vip, ok
}

// checkKeysOf notes keys that say something to another type of check, and the
// one that is missing for this.
func (fs *faults) checkKeysOf(path string, h *Health, kind checkKind) {
	v := reflect.ValueOf(*h)
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("mapstructure")
		if key == kind.need && v.Field(i).IsZero() {
			fs.add(path+"."+key, "missing, and a check of type %s is nothing without it", h.Type)
		}
		if commonKeys[key] || v.Field(i).IsZero() || slices.Contains(kind.keys, key) {
			continue
		}
		if key == "port" && (kind.over != "" || kind.port) {
			continue
		}
		fs.add(path+"."+key, "a check of type %s has no %s", h.Type, key)
	}
}

// commonKeys are those that every type of check has.
var commonKeys = map[string]bool{"type": true, "via": true, "interval": true, "fast_interval": true, "timeout": true, "rise": true, "fall": true, "agent": true, "passive": true}

func (fs *faults) checkTLS(path string, h *Health) {
	if h.TLS.CA != "system" {
		fs.checkFile(path+".ca", h.TLS.CA)
	}
	fs.checkFile(path+".cert", h.TLS.Cert)
	fs.checkFile(path+".key", h.TLS.Key)
	if (h.TLS.Cert == "") != (h.TLS.Key == "") {
		fs.add(path, "cert and key belong together")
	}
	if h.TLS.CA != "" && h.TLS.ServerName == "" && h.Host == "" {
		fs.add(path+".server_name", "missing: ca is given, so the name that the certificate must have is needed, here or as host")
	}
}

// checkFile notes the path of a file that depends on where uvs was started.
func (fs *faults) checkFile(path, file string) {
	if file != "" && !filepath.IsAbs(file) {
		fs.add(path, "%q must be an absolute path", file)
	}
}

// checkCheckPort notes a check that has nowhere to go.
func (fs *faults) checkCheckPort(path string, s *Service, kind checkKind) {
	if kind.over == "" || s.Health.Port != 0 || len(s.Listen) == 0 {
		return
	}
	if !slices.ContainsFunc(s.Listen, func(l Listen) bool { return l.Protocol == kind.over || l.Protocol == "" }) {
		fs.add(path+".port", "missing: a check of type %s goes over %s, and no listen of the service does", s.Health.Type, kind.over)
		return
	}
	for j := range s.RealServers {
		if rs := &s.RealServers[j]; rs.Address.IsValid() && s.CheckPort(rs) == 0 {
			fs.add(path+".port", "missing: real_servers[%d], %v, has no port of its own, and the listens have more than one", j, rs.Address.Addr())
		}
	}
}
