package integration

// What else of the host or of another program keeps a director from starting
// (badinput_test.go has the rest), in the smallest topology:
//
//	director (192.0.2.1/24, 2001:db8:1::1/64) ── rs (192.0.2.2, 2001:db8:1::2)

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/uvs-project/uvs/integration/lab"
)

// oneService is a service in a mode with one real server.
func oneService(mode, listen, server string) string {
	return fmt.Sprintf("services: [{name: web, mode: %s, listen: [%q], real_servers: [{address: %q}]}]\n", mode, listen, server)
}

func TestWhatTheHostRefuses(t *testing.T) {
	need(t, "ip", "nft")
	nat := oneService("nat", "203.0.113.10:80/tcp", "192.0.2.2")
	tests := []struct {
		name   string
		config string
		before []string // a command of the host that prepares it
		after  []string // and its undoing
		says   []string // the cause, and what mends it
	}{
		{name: "a TUN device of that name", config: nat,
			before: strings.Fields("ip tuntap add dev uvs0 mode tun"), after: strings.Fields("ip link del uvs0"),
			says: []string{"TUN device uvs0 exists already", "ip link del uvs0"}},
		{name: "dr behind a gateway", config: oneService("dr", "203.0.113.10:80/tcp", "10.9.9.9"),
			before: strings.Fields("ip route add 10.9.9.0/24 via 192.0.2.2"), after: strings.Fields("ip route del 10.9.9.0/24"),
			says: []string{"real server 10.9.9.9: is behind the gateway 192.0.2.2", "use tun or fullnat"}},
		{name: "LIPs of the host", config: oneService("fullnat", "203.0.113.10:80/tcp", "192.0.2.2") + "addresses: {fullnat_pool: [192.0.2.0/31]}\n",
			says: []string{"192.0.2.1 is an address of this host on rs", "choose another pool"}},
		{name: "policy rules of another program", config: nat,
			before: strings.Fields("ip rule add pref 9745 from 10.1.1.1 lookup main"), after: strings.Fields("ip rule del pref 9745"),
			says: []string{"of another program", "set device.table", "rule del"}},
	}
	l := newLab(t)
	host, rs := l.Host("director"), l.Host("rs")
	host.Link(rs, "192.0.2.1/24 2001:db8:1::1/64", "192.0.2.2/24 2001:db8:1::2/64")
	drawn(t, l)
	bin := uvsProgram(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before != nil {
				run(t, host, tt.before[0], tt.before[1:]...)
				defer run(t, host, tt.after[0], tt.after[1:]...)
			}
			dir := t.TempDir()
			file := filepath.Join(dir, "uvs.yaml")
			tt.config += fmt.Sprintf("admin: {socket: %q, listen: \"\"}\n", filepath.Join(dir, "uvs.sock"))
			if err := os.WriteFile(file, []byte(tt.config), 0o644); err != nil {
				t.Fatal(err)
			}
			before := inventory(t, host)
			said, code := refused(t, host, []string{bin, "run", "-c", file})
			if code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			for _, want := range tt.says {
				if !strings.Contains(said, want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if diff := cmp.Diff(before, inventory(t, host)); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "uvs.sock*")); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if t.Failed() {
				t.Logf("it said:\n%s", said)
			}
		})
	}
}

func TestASecondDirectorIsRefusedAndTheFirstGoesOn(t *testing.T) {
	need(t, programs...)
	list := some("nat IPv4")
	b := readyBed(t, list)
	d := startDirector(t, b.director, settings+services(list))
	other := filepath.Join(t.TempDir(), "other.sock")
	for says, args := range map[string][]string{
		"another uvs is running":       {},
		"uvs0 exists already":          {"--set", "admin.socket=" + other, "--set", "admin.listen="},
		"another uvs with device uvs0": {"--set", "admin.socket=" + other, "--set", "admin.listen=", "--set", "device.name=uvs1"},
	} {
		said, code := refused(t, b.director, append([]string{d.bin, "run", "-c", d.file}, args...))
		if code != 1 || !strings.Contains(said, says) {
			t.Errorf("exit code %d, want 1; it does not say %q:\n%s", code, says, said)
		}
		serving(t, b, list)
	}
}

// refused runs a command that must end by itself.
func refused(t *testing.T, h *lab.Host, command []string) (said string, code int) {
	t.Helper()
	p, err := h.Start(exec.Command(command[0], command[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	select {
	case <-p.Exited():
	case <-within(t).Done():
		t.Fatalf("it runs; it said:\n%s", p.Output())
	}
	return p.Output(), p.ExitCode()
}
