package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// leftovers are the namespaces and files of demos that this process started.
func leftovers(t *testing.T, pid string, tmp string) []string {
	t.Helper()
	names, err := filepath.Glob("/run/netns/uvs-demo-" + pid + "-*")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return append(names, files...)
}

func TestDemo(t *testing.T) {
	need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience) // the demo takes ten seconds
	defer cancel()
	tmp := t.TempDir()
	cmd := exec.CommandContext(ctx, uvsProgram(t), "demo", "--json")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.Output()
	var report struct {
		OK    bool
		Cases []struct {
			Mode, Family string
			OK           bool
			Errors       []string
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, c := range report.Cases {
		if !c.OK {
			t.Errorf("%s %s: %s", c.Mode, c.Family, strings.Join(c.Errors, "\n"))
		}
	}
	if err != nil || !report.OK || len(report.Cases) < 12 {
		t.Errorf("%v, ok %v, %d cases", err, report.OK, len(report.Cases))
	}
	if left := leftovers(t, strconv.Itoa(cmd.Process.Pid), tmp); len(left) > 0 {
		t.Errorf("the demo left %q", left)
	}
}

// TestDemoInterrupted ends demos at different times of their lives.
func TestDemoInterrupted(t *testing.T) {
	need(t)
	for _, until := range []string{"uvs demo", "━━ dr IPv4", "━━ tun ipip IPv4"} {
		t.Run("after "+until, func(t *testing.T) {
			tmp := t.TempDir()
			cmd := exec.Command(uvsProgram(t), "demo", "--hold")
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var said bytes.Buffer
			buf := make([]byte, 4096)
			for !strings.Contains(said.String(), until) {
				n, err := stdout.Read(buf)
				if err != nil {
					t.Fatalf("%v: %s%s", err, &said, &stderr)
				}
				said.Write(buf[:n])
			}
			if err := cmd.Process.Signal(unix.SIGINT); err != nil {
				t.Fatal(err)
			}
			err = cmd.Wait()
			if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "ended before it was done") {
				t.Errorf("%v: %s", err, &stderr)
			}
			if left := leftovers(t, strconv.Itoa(cmd.Process.Pid), tmp); len(left) > 0 {
				t.Errorf("the demo left %q", left)
			}
		})
	}
}
