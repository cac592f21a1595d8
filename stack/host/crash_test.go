package host

import (
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCrash is the process that TestAStartMendsWhatACrashLeft kills.
func TestCrash(t *testing.T) {
	if os.Getenv("UVS_TEST_CRASH") == "" {
		t.Skip("is run by TestAStartMendsWhatACrashLeft")
	}
	newTUN(t, "uvs0")
	h, err := Open(Options{})
	must(t, err)
	must(t, h.Apply(t.Context(), everyKind))
	os.Stdout.WriteString("ready\n")
	select {}
}

func TestAStartMendsWhatACrashLeft(t *testing.T) {
	d := inNamespace(t)
	if d == nil {
		return
	}
	d.tun.Close()
	before := d.state()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestCrash$")
	cmd.Env = append(os.Environ(), "UVS_TEST_CRASH=1")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line := make([]byte, 6)
	for string(line) != "ready\n" {
		if _, err := out.Read(line); err != nil {
			t.Fatalf("the process to be killed: %v", err)
		}
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if d.state() == before {
		t.Fatal("the crash left nothing, the test cannot fail")
	}
	for _, tt := range []struct {
		name string
		opt  Options
	}{
		{"with other names and numbers", Options{Device: "uvs1", Preference: 5000, Table: 5000}},
	} {
		newTUN(t, "uvs1")
		h, err := Open(tt.opt)
		must(t, err)
		must(t, h.Apply(t.Context(), everyKind))
		must(t, h.Close())
		if diff := cmp.Diff(before, d.state()); diff != "" {
			t.Errorf("%s (-before +after):\n%s", tt.name, diff)
		}
	}
}
