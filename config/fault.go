package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A Fault is one thing wrong with a configuration. [Load] and [Parse] return
// all of them, joined by errors.Join.
type Fault struct {
	Path    string // of the key, such as services[0] "web": real_servers[2].address
	Message string
}

func (f *Fault) Error() string {
	if f.Path == "" {
		return f.Message
	}
	return f.Path + ": " + f.Message
}

// faults collects what is wrong with one Config.
type faults struct {
	cfg  *Config
	list []error
	seen map[string]bool       // paths that have a fault
	vips map[netip.Addr]string // the first service that listens on each, by name; made by checkServices
}

// add notes a fault at a path such as services[0].real_servers[2].address.
// Of several faults at one key only the first is kept: the others follow
// from it.
func (fs *faults) add(path, format string, args ...any) {
	if fs.seen[path] {
		return
	}
	if fs.seen == nil {
		fs.seen = map[string]bool{}
	}
	fs.seen[path] = true
	fs.list = append(fs.list, &Fault{Path: fs.place(path), Message: fmt.Sprintf(format, args...)})
}

// place puts the service's name into a path, since nobody counts services.
func (fs *faults) place(path string) string {
	rest, ok := strings.CutPrefix(path, "services[")
	if !ok {
		return path
	}
	index, rest, _ := strings.Cut(rest, "]")
	i, err := strconv.Atoi(index)
	if err != nil || i >= len(fs.cfg.Services) || fs.cfg.Services[i].Name == "" {
		return path
	}
	head := fmt.Sprintf("services[%d] %q", i, fs.cfg.Services[i].Name)
	if rest == "" {
		return head
	}
	return head + ": " + strings.TrimPrefix(rest, ".")
}

func (fs *faults) err() error { return errors.Join(fs.list...) }
