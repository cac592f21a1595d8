// Package sched has the schedulers: each picks the real server of a new flow
// of one service, all but maglev choice by choice as IPVS does.
//
//	turns        rr, wrr
//	load         lc, wlc, sed, nq, twos
//	priority     fo, ovf
//	client       sh, mh, maglev: the same client gets the same real server
//	destination  dh, lblc, lblcr: so does the same VIP
//
// A scheduler is built by [New] for one set of real servers, in list order,
// that is the newest first, and never changes it. It is one file here and one
// line in the list below.
package sched

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/uvs-project/uvs/lb"
)

// A builder builds a scheduler as lb.NewScheduler does.
type builder func(s *settings, set []*lb.RealServer, before lb.Scheduler) lb.Scheduler

// builders lists every scheduler by its name in the configuration, with the
// rule by which it chooses, for people.
var builders = map[string]struct {
	build builder
	rule  string
}{
	"dh":     {newDestinationHash, "the VIP's hash"},
	"fo":     {newFailOver, "the heaviest that is there"},
	"lblc":   {newLocality, "the one that the VIP had before, until it is overloaded"},
	"lblcr":  {newReplicatedLocality, "the least loaded of those that the VIP had before"},
	"lc":     {newLeastConnection, "the least load, an active flow counting as 256 inactive ones"},
	"maglev": {newMaglev, "the flow's hash in Maglev's table"},
	"mh":     {newMaglevHash, "the client's hash in Maglev's table, as IPVS"},
	"nq":     {newNeverQueue, "one without active flows, else as sed"},
	"ovf":    {newOverflow, "the heaviest that has not more active flows than its weight"},
	"rr":     {newRoundRobin, "its turn"},
	"sed":    {newShortestDelay, "the fewest active flows for its weight, with this one"},
	"sh":     {newSourceHash, "the client's hash"},
	"twos":   {newTwoChoices, "the less loaded of two that were drawn by their weights"},
	"wlc":    {newWeightedLeastConnection, "the least load for its weight, an active flow counting as 256 inactive ones"},
	"wrr":    {newWeightedRoundRobin, "its turn, which comes as often as its weight"},
}

// Options are what a service can say about its scheduler. The zero value is
// the scheduler as IPVS has it by default.
type Options struct {
	Flags     []string      // see Flags
	SlowStart time.Duration // for how long a returned real server gets less than its share; 0: not at all
	Maglev    Maglev        // of the scheduler maglev
}

// settings are Options that were found good.
type settings struct {
	flags  flags
	maglev maglevSettings
}

// New is the builder of the scheduler called name.
func New(name string, o Options) (lb.NewScheduler, error) {
	known, ok := builders[name]
	if !ok {
		return nil, fmt.Errorf("scheduler %q: none of %s", name, strings.Join(Names(), ", "))
	}
	var s settings
	var err error
	if s.flags, err = parseFlags(name, o.Flags); err != nil {
		return nil, fmt.Errorf("scheduler %s: %w", name, err)
	}
	if s.maglev, err = o.Maglev.settings(); err != nil {
		return nil, fmt.Errorf("scheduler %s: %w", name, err)
	}
	build := known.build
	if o.SlowStart > 0 {
		build = slowly(o.SlowStart, build)
		return func(set []*lb.RealServer, before lb.Scheduler) lb.Scheduler { return build(&s, set, before) }, nil
	}
	return func(set []*lb.RealServer, before lb.Scheduler) lb.Scheduler { return build(&s, set, inner(before)) }, nil
}

// Names are the names of all schedulers, sorted.
func Names() []string { return slices.Sorted(maps.Keys(builders)) }

// Rule says by what the scheduler called name chooses a real server.
func Rule(name string) string { return builders[name].rule }

// usable are the real servers of set that get new flows: IPVS passes over
// those of weight 0.
func usable(set []*lb.RealServer) []*lb.RealServer {
	return slices.DeleteFunc(slices.Clone(set), func(rs *lb.RealServer) bool { return rs.Weight == 0 })
}

// anyTakesFlows says whether a search in set can succeed. Where all are
// overloaded a flood of new clients must not make each search the slots.
func anyTakesFlows(set []*lb.RealServer) bool {
	return slices.ContainsFunc(set, (*lb.RealServer).TakesFlows)
}
