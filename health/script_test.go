package health

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shell is a script check that runs a line of shell: the check itself has none.
func shell(t *testing.T, line string) Check {
	t.Helper()
	c, err := New(Options{Type: "script", Command: []string{"/bin/sh", "-c", line}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var scriptTarget = Target{Addr: target("192.0.2.1:80")}

func TestScripts(t *testing.T) {
	for _, tt := range []struct {
		name, line, want string
	}{
		{"exit code 0 is good, whatever is said", "echo fine; exit 0", ""},
		{"another one is bad, and why is in the first line", "echo no space left; echo and more; exit 3", "exit status 3: no space left"},
		{"what it says on standard error counts too", "echo broken >&2; exit 1", "exit status 1: broken"},
		{"one that says nothing", "exit 1", "exit status 1"},
		{"one that kills itself", "kill -9 $$", "signal: killed"},
		{"it is told what to check", `test "$UVS_ADDRESS:$UVS_PORT" = 192.0.2.1:80`, ""},
		{"it has no other variables of ours", `test -z "$HOME"`, ""},
		{"one that says too much", "head -c 1000000 /dev/zero; exit 0", ""},
		{"one that leaves a process behind that holds the output", "sleep 1000 & exit 0", ""},
		{"one that leaves a process in another session behind", "setsid sleep 2 & exit 0", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := shell(t, tt.line).Check(limited(t, patience), scriptTarget)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestAScriptEndsWithItsGroup: the time of a script is that of all that it has
// started.
func TestAScriptEndsWithItsGroup(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		limit      time.Duration
		want       error
	}{
		{"one that hangs and forks", "sleep 1000 & echo $! >%s; sleep 1000", 3 * time.Second, context.DeadlineExceeded},
		{"one that ignores signals", "trap '' TERM INT HUP; sleep 1000 & echo $! >%s; while :; do sleep 1000; done", 3 * time.Second, context.DeadlineExceeded},
		{"one that ends before its child", "sleep 1000 & echo $! >%s", patience, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			start := time.Now()
			err := shell(t, strings.Replace(tt.line, "%s", file, 1)).Check(limited(t, tt.limit), scriptTarget)
			if !errors.Is(err, tt.want) || time.Since(start) > patience {
				t.Errorf("%v after %v, want %v", err, time.Since(start), tt.want)
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			child, err := strconv.Atoi(strings.TrimSpace(string(raw)))
			if err != nil {
				t.Fatal(err)
			}
			deadline := time.After(patience)
			for running(child) {
				select {
				case <-deadline:
					t.Fatalf("child %d still runs", child)
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
}

// running says whether a process is there and no zombie.
func running(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z")
}

func TestScriptsWaitForTheirTurn(t *testing.T) {
	for range maxScripts {
		scripts <- struct{}{}
	}
	defer func() {
		for len(scripts) > 0 {
			<-scripts
		}
	}()
	err := shell(t, "exit 0").Check(limited(t, 50*time.Millisecond), scriptTarget)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "64 scripts run already") {
		t.Error(err)
	}
}
