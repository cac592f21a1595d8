package integration

// VIPs announced on a LAN: no router, no routing protocol, no route on the client.
//
//	client 192.0.2.2 ──── lan ──── 192.0.2.11 director 10.1.0.1 ──── 10.1.0.2 rs
//	2001:db8:1::2                  2001:db8:1::11  2001:db8:2::1   2001:db8:2::2
//
//	VIPs 192.0.2.100 and 2001:db8:1::100, in the LAN's own networks

import (
	"fmt"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

func TestVIPIsAnnouncedOnTheLAN(t *testing.T) {
	need(t, "nginx", "curl", "ip", "ping")
	l := newLab(t)
	client, lan, director, rs := l.Host("client"), l.Host("lan").Bridge("br0", ""), l.Host("director").Forward(), l.Host("rs")
	client.Link(lan, "192.0.2.2/24 2001:db8:1::2/64", "")
	director.Link(lan, "192.0.2.11/24 2001:db8:1::11/64", "")
	director.Link(rs, "10.1.0.1/24 2001:db8:2::1/64", "10.1.0.2/24 2001:db8:2::2/64")
	rs.Route("default", "10.1.0.1").Route("default", "2001:db8:2::1")
	drawn(t, l)
	if err := nginx(rs); err != nil {
		t.Fatal(err)
	}
	vips := []string{"192.0.2.100", "2001:db8:1::100"}
	// The client still knows the former owner of each VIP.
	for _, vip := range vips {
		run(t, client, "ip", "neighbour", "replace", vip, "lladdr", "02:00:00:00:be:ef", "dev", "lan", "nud", "stale")
	}
	d := startDirector(t, director, `
services:
  - name: web
    mode: nat
    health: {type: none}
    listen: ["192.0.2.100:80/tcp", "[2001:db8:1::100]:80/tcp"]
    real_servers: [{address: "10.1.0.2:80"}, {address: "[2001:db8:2::2]:80"}]
`)
	mac := director.MAC("lan").String()
	for _, vip := range vips {
		t.Run("a takeover is announced: "+vip, func(t *testing.T) {
			if err := lab.Wait(within(t), "the client to learn the new owner", func() error {
				if got := run(t, client, "ip", "neighbour", "show", vip); !strings.Contains(got, mac) {
					return fmt.Errorf("%q, want %s", got, mac)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	for _, vip := range vips {
		t.Run("a question is answered: "+vip, func(t *testing.T) {
			run(t, client, "ip", "neighbour", "flush", "dev", "lan")
			url := "http://" + vip + "/who"
			if strings.Contains(vip, ":") {
				url = "http://[" + vip + "]/who"
			}
			if got := run(t, client, "curl", "-sS", "--fail", "--max-time", "10", url); !strings.HasPrefix(got, "rs ") {
				t.Errorf("answer %q", got)
			}
			run(t, client, "ping", "-n", "-c", "1", "-W", "5", vip)
			if got := run(t, client, "ip", "neighbour", "show", vip); !strings.Contains(got, mac) {
				t.Errorf("%q, want %s", got, mac)
			}
		})
	}
	t.Run("nobody answers when uvs has ended", func(t *testing.T) {
		d.process.Stop()
		run(t, client, "ip", "neighbour", "flush", "dev", "lan")
		if out, err := client.Run(within(t), "ping", "-n", "-c", "1", "-W", "1", vips[0]); err == nil {
			t.Errorf("still there:\n%s", out)
		}
	})
}
