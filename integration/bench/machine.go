package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func newReport(ctx context.Context, o Options) (*Report, error) {
	r := &Report{
		Time: time.Now().UTC().Truncate(time.Second), Commit: commit(ctx), Quick: o.Quick,
		Rounds: o.Rounds, Seconds: o.Length.Seconds(),
		Machine: Machine{
			CPU: cpuModel(), Cores: runtime.NumCPU(), IRQTime: irqTime(),
			Programs: map[string]string{"go": runtime.Version()},
		},
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, os.NewSyscallError("uname", err)
	}
	r.Machine.Kernel = unix.ByteSliceToString(uts.Release[:])
	for _, name := range o.Contenders {
		c, err := contenderByName(name)
		if err != nil {
			return nil, err
		}
		r.Contenders = append(r.Contenders, Contender{Name: c.name, Title: c.title})
	}
	for _, name := range o.Tests {
		t := tests[name]
		r.Tests = append(r.Tests, Test{Name: name, Title: t.title, Unit: t.unit, Lower: t.lower})
	}
	for _, p := range [][]string{{"haproxy", "-v"}, {"nginx", "-v"}, {"iperf3", "--version"}, {"wrk", "-v"}, {"nft", "--version"}} {
		out, err := exec.CommandContext(ctx, p[0], p[1:]...).CombinedOutput()
		if err != nil && len(out) == 0 { // wrk -v exits with 1
			return nil, err
		}
		r.Machine.Programs[p[0]] = version(string(out))
	}
	return r, nil
}

var versionPattern = regexp.MustCompile(`\d+(\.\d+)+`)

// version is the first thing in a program's answer that looks like one.
func version(text string) string {
	if v := versionPattern.FindString(text); v != "" {
		return v
	}
	return "unknown"
}

func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	c := strings.TrimSpace(string(out))
	changes, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no").Output()
	if err != nil || len(changes) > 0 {
		c += "+"
	}
	return c
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if key, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return runtime.GOARCH
}

// irqTime says whether the kernel keeps the time of interrupts out of the
// accounts of the process that they interrupt.
func irqTime() string {
	packed, err := os.ReadFile("/proc/config.gz")
	if err != nil {
		return "unknown"
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return "unknown"
	}
	config, err := io.ReadAll(z)
	if err != nil {
		return "unknown"
	}
	if bytes.Contains(config, []byte("\nCONFIG_IRQ_TIME_ACCOUNTING=y\n")) {
		return "yes"
	}
	return "no"
}
