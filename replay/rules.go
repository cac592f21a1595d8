package replay

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"

	"github.com/uvs-project/uvs/config/compat"
	"github.com/uvs-project/uvs/lb"
	"github.com/uvs-project/uvs/lb/sched"
	"github.com/uvs-project/uvs/modes"
	"github.com/uvs-project/uvs/packet"
)

// Ipvsadm does what ipvsadm does with the arguments, and gives its exit status
// and what it prints.
func (d *Director) Ipvsadm(args string) (status int, text string) {
	c, err := compat.Parse(compat.Split(args))
	if err == nil {
		err = d.do(c)
	}
	if e := new(compat.Error); errors.As(err, &e) {
		return e.Status, e.Text + "\n"
	}
	if err != nil {
		return 255, err.Error() + "\n"
	}
	switch c.Op {
	case compat.List, compat.Save:
		return 0, d.list(c)
	}
	return 0, ""
}

// do puts a command into force.
func (d *Director) do(c *compat.Command) error {
	if err := d.table.Do(c); err != nil {
		return err
	}
	switch c.Op {
	case compat.List, compat.Save, compat.StartDaemon, compat.StopDaemon, compat.Restore:
		return nil
	case compat.Zero:
		return d.zero(c)
	}
	err := d.apply()
	d.tick() // what the balancer does in the background happens before the next step
	return err
}

// apply gives the balancer the table as a whole.
func (d *Director) apply() error {
	gone := d.policy(&compat.Service{})
	c := lb.Config{Gone: &gone}
	for _, s := range d.table.Services {
		if s.Mark != 0 && len(d.marked[s.Key]) == 0 {
			continue // no packet has the mark
		}
		sc, err := d.service(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Key, err)
		}
		c.Services = append(c.Services, sc)
	}
	if err := d.balancer.Apply(c); err != nil {
		return err
	}
	d.pathMTUs()
	return nil
}

// listens are what a service is for.
func (d *Director) listens(k compat.Key) []lb.Listen {
	if k.Mark != 0 {
		return d.marked[k]
	}
	return []lb.Listen{{VIP: k.Addr.Addr(), FirstPort: k.Addr.Port(), Proto: k.Proto}}
}

func (d *Director) service(s *compat.Service) (lb.ServiceConfig, error) {
	build, err := sched.New(s.Scheduler, sched.Options{Flags: knownFlags(s)})
	if err != nil {
		return lb.ServiceConfig{}, err
	}
	timeouts := d.table.Timeouts
	sc := lb.ServiceConfig{
		Name:      s.Key.String(),
		Listens:   d.listens(s.Key),
		Scheduler: build,
		Timeouts: lb.Timeouts{
			lb.TCPEstablished: time.Duration(timeouts.TCP) * time.Second,
			lb.TCPFinWait:     time.Duration(timeouts.TCPFin) * time.Second,
			lb.UDPNormal:      time.Duration(timeouts.UDP) * time.Second,
		},
		Policy: d.policy(s),
	}
	if sc.Persistence, err = persistence(s); err != nil {
		return sc, err
	}
	for _, rs := range s.Servers {
		m, err := d.mode(rs, sc.Listens)
		if err != nil {
			return sc, err
		}
		sc.RealServers = append(sc.RealServers, lb.RealServerConfig{
			Address: rs.Addr, Weight: rs.Weight, Mode: m, MaxFlows: rs.Upper, MinFlows: rs.Lower,
			AnswerFrom: d.host.net.source(rs.Addr.Addr()),
		})
	}
	return sc, nil
}

// knownFlags are the flags that mean something to the scheduler; IPVS keeps the
// others and ignores them.
func knownFlags(s *compat.Service) (names []string) {
	for _, n := range s.Flags.Names(s.Scheduler) {
		if !strings.HasPrefix(n, "flag-") {
			names = append(names, n)
		}
	}
	return names
}

var modeNames = [...]string{compat.Route: "dr", compat.Masq: "nat", compat.Tunnel: "tun"}

func (d *Director) mode(rs *compat.Server, listens []lb.Listen) (lb.Mode, error) {
	o := modes.Options{Listens: listens, RealServer: rs.Addr}
	if rs.Forward == compat.Tunnel {
		o.Tunnel.Kind = map[string]packet.EncapKind{"gue": packet.GUE, "gre": packet.GRE}[rs.Encap.Type]
		o.Tunnel.Port, o.Tunnel.Checksum = rs.Encap.Port, rs.Encap.Sum != compat.NoSum
		if off, ok := d.sysctl["net.ipv4.vs.pmtu_disc"]; ok {
			o.Tunnel.Fragment = number(off) == 0
		}
		if o.Tunnel.Source = d.host.net.source(rs.Addr.Addr()); !o.Tunnel.Source.IsValid() {
			o.Tunnel.Source = d.host.net.any(rs.Addr.Addr()) // nothing leaves anyway
		}
	}
	return modes.New(modeNames[rs.Forward], o)
}

// persistence is what -p, -M and --pe say.
func persistence(s *compat.Service) (lb.Persistence, error) {
	if s.Persistent == 0 {
		return lb.Persistence{}, nil
	}
	p := lb.Persistence{Timeout: time.Duration(s.Persistent) * time.Second, PrefixV4: 32, PrefixV6: cmp.Or(s.PrefixLen, 128)}
	if s.Mask.IsValid() {
		mask := s.Mask.As4()
		// Of a mask with gaps only what stands before the first one counts.
		ones := bits.LeadingZeros32(^binary.BigEndian.Uint32(mask[:]))
		p.PrefixV4 = ones
	}
	switch s.Engine {
	case "":
	case "sip":
		p.Engine = lb.SIPEngine
	default:
		return p, fmt.Errorf("the persistence engine %q is not known", s.Engine)
	}
	return p, nil
}

// policy is what the sysctls and -o say of a service.
func (d *Director) policy(s *compat.Service) lb.Policy {
	p := lb.IPVSPolicy()
	p.OnePacket = s.OnePacket
	on := func(name string) bool { return number(d.sysctl["net.ipv4.vs."+name]) != 0 }
	p.Sloppy = on("sloppy_tcp") && s.Proto == packet.TCP || on("sloppy_sctp") && s.Proto == packet.SCTP
	p.SecureTCP = number(d.sysctl["net.ipv4.vs.secure_tcp"]) == 3
	if mode, ok := d.sysctl["net.ipv4.vs.conn_reuse_mode"]; ok {
		p.Reuse = lb.Reuse(number(mode)) & (lb.ReuseClosed | lb.ReuseFinWait)
	}
	if on("expire_nodest_conn") {
		p.Removed = lb.RemovedReschedule
	}
	p.ExpireQuiescedTemplates = on("expire_quiescent_template")
	p.ScheduleICMP = on("schedule_icmp")
	p.AnswerUnknownReplies = on("nat_icmp_send")
	return p
}

// setIPVS puts a variable of IPVS into force that has been set, and says
// whether it is known.
func (d *Director) setIPVS(name string) bool {
	switch name {
	case "sloppy_tcp", "sloppy_sctp", "secure_tcp", "conn_reuse_mode", "expire_nodest_conn", "expire_quiescent_template",
		"schedule_icmp", "nat_icmp_send", "pmtu_disc":
		return d.apply() == nil
	case "drop_packet", "drop_entry", "am_droprate":
		return d.balancer.SetDefence(d.defence()) == nil
	case "cache_bypass", "snat_reroute", "conntrack", "run_estimation", "amemthresh", "backup_only", "ignore_tunneled",
		"sync_threshold", "sync_refresh_period", "sync_retries", "sync_qlen_max", "sync_sock_size", "sync_ports",
		"sync_persist_mode", "sync_version", "lblc_expiration", "lblcr_expiration", "debug_level", "est_cpulist", "est_nice":
		return true
	}
	return false
}

// defence is what the sysctls say of floods. Memory is ample here, so that only
// what is always on acts.
func (d *Director) defence() lb.Defence {
	mode := func(name string) lb.DefenceMode {
		if number(d.sysctl["net.ipv4.vs."+name]) == 3 {
			return lb.DefenceAlways
		}
		return lb.DefenceOff
	}
	return lb.Defence{
		DropEntry: mode("drop_entry"), DropPacket: mode("drop_packet"), DropRate: number(d.sysctl["net.ipv4.vs.am_droprate"]),
	}
}

// zero sets the counters of a service, or of all, back.
func (d *Director) zero(c *compat.Command) error {
	name := ""
	if c.Service != nil {
		name = c.Service.Key.String()
	}
	return d.balancer.Zero(name)
}
