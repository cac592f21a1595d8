package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopPatience is how long a process may take to end after SIGTERM before it
// is killed: a director that undoes its routes needs milliseconds, seconds on a
// machine that has much else to do.
const stopPatience = 15 * time.Second

// A Process is a program that runs in a host.
type Process struct {
	Cmd *exec.Cmd

	name   string
	exited chan struct{} // closed when err is set
	err    error
	output output
}

// output collects what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Start starts a program in the host and returns when it runs. It is killed
// when the lab ends or this process dies. What it prints is kept for
// Process.Output where cmd says nothing else.
func (h *Host) Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{Cmd: cmd, name: cmd.Args[0] + " in " + h.Name, exited: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.output
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.output
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// The signal comes when the thread that forked ends: the host's own, which
	// lives as long as the namespace.
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	// A group of its own: an interrupt from the terminal goes to us, who end
	// everything in order.
	cmd.SysProcAttr.Setpgid = true
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = time.Second // a grandchild that holds the output open cannot stop Wait
	}
	if err := h.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("lab: %s: %w", p.name, err)
	}
	go func() {
		p.err = cmd.Wait()
		// What it left behind in its group goes with it, at once: later the
		// number may be somebody else's.
		unix.Kill(-p.PID(), unix.SIGKILL)
		close(p.exited)
	}()
	if !h.lab.atClose(p.Stop) {
		p.Stop()
		return nil, fmt.Errorf("lab: %s: %w", p.name, errClosed)
	}
	return p, nil
}

// Run runs a program in the host to its end and returns what it printed to
// its standard output. The error has what it printed to the other.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = stopPatience // all that it printed is wanted
	p, err := h.Start(cmd)
	if err != nil {
		return "", err
	}
	if err := p.Wait(ctx); err != nil {
		said := strings.TrimSpace(stderr.String())
		return stdout.String(), fmt.Errorf("lab: %s: %s: %w: %s", h.Name, strings.Join(cmd.Args, " "), err, said)
	}
	return stdout.String(), nil
}

// PID is the process' number.
func (p *Process) PID() int { return p.Cmd.Process.Pid }

// Output is what the process has printed up to now.
func (p *Process) Output() string { return p.output.String() }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Wait waits for the end of the process and returns how it ended.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.exited:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("%s still runs: %w", p.name, ctx.Err())
	}
}

// ExitCode is the code that an ended process ended with, -1 while it runs or where a
// signal ended it.
func (p *Process) ExitCode() int {
	select {
	case <-p.exited:
		return p.Cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}

// Signal sends a signal to the process; to one that has ended it does nothing.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.Cmd.Process.Signal(s); err != nil && !errors.Is(err, syscall.ESRCH) {
		select {
		case <-p.exited:
		default:
			return err
		}
	}
	return nil
}

// Stop asks the process to end, kills it with all of its group if it does not
// soon, and returns when it is gone.
func (p *Process) Stop() {
	p.Signal(unix.SIGTERM)
	select {
	case <-p.exited:
		return
	case <-time.After(stopPatience):
	}
	unix.Kill(-p.PID(), unix.SIGKILL) // the group has the process' own number
	<-p.exited
}
