// Package sched has the schedulers: each picks the real server of a new flow
// of one service, choice by choice as IPVS does.
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

	"github.com/uvs-project/uvs/lb"
)

// builders lists every scheduler by its name in the configuration.
var builders = map[string]lb.NewScheduler{
	"rr":  newRoundRobin,
	"wrr": newWeightedRoundRobin,
}

// New is the builder of the scheduler called name.
func New(name string) (lb.NewScheduler, error) {
	b, ok := builders[name]
	if !ok {
		return nil, fmt.Errorf("scheduler %q: none of %s", name, strings.Join(Names(), ", "))
	}
	return b, nil
}

// Names are the names of all schedulers, sorted.
func Names() []string { return slices.Sorted(maps.Keys(builders)) }
