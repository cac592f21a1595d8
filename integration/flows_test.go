package integration

// uvs flows and uvs explain, in the topology of lanebed_test.go.

import (
	"fmt"
	"strings"
	"testing"

	"github.com/uvs-project/uvs/integration/lab"
)

func TestFlowsSayWhereTheyRun(t *testing.T) {
	need(t)
	b := newLaneBed(t)
	// A flow that uvs may have to reset stays on the road.
	d := startDirector(t, b.director, laneServices+`  - name: kept
    listen: ["203.0.113.10:81/tcp"]
    mode: nat
    health: {type: none}
    policy: {reset_expired: true}
    real_servers: [{address: "10.1.0.2:80"}]
`)
	quiet, busy := b.talkTo(t, "203.0.113.10:81"), b.talk(t)
	quiet.say(t, 10)
	busy.intoTheLane(t, d)

	busy.staysInTheLane(t, d, "once in the lane")
	if list, n := flows(t, d); n != 2 || len(list) != 2 {
		t.Fatalf("%d flows listed of %d: %v", len(list), n, list)
	}
	for _, row := range []struct {
		args []string
		want *talk
	}{
		{[]string{"--runs", "lane"}, busy},
		{[]string{"--runs", "road"}, quiet},
		{[]string{"--client", quiet.LocalAddr().String(), "--vip", "203.0.113.10", "--server", "10.1.0.0/24", "--state", "established"}, quiet},
		{[]string{"--client", "198.18.0.3"}, nil},
		{[]string{"--server", "10.1.0.2:81"}, nil},
		{[]string{"--protocol", "udp"}, nil},
		{[]string{"--state", "time_wait"}, nil},
		{[]string{"--templates"}, nil},
	} {
		// A change of the host's routes, such as when its link has settled,
		// takes the flow back for a moment.
		err := lab.Wait(within(t), fmt.Sprint("flows ", row.args), func() error {
			busy.intoTheLane(t, d)
			list, n := flows(t, d, row.args...)
			switch {
			case row.want == nil && n != 0, row.want != nil && n != 1:
				return fmt.Errorf("%d flows: %v", n, list)
			case row.want != nil && (list[0].Client != row.want.LocalAddr().String() || list[0].RealServer != laneRIP || list[0].Expires < 800):
				return fmt.Errorf("%+v", list[0])
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if out := run(t, d.host, d.bin, "flows", "--socket", d.socket, "--limit", "1"); !strings.Contains(out, "and 1 more of 2 flows") {
		t.Errorf("a list that is cut does not say so:\n%s", out)
	}
	if out, err := d.host.Run(within(t), d.bin, "flows", "--socket", d.socket, "--state", "asleep"); err == nil || !strings.Contains(err.Error(), "established") {
		t.Errorf("an unknown state: %v\n%s", err, out)
	}
}

func TestExplainSaysWhy(t *testing.T) {
	need(t)
	b := newLaneBed(t)
	d := startDirector(t, b.director, laneServices)
	k := b.talk(t)
	k.intoTheLane(t, d)
	me := k.LocalAddr().String()
	before, _ := flows(t, d)
	for _, row := range []struct {
		name     string
		from, to string
		want     []string
	}{
		{"a flow in the lane", me, laneVIP + "/tcp", []string{"send, ok", "a request of " + me, "runs: lane", "destination becomes " + laneRIP, "in the fast lane"}},
		{"its replies", laneRIP, me + "/tcp", []string{"a reply of " + me, "source becomes " + laneVIP}},
		{"a new client", "198.18.0.2:1234", laneVIP + "/tcp", []string{"it opens a flow", "flow         none", "sh chose it: the client's hash", "not established", "yes, this one"}},
		{"a port without a service", "198.18.0.2:1234", "203.0.113.10:81/tcp", []string{"pass, no_service", "service  none"}},
		{"somebody else's address", "198.18.0.2:1234", "203.0.113.99:80/tcp", []string{"return, ok"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := lab.Wait(within(t), "the explanation", func() error {
				k.intoTheLane(t, d)
				out := run(t, d.host, d.bin, "explain", "--socket", d.socket, row.from, row.to)
				for _, want := range row.want {
					if !strings.Contains(out, want) {
						return fmt.Errorf("%q is missing in\n%s", want, out)
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	if after, _ := flows(t, d); len(after) != len(before) {
		t.Errorf("explaining made flows: %v, before %v", after, before)
	}
}
