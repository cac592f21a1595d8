package realserver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// recordMark begins the record in the alias of the loopback. What stands in
// front of it is somebody else's alias and stays.
const recordMark = "uvs-realserver"

// maxAlias is the longest alias the kernel keeps (IFALIASZ less the final zero).
const maxAlias = 255

// guePrefix begins the keys of the record that stand for UDP ports on which
// the kernel unpacks GUE.
const guePrefix = "gue:"

func gueKey(port uint16) string { return fmt.Sprint(guePrefix, port) }

// A record remembers what the kernel cannot tell by itself: the former values
// of the settings that were changed, by setting.key, and the ports of GUE. It
// is written before the change, so that a crash in between loses nothing.
type record map[string]int

// guePorts are the ports that the kernel unpacks GUE on for us.
func (r record) guePorts() []uint16 {
	var ports []uint16
	for key := range r {
		if s, ok := strings.CutPrefix(key, guePrefix); ok {
			if port, err := strconv.ParseUint(s, 10, 16); err == nil {
				ports = append(ports, uint16(port))
			}
		}
	}
	return ports
}

// readRecord gets the record out of the alias of lo, and the foreign part of
// the alias.
func readRecord(lo netlink.Link) (r record, foreign string) {
	foreign, ours, _ := strings.Cut(lo.Attrs().Alias, recordMark)
	r = record{}
	for _, word := range strings.Fields(ours) {
		key, value, _ := strings.Cut(word, "=")
		if n, err := strconv.Atoi(value); err == nil {
			r[key] = n
		}
	}
	return r, foreign
}

// String is the record as it stands in the alias, empty for an empty one.
func (r record) String() string {
	if len(r) == 0 {
		return ""
	}
	words := []string{recordMark}
	for _, key := range slices.Sorted(maps.Keys(r)) {
		words = append(words, fmt.Sprintf("%s=%d", key, r[key]))
	}
	return strings.Join(words, " ")
}

// writeRecord makes r the record of the alias of lo.
func writeRecord(lo netlink.Link, foreign string, r record) error {
	alias := foreign + r.String()
	if len(alias) > maxAlias {
		return errors.New("the alias of lo has no room left: ip link set lo alias ''")
	}
	if err := netlink.LinkSetAlias(lo, alias); err != nil {
		return fmt.Errorf("set the alias of lo: %w", explain(err))
	}
	lo.Attrs().Alias = alias
	return nil
}
