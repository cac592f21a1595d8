package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/uvs-project/uvs/announce"
)

// vips collects what was decided about VIPs.
type vips struct {
	all    func() []announce.Verdict
	probes func() (good, bad uint64)
}

var (
	vipUpDesc       = desc(VIPUp, "Whether enough of what is behind the VIP is fit for it to be announced to routers.", "vip")
	vipDegradedDesc = desc(VIPDegraded, "Whether a VIP that is announced is so with less than it should have behind it.", "vip")
	selfProbesDesc  = desc(SelfProbes, "Probes of VIPs by the director itself before their first announcement, by result.", "result")
)

func (*vips) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, vipUpDesc, vipDegradedDesc, selfProbesDesc)
}

func (c *vips) Collect(ch chan<- prometheus.Metric) {
	for _, v := range c.all() {
		gauge(ch, vipUpDesc, oneIf(v.Announce), v.VIP.String())
		gauge(ch, vipDegradedDesc, oneIf(v.Announce && v.Level != announce.Whole), v.VIP.String())
	}
	good, bad := c.probes()
	counter(ch, selfProbesDesc, good, "good")
	counter(ch, selfProbesDesc, bad, "bad")
}
