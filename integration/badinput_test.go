package integration

// What uvs says where it cannot start: the cause, and a command that mends it.
// It ends with an exit code of its own and leaves nothing behind. The host is
// the director of:
//
//	director 10.1.0.1 ──── 10.1.0.2 rs
//	2001:db8:1::1      2001:db8:1::2

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/integration/lab"
)

// good is a configuration that works on this host.
const good = `
services:
  - name: web
    mode: nat
    health: {type: none}
    listen: ["203.0.113.10:80/tcp"]
    real_servers: [{address: "10.1.0.2:80"}]
`

func TestBadInput(t *testing.T) {
	need(t, "ip", "nft", "unshare", "setpriv", "mount")
	// without runs uvs under a program that takes something away.
	without := func(wrapper ...string) func(string, string) *exec.Cmd {
		return func(bin, file string) *exec.Cmd {
			return exec.Command(wrapper[0], append(wrapper[1:], bin, "run", "-c", file)...)
		}
	}
	for _, test := range []struct {
		name    string
		config  string                           // empty: good
		prepare func(*lab.Host)                  // what is wrong with the host
		command func(bin, file string) *exec.Cmd // nil: uvs run -c file
		code    int                              // exit code
		say     []string                         // words of the message
	}{
		{name: "no /dev/net/tun", command: without("unshare", "--mount", "sh", "-c", `mount -t tmpfs none /dev/net && exec "$@"`, "sh"),
			code: 1, say: []string{"/dev/net/tun", "--device /dev/net/tun"}},
		{name: "no NET_ADMIN", command: without("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"),
			code: 1, say: []string{"NET_ADMIN", "--cap-add NET_ADMIN"}},
		{name: "no NET_RAW", command: without("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"),
			code: 1, say: []string{"NET_RAW", "--cap-add NET_RAW"}},
		{name: "the device's name is in use", prepare: func(h *lab.Host) { h.Link(h.Lab().Host("uvs0"), "", "") },
			code: 1, say: []string{"uvs0", "in use", "device.name"}},
		{name: "a real server of the wrong family", config: strings.Replace(good, "10.1.0.2:80", "[2001:db8:1::2]:80", 1),
			code: 2, say: []string{"services[0]", "real_servers", "IPv4"}},
		{name: "a VIP that is the host's own", prepare: func(h *lab.Host) { h.Addr("lo", "203.0.113.10/32") },
			code: 1, say: []string{"203.0.113.10", "ip addr del 203.0.113.10/32 dev lo"}},
		{name: "fullnat without a pool", config: strings.Replace(good, "nat", "fullnat", 1),
			code: 2, say: []string{"fullnat_pool"}},
		{name: "fullnat with a pool of the other family only", code: 2, say: []string{"fullnat_pool"},
			config: "addresses: {fullnat_pool: [\"2001:db8:f::/124\"]}" + strings.Replace(good, "nat", "fullnat", 1)},
		{name: "no route to a real server", config: strings.Replace(good, "10.1.0.2:80", "10.9.9.9:80", 1),
			code: 1, say: []string{"10.9.9.9", "ip route add 10.9.9.9"}},
		{name: "dr with another port", code: 2, say: []string{"services[0]", "real_servers[0]", "port"},
			config: strings.NewReplacer("nat", "dr", "10.1.0.2:80", "10.1.0.2:8080").Replace(good)},
		{name: "all faults at once", code: 2, say: []string{"scheduler", "listen[0]", "colour"},
			config: strings.NewReplacer("203.0.113.10:80/tcp", "203.0.113.10:80", "mode: nat", "mode: nat\n    scheduler: best\n    colour: red").Replace(good)},
		{name: "no such file", command: func(bin, _ string) *exec.Cmd { return exec.Command(bin, "run", "-c", "/nowhere/uvs.yaml") },
			code: 2, say: []string{"/nowhere/uvs.yaml", "no such file"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t)
			host, rs := l.Host("director"), l.Host("rs")
			host.Forward().Link(rs, "10.1.0.1/24 2001:db8:1::1/64", "10.1.0.2/24 2001:db8:1::2/64")
			if test.prepare != nil {
				test.prepare(host)
			}
			drawn(t, l)
			settled(t, host)
			before := inventory(t, host)
			dir := t.TempDir()
			d := &director{file: filepath.Join(dir, "uvs.yaml"), socket: filepath.Join(dir, "uvs.sock")}
			config := test.config
			if config == "" {
				config = good
			}
			if err := d.configure(config); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(uvsProgram(t), "run", "-c", d.file)
			if test.command != nil {
				cmd = test.command(uvsProgram(t), d.file)
			}
			p, err := host.Start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Wait(within(t)); err == nil {
				t.Error("it ended as if all were well")
			}
			if got := p.ExitCode(); got != test.code {
				t.Errorf("exit code %d, want %d", got, test.code)
			}
			for _, words := range test.say {
				if !strings.Contains(p.Output(), words) {
					t.Errorf("no word of %q", words)
				}
			}
			if diff := cmp.Diff(before, inventory(t, host)); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
			if _, err := os.Lstat(d.socket); err == nil {
				t.Error("left its socket behind")
			}
			t.Logf("uvs said:\n%s", p.Output())
		})
	}
}
