package host

import (
	"bufio"
	"bytes"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// FreeMemory is how many bytes the program can still get: what the kernel
// thinks available on the whole machine, or what the program's control group
// and those above it leave, whichever is less. ok is false where neither is
// known.
func FreeMemory() (free int64, ok bool) { return freeMemory(os.DirFS("/")) }

func freeMemory(root fs.FS) (free int64, ok bool) {
	note := func(n int64) {
		if !ok || n < free {
			free, ok = max(0, n), true
		}
	}
	if kib, known := valueOf(root, "proc/meminfo", "MemAvailable:"); known {
		note(kib << 10)
	}
	group, known := controlGroup(root)
	for ; known; group = path.Dir(group) {
		dir := path.Join("sys/fs/cgroup", group)
		limit, limited := valueOf(root, path.Join(dir, "memory.max"), "")
		used, counted := valueOf(root, path.Join(dir, "memory.current"), "")
		if limited && counted {
			// Pages of files that nobody has used for long are given back before
			// anybody is refused.
			idle, _ := valueOf(root, path.Join(dir, "memory.stat"), "inactive_file")
			note(limit - used + idle)
		}
		if group == "." {
			break
		}
	}
	return free, ok
}

// controlGroup is the program's group in the unified hierarchy (cgroup v2), as
// a relative path.
func controlGroup(root fs.FS) (group string, ok bool) {
	b, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(b)) {
		if group, ok = strings.CutPrefix(strings.TrimSpace(line), "0::/"); ok {
			return path.Clean(group), true
		}
	}
	return "", false
}

// valueOf is the number in the line of a file that begins with key. A missing
// file, and a limit of "max", have none.
func valueOf(root fs.FS, file, key string) (n int64, ok bool) {
	b, err := fs.ReadFile(root, file)
	if err != nil {
		return 0, false
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if key != "" {
			if len(fields) < 2 || fields[0] != key {
				continue
			}
			fields = fields[1:]
		}
		if len(fields) == 0 {
			continue
		}
		n, err = strconv.ParseInt(fields[0], 10, 64)
		return n, err == nil
	}
	return 0, false
}
