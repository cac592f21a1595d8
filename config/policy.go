package config

import (
	"reflect"
	"time"
)

// A Policy says how flows live. A service has those keys of its own that it
// sets, and the others from the file. After Parse no field is nil; of Default
// it is ScheduleICMP, which follows Sloppy where nobody sets it.
type Policy struct {
	OnePacket               *bool          `mapstructure:"one_packet"`
	Sloppy                  *bool          `mapstructure:"sloppy"`
	SecureTCP               *bool          `mapstructure:"secure_tcp"`
	Reuse                   *int           `mapstructure:"reuse"` // bit mask, as IPVS's conn_reuse_mode
	Removed                 *Removed       `mapstructure:"removed"`
	Down                    *Removed       `mapstructure:"down"`  // likewise, of one that is down
	Drain                   *time.Duration `mapstructure:"drain"` // 0: no deadline
	ExpireQuiescedTemplates *bool          `mapstructure:"expire_quiesced_templates"`
	ScheduleICMP            *bool          `mapstructure:"schedule_icmp"`
	AnswerUnknownReplies    *bool          `mapstructure:"answer_unknown_replies"`
	ResetExpired            *bool          `mapstructure:"reset_expired"`
	ClampMSS                *MSS           `mapstructure:"clamp_mss"`
}

// MSS is the largest MSS in bytes that a SYN passes on; 0: any.
type MSS int

// AutoMSS is written "auto": what fits the path to the real server.
const AutoMSS MSS = -1

// Removed is what becomes of the flows of a removed real server.
type Removed string

// The settings of Removed.
const (
	RemovedServe      Removed = "serve"      // they go on until they end
	RemovedKeep       Removed = "keep"       // the client's packets are dropped until the real server comes back, as IPVS
	RemovedReschedule Removed = "reschedule" // they are forgotten, as IPVS with expire_nodest_conn
	RemovedReset      Removed = "reset"      // both ends get a RST
)

// maxReuse has both bits of conn_reuse_mode.
const maxReuse = 3

// maxMSS is the largest MSS that a TCP option can hold, minMSS the least that
// every IPv4 host takes (RFC 9293 section 3.7.1).
const minMSS, maxMSS = 536, 65535

func defaultPolicy() Policy {
	return Policy{
		OnePacket:               new(false),
		Sloppy:                  new(false),
		SecureTCP:               new(false),
		Reuse:                   new(1),
		Removed:                 new(RemovedServe),
		Down:                    new(RemovedReset),
		Drain:                   new(time.Duration(0)),
		ExpireQuiescedTemplates: new(true),
		AnswerUnknownReplies:    new(false),
		ResetExpired:            new(false),
		ClampMSS:                new(MSS(0)),
	}
}

// inherit takes from another Policy what p does not set.
func (p *Policy) inherit(from *Policy) {
	own, theirs := reflect.ValueOf(p).Elem(), reflect.ValueOf(from).Elem()
	for i := range own.NumField() {
		if own.Field(i).IsNil() {
			own.Field(i).Set(theirs.Field(i))
		}
	}
}

// complete fills in what follows from other keys, after services have
// inherited: one that is sloppy by itself schedules errors by itself too. A
// director that takes flows over in mid-stream must get what routers tell of
// them, a path MTU above all, to the same real servers.
func (p *Policy) complete() {
	if p.ScheduleICMP == nil {
		p.ScheduleICMP = new(*p.Sloppy)
	}
}

// checkPolicy notes the values out of range that p does not have from another
// Policy, which is checked by itself.
func (fs *faults) checkPolicy(path string, p, from *Policy) {
	if from == nil {
		from = new(Policy)
	}
	if p.Reuse != from.Reuse {
		fs.between(path+".reuse", *p.Reuse, 0, maxReuse)
	}
	if p.Removed != from.Removed {
		oneOf(fs, path+".removed", *p.Removed, RemovedServe, RemovedKeep, RemovedReschedule, RemovedReset)
	}
	if p.Down != from.Down {
		oneOf(fs, path+".down", *p.Down, RemovedServe, RemovedKeep, RemovedReschedule, RemovedReset)
	}
	if d := *p.Drain; p.Drain != from.Drain && (d < 0 || d > maxTimeout) {
		fs.add(path+".drain", "%v is out of range, 0s to %v", d, maxTimeout)
	}
	if mss := *p.ClampMSS; p.ClampMSS != from.ClampMSS && mss != 0 && mss != AutoMSS && (mss < minMSS || mss > maxMSS) {
		fs.add(path+".clamp_mss", "%d is out of range, %d to %d, or auto, or 0 for off", mss, minMSS, maxMSS)
	}
}
