package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/uvs-project/uvs/integration/lab"
)

// patience bounds every wait for a condition: far more than any takes on a
// busy machine, so that reaching it means that the condition never comes.
const patience = 2 * time.Minute

// scratch is a directory for the whole run; tests use t.TempDir where they can.
var scratch string

// TestMain removes what the tests share.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "uvs-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	closeShared()
	os.RemoveAll(dir)
	os.Exit(code)
}

// cannot ends the test because the machine lacks something: skipped, or
// failed where CI says that the machine has everything.
func cannot(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// need is called first by every test with the programs that it uses.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("a network of namespaces takes longer than -short allows")
	}
	if os.Geteuid() != 0 {
		cannot(t, "network namespaces need root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			cannot(t, fmt.Sprintf("%s is not installed", p))
		}
	}
}

// within bounds what one step of a test may take.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// newLab is a lab that ends with the test.
func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	l, err := lab.New("uvstest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// drawn fails the test when the topology could not be made.
func drawn(t *testing.T, l *lab.Lab) {
	t.Helper()
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
}

// run runs a program in a host and returns what it printed.
func run(t *testing.T, h *lab.Host, name string, args ...string) string {
	t.Helper()
	out, err := h.Run(within(t), name, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

var buildOnce = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("UVS_BINARY"); bin != "" {
		return filepath.Abs(bin) // the program of a release or a package
	}
	bin := filepath.Join(scratch, "uvs")
	build := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/uvs")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building uvs: %w\n%s", err, out)
	}
	return bin, nil
})

// uvsProgram is the program under test, built once per run.
func uvsProgram(t *testing.T) string {
	t.Helper()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}
