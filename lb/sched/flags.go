package sched

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// flags are the three flags that IPVS has for a service's scheduler
// (IP_VS_SVC_F_SCHED1 and so on); each scheduler gives them its own meaning.
type flags uint8

const (
	fallback flags = 1 << iota // of sh and mh: another real server where the client's gets no new flows
	withPort                   // of sh and mh: the client is address and port
	unusedFlag
)

// flagNames are the names that ipvsadm takes with any scheduler, which may
// have no use for them.
var flagNames = map[string]flags{"flag-1": fallback, "flag-2": withPort, "flag-3": unusedFlag}

// ownFlagNames are those that it takes with one scheduler only.
var ownFlagNames = map[string]map[string]flags{
	"mh": {"mh-fallback": fallback, "mh-port": withPort},
	"sh": {"sh-fallback": fallback, "sh-port": withPort},
}

// Flags are the names of the flags that can be set for a scheduler, sorted.
func Flags(scheduler string) []string {
	names := slices.Collect(maps.Keys(flagNames))
	return slices.Sorted(slices.Values(slices.AppendSeq(names, maps.Keys(ownFlagNames[scheduler]))))
}

func parseFlags(scheduler string, names []string) (flags, error) {
	var all flags
	for _, name := range names {
		f := flagNames[name] | ownFlagNames[scheduler][name]
		if f == 0 {
			return 0, fmt.Errorf("flag %q: none of %s", name, strings.Join(Flags(scheduler), ", "))
		}
		all |= f
	}
	return all, nil
}
