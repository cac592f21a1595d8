package lb

import (
	"sync"
	"testing"
)

// TestThresholds counts flows in and out of a real server: + and - are a flow
// that begins and one that ends; ! and . what Overloaded says then.
func TestThresholds(t *testing.T) {
	tests := []struct {
		name         string
		upper, lower int
		steps        string
	}{
		{"without a bound it is never overloaded", 0, 0, "+.+.+.-.-.-."},
		{"it takes flows again below three quarters", 4, 0, "+.+.+.+!-!-.+.+!"},
		{"of 1 three quarters are nothing", 1, 0, "+!-.+!"},
		{"of 5 three quarters are fewer than 4", 5, 0, "+.+.+.+.+!-!-.+."},
		{"a lower bound of its own", 5, 2, "+.+.+.+.+!-!-!-!-.+.+.+.+!"},
		{"bounds that are equal", 3, 3, "+.+.+!-.+!"},
		{"flows of clients it knows go beyond", 2, 1, "+.+!+!+!-!-!-!-."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r load
			r.setThresholds(tt.upper, tt.lower)
			for i, c := range tt.steps {
				switch {
				case c == '+':
					r.acquire()
				case c == '-':
					r.release()
				case r.limits.overloaded.Load() != (c == '!'):
					t.Fatalf("after %q overloaded is %v", tt.steps[:i], r.limits.overloaded.Load())
				}
			}
		})
	}
}

// TestThresholdsAreEdited: a reload counts the flows that there are.
func TestThresholdsAreEdited(t *testing.T) {
	tests := []struct {
		name         string
		flows        int
		upper, lower int // after 4, 2
		want         bool
	}{
		{"lowered to what there is", 3, 3, 1, true},
		{"lowered, but above what there is", 2, 3, 1, false},
		{"raised: still not below the lower one", 4, 5, 1, true},
		{"raised, the lower one over what there is", 4, 6, 5, false},
		{"raised, three quarters of it over what there is", 4, 8, 0, false},
		{"taken away", 4, 0, 0, false},
		{"unchanged", 4, 4, 2, true},
		{"the lower one raised over what there is", 4, 4, 4, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r load
			r.setThresholds(4, 2)
			for range tt.flows {
				r.acquire()
			}
			r.setThresholds(tt.upper, tt.lower)
			if got := r.limits.overloaded.Load(); got != tt.want {
				t.Errorf("overloaded is %v", got)
			}
		})
	}
}

// TestThresholdsFromManyQueues: whatever the order in which queues count, a
// real server that has no flow left takes new ones.
func TestThresholdsFromManyQueues(t *testing.T) {
	var r load
	r.setThresholds(2, 1)
	for range 2000 {
		var queues sync.WaitGroup
		for range 4 {
			queues.Go(func() {
				for range 8 {
					r.acquire()
					r.release()
				}
			})
		}
		queues.Wait()
		if r.limits.overloaded.Load() {
			t.Fatal("overloaded without a flow")
		}
	}
}
