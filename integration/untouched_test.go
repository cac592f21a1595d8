package integration

// Traffic of the real servers of nat that is not balanced crosses the director
// as through any router, although their default route leads there. Topology of
// bed_test.go.

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

func TestOtherTrafficOfRealServersIsUntouched(t *testing.T) {
	need(t, programs...)
	b, err := sharedBed()
	if err != nil {
		t.Fatal(err)
	}
	if err := nginx(b.client); err != nil { // what the real servers connect to
		t.Fatal(err)
	}
	for _, v := range some("nat IPv4", "nat IPv6") {
		rs, rip := b.groups[v.group()][0], v.rip(1)
		t.Run(v.name, func(t *testing.T) {
			t.Run("a port that is not balanced", func(t *testing.T) {
				const port = 2222
				server, err := rs.Start(exec.Command("socat", fmt.Sprintf("TCP6-LISTEN:%d,ipv6only=0,reuseaddr", port), "EXEC:echo like ssh"))
				if err != nil {
					t.Fatal(err)
				}
				defer server.Stop()
				if err := rs.WaitListen(within(t), fmt.Sprintf("tcp/%d", port)); err != nil {
					t.Fatal(err)
				}
				out := run(t, b.client, "socat", "-u", "-T60", fmt.Sprintf("TCP:%s:%d", literal(rip), port), "STDOUT")
				if out != "like ssh\n" {
					t.Errorf("got %q", out)
				}
			})
			t.Run("a balanced port, asked directly", func(t *testing.T) {
				out := run(t, b.client, "curl", "-sS", "--fail", "--max-time", "60", "http://"+literal(rip)+"/who")
				if want := fmt.Sprintf("rs1 %v %v\n", v.clientAddr(), rip); out != want {
					t.Errorf("got %q, want %q", out, want)
				}
			})
			t.Run("a connection that the real server opens", func(t *testing.T) {
				out := run(t, rs, "curl", "-sS", "--fail", "--max-time", "60", "--interface", rip.String(), "http://"+literal(v.clientAddr())+"/who")
				if !strings.HasPrefix(out, fmt.Sprintf("client %v ", rip)) {
					t.Errorf("the client sees %q, want the real server's own address %v", out, rip)
				}
			})
			t.Run("ping", func(t *testing.T) {
				run(t, b.client, "ping", "-n", "-c", "1", "-W", "60", rip.String())
			})
		})
	}
}
