package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestTheLanesTroubleIsToldOnce: when it comes, when it changes and when it
// goes; the state shows it as long as it is there.
func TestTheLanesTroubleIsToldOnce(t *testing.T) {
	var log bytes.Buffer
	l := &lane{log: slog.New(slog.NewTextHandler(&log, nil)), trouble: map[string]string{}}
	robbed, gone := errors.New("eth0: somebody has removed it"), errors.New("eth0: no such device\neth1: too")
	for _, step := range []struct {
		task  string
		err   error
		says  string // the log, "" nothing
		state string
	}{
		{"attach", nil, "", "on"},
		{"attach", robbed, "somebody has removed it", "on; attach: eth0: somebody has removed it"},
		{"attach", robbed, "", "on; attach: eth0: somebody has removed it"},
		{"heartbeat", errors.New("no map"), "no map", "on; attach: eth0: somebody has removed it; heartbeat: no map"},
		{"attach", gone, "no such device", "on; attach: eth0: no such device; eth1: too; heartbeat: no map"},
		{"heartbeat", nil, "well again", "on; attach: eth0: no such device; eth1: too"},
		{"attach", nil, "well again", "on"},
		{"attach", nil, "", "on"},
	} {
		log.Reset()
		l.check(step.task, step.err)
		if said := log.String(); (said == "") != (step.says == "") || !strings.Contains(said, step.says) {
			t.Errorf("%s %v: logged %q, want %q", step.task, step.err, said, step.says)
		}
		if got := l.state(); got != step.state {
			t.Errorf("%s %v: %q, want %q", step.task, step.err, got, step.state)
		}
	}
}
