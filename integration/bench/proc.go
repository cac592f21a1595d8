package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/stat and /proc/PID/stat: USER_HZ is 100 on every architecture of Linux.
const tick = 10 * time.Millisecond

// cpuTime is time that processes used, as the kernel accounts it: on a kernel
// without CONFIG_IRQ_TIME_ACCOUNTING it includes the interrupts and soft
// interrupts that were served while the process ran.
type cpuTime struct{ User, System time.Duration }

func (c cpuTime) total() time.Duration { return c.User + c.System }

// proc is what /proc/PID/stat says about one process.
type proc struct {
	parent int
	cpuTime
	// children is the time of children that have ended and were waited for.
	children time.Duration
}

// processes reads all processes of the machine. One that ends meanwhile is left out.
func processes() (map[int]proc, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := make(map[int]proc, len(paths))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		pid, p, err := parseProc(string(text))
		if err != nil {
			return nil, err
		}
		all[pid] = p
	}
	return all, nil
}

// parseProc reads a line of /proc/PID/stat (proc_pid_stat(5)). The name in
// parentheses may hold anything, so fields count from the last parenthesis.
func parseProc(line string) (pid int, p proc, err error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < 0 {
		return 0, proc{}, fmt.Errorf("/proc/PID/stat reads %q", line)
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(line[:open])); err != nil {
		return 0, proc{}, err
	}
	fields := strings.Fields(line[end+1:]) // fields[0] is field 3, the state
	if len(fields) < 15 {
		return 0, proc{}, fmt.Errorf("/proc/%d/stat reads %q", pid, line)
	}
	if p.parent, err = strconv.Atoi(fields[1]); err != nil {
		return 0, proc{}, err
	}
	var ticks [4]time.Duration // utime, stime, cutime, cstime
	for i := range ticks {
		n, err := strconv.ParseInt(fields[11+i], 10, 64)
		if err != nil {
			return 0, proc{}, err
		}
		ticks[i] = time.Duration(n) * tick
	}
	p.User, p.System, p.children = ticks[0], ticks[1], ticks[2]+ticks[3]
	return pid, p, nil
}

// kthreadd is the parent of all kernel threads.
const kthreadd = 2

// within says whether pid is root or descends from it.
func within(all map[int]proc, pid, root int) bool {
	for pid != root {
		p, ok := all[pid]
		if !ok || p.parent == 0 {
			return false
		}
		pid = p.parent
	}
	return true
}

// tree is the time of the process root and its living descendants.
func tree(all map[int]proc, root int) (t cpuTime) {
	for pid, p := range all {
		if within(all, pid, root) {
			t.User += p.User
			t.System += p.System
		}
	}
	return t
}

// foreign is the time of all processes that are neither the kernel's nor
// descend from root. The time of those that end goes to their parents, so the
// difference of two calls counts short-lived ones too.
func foreign(all map[int]proc, root int) (t time.Duration) {
	for pid, p := range all {
		if !within(all, pid, root) && !within(all, pid, kthreadd) {
			t += p.total() + p.children
		}
	}
	return t
}

// machineTime is the first line of /proc/stat, summed over the cores.
type machineTime struct{ User, System, IRQ, SoftIRQ, Idle, Steal time.Duration }

func parseMachine(stat string) (m machineTime, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return m, fmt.Errorf("/proc/stat begins %q", line)
	}
	var ticks [8]time.Duration // user nice system idle iowait irq softirq steal
	for i := range ticks {
		n, err := strconv.ParseInt(fields[1+i], 10, 64)
		if err != nil {
			return m, err
		}
		ticks[i] = time.Duration(n) * tick
	}
	return machineTime{
		User: ticks[0] + ticks[1], System: ticks[2], Idle: ticks[3] + ticks[4],
		IRQ: ticks[5], SoftIRQ: ticks[6], Steal: ticks[7],
	}, nil
}

func (m machineTime) busy() time.Duration { return m.User + m.System + m.IRQ + m.SoftIRQ }
