package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/uvs-project/uvs/health"
	"github.com/uvs-project/uvs/packet"
)

var (
	healthChecksDesc      = desc(HealthChecks, "Health checks of the real server, by their result.", "service", "real_server", "result")
	healthDurationDesc    = desc(HealthDuration, "How long the latest health check took.", "service", "real_server")
	healthTransitionsDesc = desc(HealthTransitions, "Changes of the real server's state.", "service", "real_server")
	healthEjectionsDesc   = desc(HealthEjections, "Times that failed connections of clients took the real server out, and times that they did not because of the limit.", "service", "real_server", "result")
)

// A realServer is one of one service.
type realServer struct {
	service  string
	endpoint packet.Endpoint
}

// known is the health of all real servers of the configuration.
func (c *balancer) known() map[realServer]*health.Status {
	all := c.health()
	m := make(map[realServer]*health.Status, len(all))
	for i := range all {
		m[realServer{all[i].Service, packet.EndpointFrom(all[i].Server)}] = &all[i]
	}
	return m
}

// collectHealth shows the health of one real server, which is nil for one that
// was removed.
func collectHealth(ch chan<- prometheus.Metric, h *health.Status, service, name string) {
	for _, s := range health.States() {
		gauge(ch, realServerStateDesc, oneIf(h != nil && h.State == s), service, name, s.String())
	}
	if h == nil {
		return
	}
	counter(ch, healthChecksDesc, h.Good, service, name, "success")
	counter(ch, healthChecksDesc, h.Bad, service, name, "failure")
	gauge(ch, healthDurationDesc, h.LastTook.Seconds(), service, name)
	counter(ch, healthTransitionsDesc, h.Transitions, service, name)
	counter(ch, healthEjectionsDesc, h.Ejections, service, name, "ejected")
	counter(ch, healthEjectionsDesc, h.Spared, service, name, "spared")
}
