package integration

// VIPs announced on a LAN: no router, no routing protocol, no route on the client.
//
//	client 192.0.2.2 ──── lan ──── 192.0.2.11 director 10.1.0.1 ──── 10.1.0.2 rs
//	2001:db8:1::2                  2001:db8:1::11  2001:db8:2::1   2001:db8:2::2
//
//	VIPs 192.0.2.100 and 2001:db8:1::100, in the LAN's own networks

import (
	"errors"
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
	server, err := nginxIn(rs)
	if err != nil {
		t.Fatal(err)
	}
	vips := []string{"192.0.2.100", "2001:db8:1::100"}
	// elsewhere has the client know another owner of each VIP.
	elsewhere := func() {
		for _, vip := range vips {
			run(t, client, "ip", "neighbour", "replace", vip, "lladdr", "02:00:00:00:be:ef", "dev", "lan", "nud", "stale")
		}
	}
	elsewhere()
	d := startDirector(t, director, `
services:
  - name: web
    mode: nat
    health: {type: tcp, interval: 2s, fast_interval: 100ms, timeout: 2s}
    listen: ["192.0.2.100:80/tcp", "[2001:db8:1::100]:80/tcp"]
    real_servers: [{address: "10.1.0.2:80"}, {address: "[2001:db8:2::2]:80"}]
`)
	mac := director.MAC("lan").String()
	owned := func(t *testing.T, vip string) {
		t.Helper()
		if err := lab.Wait(within(t), "the client to learn the new owner", func() error {
			if got := run(t, client, "ip", "neighbour", "show", vip); !strings.Contains(got, mac) {
				return fmt.Errorf("%q, want %s", got, mac)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	for _, vip := range vips {
		t.Run("a takeover is announced: "+vip, func(t *testing.T) { owned(t, vip) })
	}
	for _, vip := range vips {
		t.Run("a question is answered: "+vip, func(t *testing.T) {
			run(t, client, "ip", "neighbour", "flush", "dev", "lan")
			url := "http://" + vip + "/who"
			if strings.Contains(vip, ":") {
				url = "http://[" + vip + "]/who"
			}
			if got := run(t, client, "curl", "-sS", "--fail", "--max-time", "60", url); !strings.HasPrefix(got, "rs ") {
				t.Errorf("answer %q", got)
			}
			run(t, client, "ping", "-n", "-c", "1", "-W", "60", vip)
			if got := run(t, client, "ip", "neighbour", "show", vip); !strings.Contains(got, mac) {
				t.Errorf("%q, want %s", got, mac)
			}
		})
	}
	t.Run("nobody answers while no real server is fit", func(t *testing.T) {
		server.Stop()
		if err := lab.Wait(within(t), "the director to answer for nothing", func() error {
			if got := run(t, director, "ip", "neighbour", "show", "proxy") + run(t, director, "ip", "-6", "neighbour", "show", "proxy"); got != "" {
				return errors.New(got)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for _, vip := range vips {
			run(t, client, "ip", "neighbour", "flush", "dev", "lan")
			if out, err := client.Run(within(t), "ping", "-n", "-c", "1", "-W", "1", vip); err == nil {
				t.Errorf("still there:\n%s", out)
			}
		}
	})
	t.Run("they are announced again when one is", func(t *testing.T) {
		elsewhere()
		if server, err = nginxIn(rs); err != nil {
			t.Fatal(err)
		}
		for _, vip := range vips {
			owned(t, vip)
		}
	})
	t.Run("nobody answers for a VIP that is drained", func(t *testing.T) {
		run(t, director, d.bin, "drain", "vip", vips[0], "--deadline", "0s", "--socket", d.socket)
		run(t, client, "ip", "neighbour", "flush", "dev", "lan")
		if out, err := client.Run(within(t), "ping", "-n", "-c", "1", "-W", "1", vips[0]); err == nil {
			t.Errorf("still there:\n%s", out)
		}
		run(t, client, "ping", "-n", "-c", "1", "-W", "60", vips[1])
		run(t, director, d.bin, "drain", "vip", vips[0], "--undo", "--socket", d.socket)
		if err := lab.Wait(within(t), "an answer", func() error {
			_, err := client.Run(within(t), "ping", "-n", "-c", "1", "-W", "60", vips[0])
			return err
		}); err != nil {
			t.Error(err)
		}
	})
	t.Run("nobody answers when uvs has ended", func(t *testing.T) {
		d.process.Stop()
		run(t, client, "ip", "neighbour", "flush", "dev", "lan")
		if out, err := client.Run(within(t), "ping", "-n", "-c", "1", "-W", "1", vips[0]); err == nil {
			t.Errorf("still there:\n%s", out)
		}
	})
}
