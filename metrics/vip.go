package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/uvs-project/uvs/announce"
)

// vips collects what was decided about VIPs.
type vips struct{ all func() []announce.Verdict }

var vipUpDesc = desc(VIPUp, "Whether enough of what is behind the VIP is fit for it to be announced to routers.", "vip")

func (*vips) Describe(ch chan<- *prometheus.Desc) { describe(ch, vipUpDesc) }

func (c *vips) Collect(ch chan<- prometheus.Metric) {
	for _, v := range c.all() {
		gauge(ch, vipUpDesc, oneIf(v.Announce), v.VIP.String())
	}
}
