package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// A node is one host of a lane: a network namespace and what runs in it.
type node struct {
	name   string // of the namespace
	handle *netlink.Handle
	procs  []*process
}

func newNode(name string) (*node, error) {
	if err := command("ip", "netns", "add", name); err != nil {
		return nil, err
	}
	n := &node{name: name}
	if err := n.open(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *node) open() error {
	ns, err := netns.GetFromName(n.name)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", n.name, err)
	}
	defer ns.Close()
	if n.handle, err = netlink.NewHandleAt(ns); err != nil {
		return fmt.Errorf("netlink in %s: %w", n.name, err)
	}
	return n.Run("ip", "link", "set", "lo", "up")
}

// Run runs a program in the node and waits for it.
func (n *node) Run(args ...string) error {
	return command("ip", append([]string{"netns", "exec", n.name}, args...)...)
}

// Command prepares a program to run in the node, killed when ctx ends.
func (n *node) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.name}, args...)...)
}

// Output runs a program in the node until it ends or ctx does and returns what it printed.
func (n *node) Output(ctx context.Context, args ...string) ([]byte, error) {
	cmd := n.Command(ctx, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %s: %w: %s", n.name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// Start starts a program in the node that runs until Close. What it prints goes to the file log.
func (n *node) Start(log string, args ...string) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command("ip", append([]string{"netns", "exec", n.name}, args...)...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us alone: we stop the rest in order
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	p := &process{name: args[0], cmd: cmd, log: log, done: make(chan struct{})}
	go p.wait()
	n.procs = append(n.procs, p)
	return p, nil
}

// Counters are the packets and bytes that left by an interface of the node.
func (n *node) Counters(iface string) (packets, bytes uint64, err error) {
	link, err := n.handle.LinkByName(iface)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %s: %w", n.name, iface, err)
	}
	s := link.Attrs().Statistics
	return s.TxPackets, s.TxBytes, nil
}

// Close stops what runs in the node, newest first, and removes it.
func (n *node) Close() error {
	var errs []error
	for i := len(n.procs) - 1; i >= 0; i-- {
		errs = append(errs, n.procs[i].Stop())
	}
	if n.handle != nil {
		n.handle.Close()
	}
	return errors.Join(append(errs, command("ip", "netns", "del", n.name))...)
}

// A process is a server that runs in a node.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

func (p *process) wait() {
	p.cmd.Wait() // how a server ends that we stop ourselves says nothing
	close(p.done)
}

// PID is the process id; `ip netns exec` becomes the program itself.
func (p *process) PID() int { return p.cmd.Process.Pid }

// Ended says whether the process is gone, which before Stop it must not be.
func (p *process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stopPatience is how long a server may take to end by itself.
const stopPatience = 5 * time.Second

// Stop ends the process, if need be by force, which is an error.
func (p *process) Stop() error {
	if p.Ended() {
		return nil
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(stopPatience):
	}
	syscall.Kill(-p.PID(), syscall.SIGKILL) // the group: a server's workers too
	<-p.done
	return fmt.Errorf("%s did not end within %v of SIGTERM", p.name, stopPatience)
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
