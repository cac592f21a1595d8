package fastlane

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/uvs-project/uvs/packet"
)

// sweepBatch is how many entries one system call reads: 400 KiB.
const sweepBatch = 4096

// Sweep tells seen, for every entry, how long ago the lane carried the last
// packet of it; for one that carried none yet, that is since the machine was
// started. Entries that seen does not want to keep, and those of an earlier
// generation, are deleted. It says how many are left.
func (l *Lane) Sweep(seen func(t *packet.Tuple, ago time.Duration) (keep bool)) (entries int, err error) {
	var (
		cursor     ebpf.MapBatchCursor
		keys       = make([]packet.Tuple, sweepBatch)
		values     = make([]laneFlow, sweepBatch)
		gone       []packet.Tuple
		generation = l.generation.Load()
	)
	for done := false; !done; {
		n, err := l.objects.Flows.BatchLookup(&cursor, keys, values, nil)
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			done = true
		case err != nil:
			return entries, fmt.Errorf("read the fast lane's flows: %w", err)
		}
		gone = gone[:0]
		now := clock()
		for i := range n {
			ago := max(0, now-time.Duration(values[i].Seen))
			if values[i].Generation == generation && seen(&keys[i], ago) {
				entries++
				continue
			}
			gone = append(gone, keys[i])
		}
		for i := range gone {
			if err := l.Delete(&gone[i]); err != nil {
				return entries, err
			}
		}
	}
	return entries, nil
}
