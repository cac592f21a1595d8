package integration

// A container engine for tests: the machine's own dockerd, but with a state of
// its own in a temporary directory and in the network namespace of a lab, so
// that it meets no other engine and leaves nothing behind.

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

// An engine is a running dockerd.
type engine struct {
	host *lab.Host
	sock string
}

func newEngine(t *testing.T, host *lab.Host) *engine {
	t.Helper()
	dir, err := os.MkdirTemp("", "uvs-engine-") // short: it holds the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{host: host, sock: "unix://" + dir + "/sock"}
	parent := filepath.Base(dir)
	// A mount namespace of its own keeps its mounts from the machine.
	p, err := host.Start(exec.Command("unshare", "--mount", "dockerd", "-H", e.sock,
		"--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid",
		"--iptables=false", "--ip6tables=false", "--ip-masq=false", "--cgroup-parent", "/"+parent, "--log-level", "warn"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("dockerd said:\n%s", p.Output())
		}
		if ids := strings.Fields(e.try("ps", "-aq")); len(ids) > 0 {
			e.try(append([]string{"rm", "-f", "-v"}, ids...)...)
		}
		p.Stop()
		removeGroups(t, parent)
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the engine's state: %v", err)
		}
	})
	ctx, cancel := timeout()
	defer cancel()
	if err := lab.Wait(ctx, "dockerd", func() error {
		select {
		case <-p.Exited():
			t.Fatalf("dockerd ended:\n%s", p.Output())
		default:
		}
		return e.command("version").Run()
	}); err != nil {
		t.Fatalf("%v\n%s", err, p.Output())
	}
	return e
}

// removeGroups removes the control groups that an engine leaves.
func removeGroups(t *testing.T, parent string) {
	var groups []string
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, "/"+parent) {
			groups = append(groups, path)
		}
		return nil
	})
	for i := len(groups) - 1; i >= 0; i-- { // the inner ones first
		if err := os.Remove(groups[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("control group: %v", err)
		}
	}
}

// command is a docker command for this engine, with the classic builder, which needs no
// plugin.
func (e *engine) command(args ...string) *exec.Cmd {
	cmd := exec.Command("docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.sock, "DOCKER_BUILDKIT=0")
	return cmd
}

// try runs a command and returns what it prints.
func (e *engine) try(args ...string) string {
	out, _ := e.command(args...).CombinedOutput()
	return string(out)
}

// docker runs a command that must work.
func (e *engine) docker(t *testing.T, args ...string) string {
	t.Helper()
	cmd := e.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// image makes an image of the files that fill writes.
func (e *engine) image(t *testing.T, name string, changes []string, fill func(*tar.Writer) error) {
	t.Helper()
	args := []string{"import"}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	cmd := e.command(append(args, "-", name)...)
	pr, pw := io.Pipe()
	cmd.Stdin = pr
	go func() {
		w := tar.NewWriter(pw)
		pw.CloseWithError(errors.Join(fill(w), w.Close()))
	}()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("docker import %s: %v\n%s", name, err, out)
	}
}

// goImage makes the image that a Dockerfile builds Go programs in from the
// machine's own Go, shell and module cache, as there is no registry to pull
// it from.
func (e *engine) goImage(t *testing.T, name string) {
	t.Helper()
	env, err := exec.Command("go", "env", "-json", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	var dirs struct{ GOROOT, GOMODCACHE string }
	if err := json.Unmarshal(env, &dirs); err != nil {
		t.Fatal(err)
	}
	changes := []string{
		"ENV PATH=/usr/local/go/bin:/bin GOPATH=/go GOMODCACHE=/go/pkg/mod GOCACHE=/tmp/build HOME=/tmp",
		// The cache holds all that go.sum names; nothing is to be asked for.
		"ENV GOPROXY=off GOSUMDB=off GOTOOLCHAIN=local",
	}
	e.image(t, name, changes, func(w *tar.Writer) error {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
			return err
		}
		for _, f := range []string{"/bin/sh", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"} {
			if err := addFile(w, f, f); err != nil {
				return err
			}
		}
		for _, sub := range []string{"bin", "src", "pkg/tool", "pkg/include", "go.env", "VERSION"} {
			if err := addTree(w, filepath.Join(dirs.GOROOT, sub), "/usr/local/go/"+sub); err != nil {
				return err
			}
		}
		return addModules(w, dirs.GOMODCACHE)
	})
}

// addModules adds the modules of go.mod from the machine's cache, and of every other
// the go.mod file, which the go command reads to know what it does not need.
func addModules(w *tar.Writer, cache string) error {
	download := exec.Command("go", "mod", "download", "-json")
	download.Dir = ".."
	out, err := download.Output()
	if err != nil {
		return fmt.Errorf("go mod download: %w", err)
	}
	for modules := json.NewDecoder(bytes.NewReader(out)); modules.More(); {
		var m struct{ Dir, Info, Zip string }
		if err := modules.Decode(&m); err != nil {
			return err
		}
		for _, path := range []string{m.Dir, m.Info, m.Zip, strings.TrimSuffix(m.Zip, ".zip") + ".ziphash"} {
			if err := addTree(w, path, "/go/pkg/mod"+strings.TrimPrefix(path, cache)); err != nil {
				return err
			}
		}
	}
	const downloads = "/cache/download"
	return filepath.WalkDir(cache+downloads, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".mod" {
			return err
		}
		return addFile(w, path, "/go/pkg/mod"+strings.TrimPrefix(path, cache))
	})
}

// addTree adds a file or a directory with what is in it.
func addTree(w *tar.Writer, from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return addFile(w, path, to+strings.TrimPrefix(path, from))
	})
}

// addFile adds what a path leads to, under a name.
func addFile(w *tar.Writer, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(name, "/"), Size: info.Size(), Mode: int64(info.Mode().Perm() | 0o444)}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
