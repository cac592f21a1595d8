package bgp

import (
	"testing"
	"time"

	"github.com/uvs-project/uvs/bgp/bfd"
)

func TestBFDClosesASession(t *testing.T) {
	start := time.Unix(1700000000, 0)
	up := bfd.PeerStats{State: bfd.Up, Remote: bfd.Up, Ups: 1, Since: start}
	lost := bfd.PeerStats{State: bfd.Down, Remote: bfd.Down, Ups: 1, Downs: 1, Lost: 1, Diag: bfd.TimeExpired, Since: start}
	told := bfd.PeerStats{State: bfd.Down, Remote: bfd.Down, Ups: 1, Downs: 1, Diag: bfd.NeighborDown, Since: start}
	init := told
	init.State = bfd.Init
	again := bfd.PeerStats{State: bfd.Up, Remote: bfd.Up, Ups: 2, Downs: 1, Since: start.Add(time.Second)}
	disabled := told
	disabled.Remote = bfd.AdminDown
	type at struct {
		after time.Duration
		stats bfd.PeerStats
		close bool
	}
	tests := []struct {
		name  string
		steps []at
	}{
		{name: "never, while the peer was never found", steps: []at{{0, bfd.PeerStats{State: bfd.Down, Remote: bfd.Down}, false}, {time.Hour, bfd.PeerStats{State: bfd.Down, Remote: bfd.Down}, false}}},
		{name: "at once and once, when the peer is lost", steps: []at{{0, up, false}, {0, lost, true}, {time.Second, lost, false}, {time.Hour, lost, false}}},
		{name: "also when it is found again before anybody looked", steps: []at{{0, up, false}, {0, bfd.PeerStats{State: bfd.Up, Remote: bfd.Up, Ups: 2, Downs: 1, Lost: 1}, true}}},
		{name: "not when the peer begins anew", steps: []at{{0, told, false}, {time.Second, init, false}, {1100 * time.Millisecond, again, false}, {time.Hour, again, false}}},
		{name: "when the peer goes on not to hear us", steps: []at{{0, told, false}, {wordGrace - 1, init, false}, {wordGrace, init, true}, {time.Hour, init, false}}},
		{name: "not when the peer ends BFD on purpose", steps: []at{{0, disabled, false}, {time.Hour, disabled, false}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var w watch
			for i, step := range tt.steps {
				if got := w.mustClose(&step.stats, start.Add(step.after)); got != step.close {
					t.Errorf("step %d, after %v: %v, want %v", i, step.after, got, step.close)
				}
			}
		})
	}
}
