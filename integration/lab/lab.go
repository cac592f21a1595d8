// Package lab builds small networks out of network namespaces and runs
// programs and captures in them. A [Lab] reads like the drawing of its
// topology:
//
//	l, err := lab.New("demo")
//	defer l.Close()
//	client, router := l.Host("client"), l.Host("router")
//	client.Link(router, "192.0.2.2/24 2001:db8::2/64", "192.0.2.1/24 2001:db8::1/64")
//	client.Route("default", "192.0.2.1")
//	router.Sysctl("net.ipv4.ip_forward", "1")
//	if err := l.Err(); err != nil { … }
//
// The calls that draw the topology return no error each: after the first
// fault the rest do nothing and [Lab.Err] tells it. The calls that run
// something return theirs.
//
// Nothing outlives the process that made it. A namespace is held by one thread
// of this process and named by a link to that thread in /run/netns, so that a
// person can look around with ip netns exec; processes started in it are
// killed by the kernel when the thread ends. [Lab.Close] ends all in order;
// after SIGKILL the kernel does, and the next New removes the dead names.
package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// namesDir is where iproute2 looks for namespaces by their names.
const namesDir = "/run/netns"

// A Lab is a set of hosts and the links between them.
type Lab struct {
	prefix string

	mu     sync.Mutex
	err    error
	ends   []func() // undo what was made and started, called last first
	closed bool
}

var errClosed = errors.New("the lab is closed")

// running numbers the labs of this process, so that two of the same prefix
// have different names.
var running struct {
	sync.Mutex
	n int
}

// New starts an empty lab. The namespaces of its hosts are named
// prefix-PID-host; a second lab of the same process gets a number after PID.
// It needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
func New(prefix string) (*Lab, error) {
	if unix.Geteuid() != 0 {
		return nil, errors.New("lab: network namespaces need root")
	}
	sweep(prefix)
	running.Lock()
	defer running.Unlock()
	running.n++
	name := fmt.Sprintf("%s-%d", prefix, os.Getpid())
	if running.n > 1 {
		name += "." + strconv.Itoa(running.n)
	}
	return &Lab{prefix: name}, nil
}

// sweep removes the names of namespaces whose process is gone.
func sweep(prefix string) {
	names, _ := filepath.Glob(filepath.Join(namesDir, prefix+"-*"))
	ours := regexp.MustCompile(`^` + regexp.QuoteMeta(prefix) + `-[0-9]+(\.[0-9]+)?-`)
	for _, n := range names {
		if !ours.MatchString(filepath.Base(n)) {
			continue
		}
		target, err := os.Readlink(n)
		if err != nil {
			continue
		}
		if _, err := os.Lstat(target); errors.Is(err, os.ErrNotExist) {
			os.Remove(n)
		}
	}
}

// Err is the first fault of the calls that draw the topology.
func (l *Lab) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// draw does one step of the topology, unless an earlier one failed.
func (l *Lab) draw(what string, step func() error) {
	if l.Err() != nil {
		return
	}
	if err := step(); err != nil {
		l.mu.Lock()
		l.err = fmt.Errorf("lab: %s: %w", what, err)
		l.mu.Unlock()
	}
}

// atClose has end called by Close. It says false when the lab is closed already.
func (l *Lab) atClose(end func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.ends = append(l.ends, end)
	return true
}

// Close ends the processes, captures, sockets and namespaces of the lab, the
// last one first. It may be called more than once.
func (l *Lab) Close() {
	l.mu.Lock()
	ends := l.ends
	l.ends, l.closed = nil, true
	l.mu.Unlock()
	for i := len(ends) - 1; i >= 0; i-- {
		ends[i]()
	}
}
