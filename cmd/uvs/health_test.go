package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

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

func TestWeightsFollowHealth(t *testing.T) {
	const up, slow, down, checking, draining = health.Up, health.SlowStart, health.Down, health.Checking, health.Draining
	server := func(i int) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i+1)) }
	sorry := netip.MustParseAddrPort("192.0.2.99:80")
	tests := []struct {
		name       string
		backup     backup
		states     []health.State
		want       []int // of weights that are 7, and of the sorry server where there is one
		healthy    int
		wantAnswer string
	}{
		{"those that are fit keep their weight", backup{quorum: 1}, []health.State{up, slow, down, checking, draining}, []int{7, 7, 0, 0, 0}, 14, ""},
		{"nobody is fit", backup{quorum: 1}, []health.State{down, checking}, []int{0, 0}, 0, ""},
		{"a sorry server has nothing to do", backup{quorum: 7, sorry: sorry}, []health.State{up, down}, []int{7, 0, 0}, 7, "the sorry server answers"},
		{"a sorry server answers where nobody is fit", backup{quorum: 1, sorry: sorry}, []health.State{down, down}, []int{0, 0, 1}, 0, "the sorry server answers"},
		{"a sorry server answers below the quorum", backup{quorum: 8, sorry: sorry}, []health.State{up, down}, []int{0, 0, 1}, 7, "the sorry server answers"},
		{"open, but one is fit", backup{quorum: 1, failOpen: true}, []health.State{up, down}, []int{7, 0}, 7, "it fails open"},
		{"open: those that are down are used, not those set apart", backup{quorum: 1, failOpen: true}, []health.State{down, down, draining}, []int{7, 7, 0}, 0, "it fails open"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := lb.ServiceConfig{Name: "web", Listens: []lb.Listen{{VIP: netip.MustParseAddr("203.0.113.10")}}}
			var all []health.Status
			for i, state := range tt.states {
				s.RealServers = append(s.RealServers, lb.RealServerConfig{Address: server(i), Weight: 7})
				all = append(all, health.Status{Service: "web", Server: server(i), State: state, Percent: 100})
			}
			if tt.backup.sorry.IsValid() {
				s.RealServers = append(s.RealServers, lb.RealServerConfig{Address: sorry})
				all = append(all, health.Status{Service: "web", Server: sorry, State: up, Percent: 100})
			}
			p := &plan{balance: lb.Config{Services: []lb.ServiceConfig{s}}, backups: map[string]backup{"web": tt.backup}}
			for j, rs := range p.weighted(all).Services[0].RealServers {
				if rs.Weight != tt.want[j] {
					t.Errorf("real server %d: weight %d, want %d", j, rs.Weight, tt.want[j])
				}
			}
			if p.balance.Services[0].RealServers[0].Weight != 7 {
				t.Error("the configuration itself was changed")
			}
			a := announced(&s, tt.backup, byServer(all))
			if a.Weight != 7*len(tt.states) || a.Healthy != tt.healthy || a.Answers != tt.wantAnswer || a.Quorum != tt.backup.quorum {
				t.Errorf("for the announcement: %+v", a)
			}
		})
	}
}

func TestShare(t *testing.T) {
	for _, tt := range []struct{ weight, percent, want int }{{8, 100, 8}, {8, 75, 6}, {8, 0, 0}, {0, 75, 0}, {1, 10, 1}, {8, 150, 12}} {
		if got := share(tt.weight, tt.percent); got != tt.want {
			t.Errorf("%d %% of %d: %d, want %d", tt.percent, tt.weight, got, tt.want)
		}
	}
}

func TestTheLimitOfEjections(t *testing.T) {
	server := func(i int) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i+1)) }
	up := health.Status{State: health.Up, Percent: 100}
	out := health.Status{State: health.Down, Percent: 100, Ejected: time.Now()}
	down := health.Status{State: health.Down, Percent: 100}
	draining := health.Status{State: health.Draining, Percent: 100}
	idle := health.Status{State: health.Up}
	const none, most = "no other real server is fit", "more than 50 % of the weight would be ejected"
	tests := []struct {
		name    string
		states  []health.Status // the first is to be ejected
		weights []int           // nil: all alike
		want    string
	}{
		{"the only one", []health.Status{up}, nil, none},
		{"one of two", []health.Status{up, up}, nil, ""},
		{"the second of two", []health.Status{up, out}, nil, none},
		{"the second of three", []health.Status{up, out, up}, nil, most},
		{"the second of four", []health.Status{up, out, up, up}, nil, ""},
		{"the third of four", []health.Status{up, out, out, up}, nil, most},
		{"the others are down", []health.Status{up, down, down, down}, nil, none},
		{"the others are drained", []health.Status{up, draining, draining}, nil, none},
		{"the other's agent wants no flows", []health.Status{up, idle}, nil, none},
		{"one that carries the most", []health.Status{up, up, up}, []int{5, 2, 2}, most},
		{"one that carries the least", []health.Status{up, up, up}, []int{1, 2, 2}, ""},
		{"one beside another without weight", []health.Status{up, up}, []int{1, 0}, none},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sorry := server(len(tt.states))
			s := lb.ServiceConfig{Name: "web", RealServers: []lb.RealServerConfig{{Address: sorry, Weight: 1}}}
			all := []health.Status{{Service: "web", Server: sorry, State: health.Up, Percent: 100}}
			for i, h := range tt.states {
				rs := lb.RealServerConfig{Address: server(i), Weight: 1}
				if tt.weights != nil {
					rs.Weight = tt.weights[i]
				}
				s.RealServers = append(s.RealServers, rs)
				h.Service, h.Server = "web", server(i)
				all = append(all, h)
			}
			if got := notEjected(&s, backup{sorry: sorry, ejected: 50}, server(0), byServer(all)); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestAnAgentsLimitTakesThePlaceOfTheConfiguredOne(t *testing.T) {
	server := netip.MustParseAddrPort("192.0.2.1:80")
	for _, tt := range []struct{ max, min, agent, wantMax, wantMin int }{
		{10, 8, 0, 10, 8},
		{10, 8, 9, 9, 8},
		{10, 8, 5, 5, 0},
		{0, 0, 5, 5, 0},
		{10, 8, 20, 20, 8},
	} {
		s := lb.ServiceConfig{Name: "web", RealServers: []lb.RealServerConfig{{Address: server, Weight: 1, MaxFlows: tt.max, MinFlows: tt.min}}}
		p := &plan{balance: lb.Config{Services: []lb.ServiceConfig{s}}}
		rs := p.weighted([]health.Status{{Service: "web", Server: server, State: health.Up, Percent: 100, MaxFlows: tt.agent}}).Services[0].RealServers[0]
		if rs.MaxFlows != tt.wantMax || rs.MinFlows != tt.wantMin {
			t.Errorf("%+v: %d and %d", tt, rs.MaxFlows, rs.MinFlows)
		}
	}
}
