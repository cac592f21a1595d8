package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAnnouncementFaults(t *testing.T) {
	const web = `services[0] "web": `
	const servers = "real_servers: [{address: 192.0.2.1, weight: 2}, {address: 192.0.2.2}]"
	tests := []struct {
		name, raw string
		want      []string // none: accepted
	}{
		{"a quorum within the weights", service("quorum: 3", servers), nil},
		{"a quorum above the sum of the weights", service("quorum: 4", servers), []string{web + "quorum: 4 is out of range, 1 to 3"}},
		{"no quorum at all", service("quorum: 0", servers), []string{web + "quorum: 0 is out of range, 1 to 3"}},
		{"the default quorum without real servers", service(), nil},
		{"hysteresis within the weights", service("quorum: 2", "quorum_hysteresis: 1", servers), nil},
		{"hysteresis that can never come up", service("quorum: 3", "quorum_hysteresis: 1", servers), []string{
			web + "quorum_hysteresis: quorum and hysteresis are 4 together, more than the weights of all real servers, 3"}},
		{"hysteresis that can never go down", service("quorum: 1", "quorum_hysteresis: 1", servers), []string{
			web + "quorum_hysteresis: 1 is not within 0 and 0, which is below the quorum"}},
		{"a sorry server", service("sorry_server: 192.0.2.9", servers), nil},
		{"a sorry server that is a real server", service("sorry_server: 192.0.2.1", servers), []string{web + "sorry_server: 192.0.2.1 is real_servers[0] already"}},
		{"a sorry server on a port that the mode keeps", service(`sorry_server: "192.0.2.9:81"`, servers), []string{
			web + "sorry_server: dr keeps port 80 of 203.0.113.10:80/tcp; write port 80, or none"}},
		{"a sorry server nobody needs", service("sorry_server: 192.0.2.9", "fail_open: true", servers), []string{
			web + "sorry_server: a service that fails open has no use for it"}},
		{"what holds for all VIPs", "announcement: {vip_up: some, hold_down: 2h, med_span: -1, degraded_below: 0}", []string{
			`announcement.vip_up: "some" is none of any, all`, "announcement.hold_down: 2h0m0s is out of range, 0s to 1h0m0s",
			"announcement.med_span: -1 is out of range, 0 to 4294967295", "announcement.degraded_below: 0 is out of range, 1 to 100"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.raw), "yaml", Options{})
			var got []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
