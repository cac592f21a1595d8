package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/uvs-project/uvs/integration/lab"
)

// adminAddr is where every director of these tests serves /healthz and /metrics.
const adminAddr = "127.0.0.1:9740"

// A director is a running uvs.
type director struct {
	host    *lab.Host
	process *lab.Process
	bin     string
	file    string // its configuration
	socket  string
}

// settings are the parts of a configuration that the tests share.
const settings = `
addresses:
  tunnel_source: ["192.0.2.11", "2001:db8:1::11"]
  fullnat_pool: ["198.51.100.0/29", "2001:db8:f::/125"]
`

// newDirector starts uvs with a configuration and waits until it is ready.
func newDirector(bin, dir string, host *lab.Host, config string) (*director, error) {
	d := &director{
		host: host, bin: bin,
		file:   filepath.Join(dir, "uvs.yaml"),
		socket: filepath.Join(dir, "uvs.sock"),
	}
	if err := d.configure(config); err != nil {
		return nil, err
	}
	return d, d.start()
}

// startDirector is newDirector for a single test.
func startDirector(t *testing.T, host *lab.Host, config string) *director {
	t.Helper()
	d, err := newDirector(uvsProgram(t), t.TempDir(), host, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("uvs said:\n%s", d.process.Output())
		}
		d.process.Stop()
	})
	return d
}

// configure writes the configuration file.
func (d *director) configure(config string) error {
	config += fmt.Sprintf("\nadmin: {socket: %q, listen: %q}\n", d.socket, adminAddr)
	return os.WriteFile(d.file, []byte(config), 0o644)
}

// start runs uvs until it is ready.
func (d *director) start() error {
	p, err := d.host.Start(exec.Command(d.bin, "run", "-c", d.file))
	if err != nil {
		return err
	}
	d.process = p
	ctx, cancel := timeout()
	defer cancel()
	err = p.Await(ctx, "uvs", func() error {
		_, err := d.get(ctx, "/healthz")
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.Output())
	}
	return nil
}

// get asks the admin port.
func (d *director) get(ctx context.Context, path string) (string, error) {
	web := http.Client{Transport: &http.Transport{DialContext: d.host.Dial, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+adminAddr+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := web.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", path, answer.Status, body)
	}
	return string(body), nil
}

// reload puts another configuration in place and tells uvs.
func (d *director) reload(config string) error {
	if err := d.configure(config); err != nil {
		return err
	}
	return d.process.Signal(unix.SIGHUP)
}
