package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/config"
	"github.com/uvs-project/uvs/health"
	"github.com/uvs-project/uvs/lb"
)

// TestEveryCheckCanBeConfigured: package config knows the checks of package
// health, and no others.
func TestEveryCheckCanBeConfigured(t *testing.T) {
	parseCheck := func(section string) (*config.Config, error) {
		return config.Parse([]byte(`services: [{name: a, mode: nat, listen: ["203.0.113.10:80/tcp", "203.0.113.10:80/udp"],
			real_servers: [{address: "192.0.2.1:80"}], health: {`+section+`}}]`), "yaml", config.Options{})
	}
	required := map[string]string{"dns": ", name: a.", "script": ", command: [/bin/true]", "udp": ", send: x"}
	for _, name := range health.Names() {
		cfg, err := parseCheck("type: " + name + required[name])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p, err := newPlan(cfg, anyTunnelSource)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m := p.members[0]; m.Options.Type != name || (m.Check == nil) != (name == health.None) {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if _, err := parseCheck("type: guess"); err == nil || !strings.HasSuffix(err.Error(), "is none of "+strings.Join(health.Names(), ", ")) {
		t.Errorf("%v, want the names %v", err, health.Names())
	}
}

func TestOnlyFitRealServersHaveWeight(t *testing.T) {
	servers := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("192.0.2.2:80"), netip.MustParseAddrPort("192.0.2.3:80")}
	c := lb.Config{Services: []lb.ServiceConfig{{Name: "web"}, {Name: "other"}}}
	for i := range c.Services {
		for _, s := range servers {
			c.Services[i].RealServers = append(c.Services[i].RealServers, lb.RealServerConfig{Address: s, Weight: 7})
		}
	}
	got := weighted(c, []health.Status{
		{Service: "web", Server: servers[0], State: health.Up},
		{Service: "web", Server: servers[1], State: health.Down},
		{Service: "web", Server: servers[2], State: health.SlowStart},
		{Service: "other", Server: servers[1], State: health.Up},
	})
	for i, want := range [][]int{{7, 0, 7}, {0, 7, 0}} {
		for j, w := range want {
			if got := got.Services[i].RealServers[j].Weight; got != w {
				t.Errorf("service %d, real server %d: weight %d, want %d", i, j, got, w)
			}
			if c.Services[i].RealServers[j].Weight != 7 {
				t.Error("the configuration itself was changed")
			}
		}
	}
}
