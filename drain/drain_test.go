package drain

import (
	"net/netip"
	"testing"
	"time"
)

var (
	vip    = netip.MustParseAddr("203.0.113.10")
	other  = netip.MustParseAddr("203.0.113.11")
	server = netip.MustParseAddrPort("10.0.0.1:80")
	began  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func TestADrainIsGoneWhenItHasDoneWhatItCan(t *testing.T) {
	o := Options{Deadline: time.Minute, Flows: 10, Quiet: 5 * time.Second}
	type look struct {
		after time.Duration
		load  Load
		want  Phase
		cause string
	}
	for _, row := range []struct {
		name  string
		o     Options
		looks []look
	}{
		{"few flows are left", o, []look{
			{time.Second, Load{11, 1}, Leaving, ""},
			{2 * time.Second, Load{10, 2}, Gone, causeFlows},
			{3 * time.Second, Load{100, 3}, Gone, causeFlows},
		}},
		{"nothing comes any more", o, []look{
			{time.Second, Load{11, 7}, Leaving, ""},
			{5 * time.Second, Load{11, 7}, Leaving, ""},
			{6 * time.Second, Load{11, 7}, Gone, causeQuiet},
		}},
		{"something comes now and then", o, []look{
			{time.Second, Load{11, 7}, Leaving, ""},
			{5 * time.Second, Load{11, 8}, Leaving, ""},
			{9 * time.Second, Load{11, 9}, Leaving, ""},
			{59 * time.Second, Load{11, 10}, Leaving, ""},
			{60 * time.Second, Load{11, 11}, Gone, causeDeadline},
		}},
		{"quiet does not count", Options{Deadline: time.Minute}, []look{
			{59 * time.Second, Load{1, 0}, Leaving, ""},
			{60 * time.Second, Load{1, 0}, Gone, causeDeadline},
		}},
		{"no time is given", Options{}, []look{{0, Load{5, 5}, Gone, causeDeadline}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var d Drains
			if err := d.Start(Target{VIP: vip}, row.o, Load{12, 1}, began); err != nil {
				t.Fatal(err)
			}
			if left := d.All()[0].Left; left != 12 {
				t.Errorf("at the start %d flows are left, want 12", left)
			}
			was := Leaving
			for _, l := range row.looks {
				gone := d.Step(began.Add(l.after), func(Target) Load { return l.load })
				s := d.All()[0]
				if s.Phase != l.want || s.Cause != l.cause || s.Left != l.load.Flows {
					t.Errorf("after %v: %s (%s) with %d flows, want %s (%s)", l.after, s.Phase, s.Cause, s.Left, l.want, l.cause)
				}
				if told := len(gone) == 1; told != (was != Gone && l.want == Gone) {
					t.Errorf("after %v: %d told gone", l.after, len(gone))
				}
				was = s.Phase
			}
		})
	}
}

func TestWhatADrainConcerns(t *testing.T) {
	var d Drains
	start := func(targets ...Target) {
		t.Helper()
		for _, x := range targets {
			if err := d.Start(x, Options{Deadline: time.Hour}, Load{}, began); err != nil {
				t.Fatal(err)
			}
		}
	}
	start(Target{VIP: vip}, Target{Service: "web", Server: server})
	if d.VIP(vip) != Leaving || d.VIP(other) != None {
		t.Errorf("the VIPs are %q and %q, want the first leaving", d.VIP(vip), d.VIP(other))
	}
	if !d.Server("web", server) || d.Server("dns", server) {
		t.Error("want the real server drained in web only")
	}
	start(Target{Server: server}, Target{Node: true})
	if d.VIP(other) != Leaving || !d.Server("dns", server) {
		t.Error("want every VIP leaving with the node, and the real server drained in all services")
	}
	d.Step(began.Add(2*time.Hour), func(x Target) Load {
		return Load{Flows: 1}
	})
	if d.VIP(other) != Gone {
		t.Error("want the VIPs gone with the node")
	}
	for _, x := range []Target{{Node: true}, {Server: server}} {
		if !d.Undo(x) || d.Undo(x) {
			t.Errorf("%v: want it undone once", x)
		}
	}
	if d.VIP(other) != None || d.VIP(vip) != Gone || d.Server("dns", server) || !d.Server("web", server) {
		t.Error("undoing one drain touched another")
	}
}

func TestTargetsAreNamedAsTheConfigurationNamesThem(t *testing.T) {
	for _, row := range []struct {
		t    Target
		want string
	}{
		{Target{Node: true}, "node"},
		{Target{VIP: vip}, "VIP " + vip.String()},
		{Target{Server: netip.MustParseAddrPort("10.0.0.21:80")}, "real server 10.0.0.21:80"},
		{Target{Server: netip.MustParseAddrPort("10.0.0.21:0"), Service: "web"}, "real server 10.0.0.21 of service web"},
		{Target{Server: netip.MustParseAddrPort("[2001:db8::21]:0")}, "real server 2001:db8::21"},
	} {
		if got := row.t.String(); got != row.want {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
}

func TestBadDrainsAreRefused(t *testing.T) {
	for _, row := range []struct {
		name string
		t    Target
		o    Options
	}{
		{"nothing is named", Target{}, Options{}},
		{"two things are named", Target{Node: true, VIP: vip}, Options{}},
		{"a service without a real server", Target{Node: true, Service: "web"}, Options{}},
		{"a deadline in the past", Target{Node: true}, Options{Deadline: -1}},
		{"fewer than no flows", Target{Node: true}, Options{Flows: -1}},
	} {
		var d Drains
		if d.Start(row.t, row.o, Load{}, began) == nil || len(d.All()) != 0 {
			t.Errorf("%s: taken", row.name)
		}
	}
}
