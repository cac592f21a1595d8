package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

// A bird is a router that runs BIRD 2.
type bird struct {
	host    *lab.Host
	control string // its socket
	config  string // its file
	process *lab.Process
}

// birdBase has what every BIRD of these tests wants: its routes in the kernel,
// all next hops of a route, and no long pauses after an error.
const birdBase = `
log stderr all;
router id %s;
protocol device { scan time 1; }
protocol direct { ipv4; ipv6; }
protocol kernel { merge paths on; ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel { merge paths on; ipv6 { import none; export where source = RTS_BGP; }; }
template bgp director {
	local as 65000;
	hold time 9;
	connect delay time 1;
	connect retry time 1;
	error wait time 1, 2;
	ipv4 { import all; export none; };
	ipv6 { import all; export none; };
}
`

// startBird starts BIRD in a host with birdBase and the given protocols.
func startBird(t *testing.T, h *lab.Host, routerID, protocols string) *bird {
	t.Helper()
	dir := t.TempDir()
	b := &bird{host: h, control: filepath.Join(dir, "bird.ctl")}
	b.config = filepath.Join(dir, "bird.conf")
	if err := os.WriteFile(b.config, []byte(fmt.Sprintf(birdBase, routerID)+protocols), 0o644); err != nil {
		t.Fatal(err)
	}
	b.start(t)
	return b
}

func (b *bird) start(t *testing.T) {
	t.Helper()
	p, err := b.host.Start(exec.Command("bird", "-f", "-c", b.config, "-s", b.control))
	if err != nil {
		t.Fatal(err)
	}
	b.process = p
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("bird said:\n%s", p.Output())
		}
		p.Stop()
	})
	if err := p.Await(within(t), "bird", func() error {
		_, err := b.host.Run(within(t), "birdc", "-s", b.control, "show", "status")
		return err
	}); err != nil {
		t.Fatalf("%v\n%s", err, p.Output())
	}
}

// ask is a command of birdc. What BIRD does not know, such as a route or a
// protocol that is not there yet, is an answer too.
func (b *bird) ask(t *testing.T, command ...string) string {
	t.Helper()
	out, err := b.host.Run(within(t), "birdc", append([]string{"-s", b.control}, command...)...)
	if err != nil && !strings.Contains(out, " ready.") {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// established waits until sessions are up, by the names of their protocols.
func (b *bird) established(t *testing.T, protocols ...string) {
	t.Helper()
	for _, name := range protocols {
		err := lab.Wait(within(t), name+" to be established", func() error {
			if out := b.ask(t, "show", "protocols", name); !strings.Contains(out, "Established") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
