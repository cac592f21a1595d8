package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// script runs a program, which says by its exit code 0 that the real server is
// fit and otherwise, by the first line that it prints, what is wrong.
//
// It is run without a shell, as the leader of a process group of its own. When
// it ends, or its time does, the whole group is killed: nothing that it
// started stays behind.
type script struct {
	command []string
}

func newScript(o *Options) (Check, error) {
	if len(o.Command) == 0 {
		return nil, errors.New("no command")
	}
	if _, err := exec.LookPath(o.Command[0]); err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	return &script{command: o.Command}, nil
}

// maxScripts is how many scripts run at one time: each is a process at least.
const maxScripts = 64

var scripts = make(chan struct{}, maxScripts)

func (c *script) Check(ctx context.Context, to Target) error {
	select {
	case scripts <- struct{}{}:
		defer func() { <-scripts }()
	case <-ctx.Done():
		return fmt.Errorf("%d scripts run already: %w", maxScripts, ctx.Err())
	}
	said := &firstBytes{most: 4096}
	cmd := exec.Command(c.command[0], c.command[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "UVS_ADDRESS=" + to.Addr.Addr().String(), "UVS_PORT=" + strconv.Itoa(int(to.Addr.Port()))}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 100 * time.Millisecond // for a process that left the group and holds the output open
	if err := cmd.Start(); err != nil {
		return err
	}
	err := waitForGroup(ctx, cmd)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if line, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n"); err != nil && line != "" {
		return fmt.Errorf("%w: %s", err, line)
	}
	return err
}

// waitForGroup waits until cmd ends, or ctx does, and kills what is left of
// its group.
func waitForGroup(ctx context.Context, cmd *exec.Cmd) error {
	pid := cmd.Process.Pid
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = unix.Kill(-pid, unix.SIGKILL)
		close(killed)
	})
	// Until the leader is waited for, the number of the group is nobody else's.
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	if stop() {
		_ = unix.Kill(-pid, unix.SIGKILL)
	} else {
		<-killed
	}
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it was good, and only what left the group holds the output
	}
	return err
}

// firstBytes keeps the beginning of what is written to it.
type firstBytes struct {
	bytes.Buffer
	most int
}

func (f *firstBytes) Write(b []byte) (int, error) {
	if room := f.most - f.Len(); room > 0 {
		f.Buffer.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}
